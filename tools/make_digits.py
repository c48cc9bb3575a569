"""Lay scikit-learn's handwritten digits out as three kinds of data set.

An ImageFolder for classification, an ADE20K-style tree for semantic
segmentation, and COCO JSON for instance segmentation of the same scenes.
"""

import signal
import sys

from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__.strip())
    parser.add_argument(
        '--out', default='data/digits', help='folder to make', metavar='DIR'
    )
    parser.add_argument(
        '--scenes',
        type=int,
        default=400,
        metavar='N',
        help='training scenes; a quarter as many are made for validation',
    )
    parser.add_argument(
        '--size', type=int, default=128, help='side of a scene in pixels'
    )
    parser.add_argument('--seed', type=int, default=0, help='of all chance')
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a digits folder made with other options, or a damaged '
        'one; nothing else is ever replaced',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    # so that a terminated run clears up as an interrupted one does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    from dataset_converters.digits import make_digits

    if make_digits(**vars(args)):
        print(
            f'{args.out}: made {args.scenes} training scenes, '
            f'{args.scenes // 4} validation scenes and 1797 digits'
        )
    else:
        print(f'{args.out}: complete already, nothing to do')


if __name__ == '__main__':
    cli.run(main)
