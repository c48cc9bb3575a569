"""Count MACs and parameters of a config's model by part.

Nothing is downloaded and no data set is needed: the network is built, with
random weights unless a checkpoint is given, and run once on a random image.
"""

from mmvitcompress.analysis.complexity import model_complexity
from mmvitcompress.analysis.configs import (
    as_shape,
    default_shape,
    load_config,
)
from mmvitcompress.analysis.operators import OPERATOR_COSTS
from mmvitcompress.engine.build import build
from mmvitcompress.engine.config import add_overrides
from mmvitcompress.utils import cli

MEANING = {
    'fvcore': 'products counted exactly, norms and resampling by element, '
    'as fvcore does; attention in full, fused or not',
    'matmul': 'linear layers, convolutions and attention only',
}


def parse_args():
    parser = cli.parser(__doc__.strip())
    parser.add_argument('config', help='config file of a model')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='N',
        help='image height and width in pixels, or one number for both; by '
        "default the config's crop_size, data_preprocessor.size, test "
        'pipeline or backbone.img_size, the first that is there. Images are '
        "padded as the config's data preprocessor pads them",
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='of a training run or of tools/export_pruned.py, whose shape is '
        "counted; by default the config's",
    )
    parser.add_argument(
        '--convention',
        choices=sorted(OPERATOR_COSTS),
        default='fvcore',
        help='; '.join(f'{name}: {text}' for name, text in MEANING.items()),
    )
    add_overrides(
        parser,
        'override settings of the config, such as '
        'model.backbone.arch=deit_tiny',
    )
    cli.add_json(parser, 'also write the figures')
    return parser.parse_args()


def table(figures: dict) -> str:
    """The figures as text."""
    lines = [f'{"part":<10}{"MACs":>12}{"share":>8}{"parameters":>14}']
    whole = figures['total']['macs'] or 1
    for name, part in (*figures['parts'].items(), ('total', figures['total'])):
        lines.append(
            f'{name:<10}{part["macs"] / 1e9:>10.3f} G'
            f'{part["macs"] / whole:>8.1%}{part["params"] / 1e6:>12.3f} M'
        )
    return '\n'.join(lines)


def notes(figures: dict) -> list[str]:
    """What one must know to read the table."""
    convention = figures['convention']
    height, width = figures['input_shape']
    lines = [
        f'One image of {height} x {width} pixels (after padding); raw outputs '
        'of the network, without post-processing.',
        f'MACs (multiply-accumulates, half as many as FLOPs in the strict '
        f'sense) by convention {convention}: {MEANING[convention]}.',
    ]
    if regions := figures.get('regions'):
        counts = ', '.join(f'{n} {kind}' for kind, n in regions.items())
        lines.append(f'RoI heads run on {counts} per image.')
    if left_out := figures['training_only']['params']:
        lines.append(
            f'Not counted: {left_out / 1e6:.3f} M parameters that only '
            'training uses.'
        )
    if figures['uncounted']:
        calls = ', '.join(
            f'{n} ({c}x)' for n, c in figures['uncounted'].items()
        )
        lines.append(f'Not in the convention and not counted: {calls}.')
    return lines


def main() -> None:
    args = parse_args()
    config = load_config(args.config, args.cfg_options, args.backbone)
    shape = as_shape(args.shape) if args.shape else default_shape(config)
    model = build(config, args.checkpoint, 'measure')
    figures = model_complexity(model, shape, args.convention)
    print(table(figures))
    print('\n'.join(notes(figures)))
    if args.json:
        cli.write_json(args.json, figures)


if __name__ == '__main__':
    cli.run(main)
