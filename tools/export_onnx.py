"""Write a config's model as ONNX, check it, time it, and quantise it.

tools/export.py --target onnx, or torch for a name in *.pt2. The graph takes
normalised images (B, 3, H, W) and returns what leaves the backbone, the neck,
or the head. It is compared with PyTorch under onnxruntime before it counts as
written.
"""

from mmvitcompress.deploy.command import export_files, export_parser
from mmvitcompress.deploy.targets import TARGETS
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils import cli

FACES = ('onnx', 'torch')


def parse_args():
    parser = export_parser(__doc__, 'file to write, *.onnx or *.pt2')
    return parser.parse_args()


def main():
    args = parse_args()
    suffixes = {TARGETS[name].suffix: name for name in FACES}
    name = next((n for s, n in suffixes.items() if args.out.endswith(s)), None)
    if name is None:
        raise ConfigError(f'out must end in .onnx or .pt2, but got {args.out}')
    export_files(args, [name])


if __name__ == '__main__':
    cli.run(main)
