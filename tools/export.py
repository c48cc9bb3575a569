"""Write a config's model for other runtimes, check it, time it, quantise it.

Graphs take normalised images (B, 3, H, W) and return what leaves the backbone,
the neck, or the head. Every file is compared with PyTorch in its own runtime
before it counts as written, on real images too (--images). With --baseline
both models take turns in all runtimes. TensorRT gets an ONNX file that was
searched for what it refuses, and a script with trtexec's commands.
"""

from mmvitcompress.deploy.command import export_files, export_parser
from mmvitcompress.deploy.targets import TARGETS
from mmvitcompress.utils import cli


def parse_args():
    out = (
        'file to write; with several targets, or without the suffix of the '
        'one, the name to which they add their own'
    )
    parser = export_parser(__doc__, out)
    parser.add_argument(
        '--target',
        nargs='+',
        choices=TARGETS,
        required=True,
        help='runtimes: onnx for onnxruntime, openvino, torch for programs '
        'of torch.export, tensorrt for trtexec',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    export_files(args, list(dict.fromkeys(args.target)))


if __name__ == '__main__':
    cli.run(main)
