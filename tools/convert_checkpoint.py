"""Convert a released ViT checkpoint into one that carries its own shape.

Reads files of timm, DeiT, DINO, DINOv2, iBOT, MAE, MoCo v3, LV-ViT,
transformers (ViT, DeiT, DINOv2), MMPretrain, MMSegmentation and MMDetection,
Microsoft's Swins, URLs of such files, and timm models by name (downloaded).
What tensors do not tell is taken from --arch, or assumed with a line.

Examples:
    convert_checkpoint.py deit_small_patch16_224.fb_in1k deit_small_in1k.pth
    convert_checkpoint.py deit_small_patch16_224-cd65a155.pth out.safetensors
"""

import sys
from pathlib import Path

from mmvitcompress.checkpoints.convert import convert
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.errors import CheckpointError
from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__)
    parser.add_argument('source', help='file, or name of a timm model')
    parser.add_argument('target', help='file to write: *.pth, *.safetensors')
    parser.add_argument(
        '--arch',
        help='name or JSON of the arch; needed where head count or norm '
        'epsilon are not those of a known arch of the same width and depth',
    )
    parser.add_argument(
        '--no-head', action='store_true', help='leave the classifier out'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace an existing target'
    )
    cli.add_json(parser)
    return parser.parse_args()


def _tell(line: str) -> None:
    # on stderr, apart from the result
    print(line, file=sys.stderr)


def main():
    args = parse_args()
    target = Path(args.target)
    if target.suffix not in ('.pth', '.safetensors'):
        raise CheckpointError(
            f'target must end in .pth or .safetensors, but got {args.target!r}'
        )
    if target.exists() and not args.overwrite:
        raise CheckpointError(
            f'{args.target!r} exists; give --overwrite to replace it'
        )
    weights = convert(args.source, args.arch, log=_tell)
    state_dict, arch = weights.tensors, weights.arch
    if args.no_head:
        state_dict = {
            k: v for k, v in state_dict.items() if not k.startswith('head')
        }
    images = dict(weights.pretrained_cfg)
    noted = {'pretrained_cfg': images} if images else {}
    write_checkpoint(target, state_dict, arch, source=args.source, **noted)
    biases = (state_dict.get(f'head.{key}') for key in ('bias', 'fc.bias'))
    classes = next((len(bias) for bias in biases if bias is not None), 0)
    figures = dict(
        target=str(target),
        img_size=list(arch.img_size),
        num_classes=classes,
        macs=arch.macs(num_classes=classes),
        params=arch.params(num_classes=classes),
    )
    print(
        f'{target}: embed_dim {arch.embed_dim}, depth {arch.depth}, '
        f'{arch.num_heads} heads, patch {arch.patch_size}, '
        f'{figures["params"] / 1e6:.2f} M parameters, '
        f'{figures["macs"] / 1e9:.2f} GMACs at '
        f'{arch.img_size[0]}×{arch.img_size[1]} px'
    )
    if args.json:
        cli.write_json(args.json, figures)


if __name__ == '__main__':
    cli.run(main)
