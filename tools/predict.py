"""Predict on images, folders and videos with a trained model.

Segmentors write a colour overlay and an index map (the class of each pixel)
for every image, detectors an overlay and a JSON of boxes and masks,
classifiers the likeliest classes. Everything is recorded in predictions.json
in the output folder. The weights that the config's training started from
aren't needed. Damaged files cost no others: they are listed in the end, and
the exit status is 1.

Examples:
    predict.py CONFIG CHECKPOINT street.jpg holiday/ ride.mp4 --out seen
    predict.py CONFIG CHECKPOINT photos --out seen --batch-size 8 --topk 3
"""

import sys
from pathlib import Path

from mmvitcompress.engine.config import add_overrides, read_config
from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.inference import predict
from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__)
    parser.add_argument('config', help='config of the model')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument(
        'inputs', nargs='+', help='images, videos, and folders of them'
    )
    parser.add_argument(
        '--out', required=True, metavar='DIR', help='folder for the results'
    )
    parser.add_argument(
        '--device', help='such as cuda:0 or cpu; by default CUDA if there is'
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        metavar='N',
        help='how many images of one size run together',
    )
    parser.add_argument(
        '--topk',
        type=int,
        default=5,
        metavar='N',
        help='classes that a classifier names for each image',
    )
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.3,
        metavar='S',
        help='least score of a detection, in 0..1',
    )
    parser.add_argument(
        '--opacity',
        type=float,
        default=0.5,
        help='of the colours drawn over images, in 0..1',
    )
    parser.add_argument(
        '--no-overlay',
        action='store_true',
        help="write labels or boxes only; drawing a detector's on an image of "
        '6000x4000 pixels takes most of a minute',
    )
    parser.add_argument(
        '--classes',
        metavar='FILE',
        help='names of the classes, one a line; by default those that the '
        'checkpoint or the data set knows',
    )
    parser.add_argument(
        '--no-progress', action='store_true', help='show no progress bar'
    )
    add_overrides(parser, 'override parts of the config')
    cli.add_json(parser, 'write the record here')
    return parser.parse_args()


def read_names(path: str) -> list[str]:
    """The lines of a file."""
    try:
        return Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'--classes {path!r} cannot be read: {error}; give a text file'
        ) from None


def main():
    args = parse_args()
    report = predict(
        read_config(args.config, args.cfg_options, args.backbone),
        args.checkpoint,
        args.inputs,
        args.out,
        device=args.device,
        batch_size=args.batch_size,
        classes=read_names(args.classes) if args.classes else None,
        topk=args.topk,
        score_threshold=args.score_threshold,
        opacity=args.opacity,
        overlay=not args.no_overlay,
        progress=not args.no_progress,
    )
    count, seconds = report['images'], report['seconds']
    print(
        f'{report["task"]} of {count} images in {seconds:.1f} s '
        f'({count / seconds:.2f} images/s, reading and writing included); '
        f'results in {args.out}'
    )
    for record in report['inputs']:
        if 'top' in record:
            best = record['top'][0]
            print(f'{record["input"]}: {best["class"]} {best["score"]:.1%}')
    if args.json:
        cli.write_json(args.json, report)
    for failure in report['failures']:
        print(' '.join(failure['error'].split()), file=sys.stderr)
    if report['failures']:
        raise DataError(
            f'{len(report["failures"])} inputs failed, see above; results of '
            f'the others are in {args.out}'
        )


if __name__ == '__main__':
    cli.run(main)
