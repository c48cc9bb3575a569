"""Write a config's model as ONNX, check it, time it, and quantise it.

The graph takes normalised images (B, 3, H, W) and returns the maps of backbone
and neck, or raw logits. It is compared with PyTorch under onnxruntime before
it counts as written. With a name in *.pt2 it is one of torch.export.
"""

from mmvitcompress.analysis.configs import as_shape, load_config
from mmvitcompress.deploy import (
    DYNAMIC,
    PARTS,
    DeployedNetwork,
    GraphSpec,
    shipping,
)
from mmvitcompress.engine.build import build
from mmvitcompress.engine.config import add_overrides
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__)
    parser.add_argument('config', help='config file of a model')
    parser.add_argument('out', help='file to write, *.onnx or *.pt2')
    parser.add_argument(
        '--checkpoint',
        help='of a training run or of tools/export_pruned.py; without it '
        'the weights that the config names, or random ones',
    )
    parser.add_argument('--part', choices=PARTS, default='all')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='N',
        help='image height and width in pixels, or one number for both; by '
        'default what the config is about',
    )
    parser.add_argument(
        '--dynamic',
        choices=DYNAMIC,
        default='batch',
        help='what may vary: the number of images, their size as well (in '
        'steps of patch and merges; slower to write), or nothing',
    )
    parser.add_argument('--batch-size', type=int, default=1, help='to time')
    parser.add_argument('--opset', type=int, default=shipping.OPSET)
    parser.add_argument(
        '--check-images',
        type=int,
        default=0,
        metavar='N',
        help='measure accuracy on N images of the validation data',
    )
    parser.add_argument(
        '--int8',
        action='store_true',
        help='also write OUT with .int8.onnx, quantised statically',
    )
    parser.add_argument(
        '--calibration',
        default='dataset',
        metavar='FOLDER',
        help="folder of images for --int8; 'dataset' takes validation images "
        'that accuracy is not measured with',
    )
    parser.add_argument(
        '--calibration-images', type=int, default=64, metavar='N'
    )
    parser.add_argument('--repeats', type=int, default=20, help='timed runs')
    add_overrides(
        parser,
        'override parts of the config, such as the data root',
    )
    cli.add_json(parser)
    return parser.parse_args()


def table(rows: dict) -> str:
    """One line for each runtime."""
    lines = []
    for name, row in rows.items():
        line = f'{name:<12}{row["ms"]["median"]:>10.2f} ms'
        line += f'{row["mb"]:>9.2f} MB' if 'mb' in row else ' ' * 12
        for metric, value in row.get('metrics', {}).items():
            line += f'  {metric} {value:.2f}'
        if 'agreement' in row:
            line += f'  same class {row["agreement"]:.2%}'
        lines.append(line)
    return '\n'.join(lines)


def main():
    args = parse_args()
    as_torch = args.out.endswith('.pt2')
    if not as_torch and not args.out.endswith('.onnx'):
        raise ConfigError(f'out must end in .onnx or .pt2, but got {args.out}')
    if as_torch and (args.int8 or args.check_images):
        raise ConfigError('--int8 and --check-images need an *.onnx file')
    trial = shipping.Trial(
        args.int8,
        None if args.calibration == 'dataset' else args.calibration,
        args.calibration_images,
        args.check_images,
        args.repeats,
    )
    cfg = load_config(args.config, args.cfg_options, args.backbone)
    model = build(cfg, args.checkpoint, 'measure')
    shape = as_shape(args.shape or shipping.image_shape(cfg, model))
    spec = GraphSpec(shape, args.dynamic, args.batch_size)
    network = DeployedNetwork(model, args.part, spec)
    if as_torch:
        shipping.save_program(network, args.out)
        print(f'written to {args.out}')
        return
    report = shipping.ship(cfg, network, model, args.out, trial, args.opset)
    print(table(report['runtimes']))
    error = report['relative_error']
    print(f'differs from PyTorch by {error:.2g} of the largest output')
    print(f'written to {", ".join(report["files"].values())}')
    if args.json:
        cli.write_json(args.json, report)


if __name__ == '__main__':
    cli.run(main)
