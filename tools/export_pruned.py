"""Make the small checkpoint out of a compression run.

Folds the compactors into the layers, removes what was masked, compares the
result with the trained model on images of the config's validation data, and
writes one file that carries its own shape: the whole model, neck and heads
included, for test.py and its like; model.backbone.checkpoint of another model
takes it as well. Runs that only merged or slimmed tokens are exported in the
same way.
"""

from functools import partial
from pathlib import Path

from mmvitcompress.checkpoints.file import (
    check_suffix,
    read_checkpoint,
    write_checkpoint,
)
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.engine import launch
from mmvitcompress.engine.build import build, build_shape
from mmvitcompress.engine.config import add_overrides, read_config
from mmvitcompress.engine.export import (
    classes_of,
    export,
    last_weights,
    real_images,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__)
    parser.add_argument('config', help='config of the compression run')
    parser.add_argument('checkpoint', help='checkpoint that it wrote')
    parser.add_argument('out', help='file to write, *.pth or *.safetensors')
    parser.add_argument(
        '--divisor',
        type=int,
        default=8,
        metavar='N',
        help='keep some more channels so that widths are multiples of N, '
        'which costs no time on most hardware',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='go on if masked channels have not become zero',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=16,
        metavar='N',
        help='validation images to compare on',
    )
    parser.add_argument(
        '--backbone-only',
        action='store_true',
        help="leave neck and heads out, and use timm's names",
    )
    parser.add_argument(
        '--last',
        action='store_true',
        help='of a run with EMAHook export the last weights, not their '
        'average',
    )
    add_overrides(
        parser,
        'override parts of the config, such as the data root',
    )
    cli.add_json(parser)
    return parser.parse_args()


def table(report: dict) -> str:
    """Widths per block, then costs."""
    lines = [f'{"block":>5}{"Q/K":>12}{"V":>12}{"MLP":>14}']
    pairs = zip(report['widths_before'], report['widths'])
    for block, (before, after) in enumerate(pairs, 1):
        cells = [f'{b} → {a}' for b, a in zip(before, after)]
        lines.append('{:>5}{:>12}{:>12}{:>14}'.format(block, *cells))
    lines.append(f'{"":10}{"dense":>12}{"before":>12}{"after":>12}')
    for name, unit, scale in (('macs', 'G', 1e9), ('params', 'M', 1e6)):
        row = ''.join(
            f'{report[name][key] / scale:>10.4f} {unit}'
            for key in ('dense', 'before', 'after')
        )
        lines.append(f'{name:10}{row}')
    return '\n'.join(lines)


def main():
    args = parse_args()
    if args.divisor < 1 or args.images < 1:
        raise ConfigError(
            '--divisor and --images must be at least 1, but got '
            f'{args.divisor} and {args.images}'
        )
    check_suffix(args.out)
    cfg = read_config(args.config, args.cfg_options, args.backbone)
    model = build(cfg, args.checkpoint, 'export')
    stored = read_checkpoint(args.checkpoint)
    if args.last:
        load_strict(model, last_weights(stored), stored.path)
    with launch.naming_data_errors():
        images = real_images(cfg, model, args.images)
    result = export(
        model,
        partial(build_shape, cfg),
        images,
        args.divisor,
        args.force,
        args.backbone_only,
    )
    report = dict(result.report, checkpoint=args.out, images=len(images))
    metrics = {key: report[key] for key in ('reduction', 'macs', 'params')}
    write_checkpoint(
        args.out,
        result.state_dict,
        result.arch,
        source=Path(args.checkpoint).name,
        config=Path(args.config).name,
        metrics=metrics,
        **classes_of(stored),
    )
    print(table(report))
    parts = ', '.join(report['compared'])
    print(
        f'MACs of the backbone −{report["reduction"]:.2%} against the dense '
        f'one; {sum(report["unconverged"])} masked channels were not zero; '
        f'on {len(images)} images removing channels moves outputs ({parts}) '
        f'by {report["output_shift"]:.2g} of the largest value, folding by '
        f'{report["folding_error"]:.2g}'
    )
    print(f'written to {args.out}')
    if args.json:
        cli.write_json(args.json, report)


if __name__ == '__main__':
    cli.run(main)
