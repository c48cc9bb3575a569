"""Plan the compression of a ViT for a MAC target.

Says before which blocks to merge tokens, by CAIT's rule, or how many tokens
another method has to leave, at the image size at which the model will be used;
and, if channels are to be pruned too, how much of the MACs they have to save.
"""

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels import SelectionRules
from mmvitcompress.planning import Plan, plan_arch
from mmvitcompress.tokens import METHODS, TokenMerging
from mmvitcompress.utils import cli

DEFAULTS = SelectionRules()


def parse_args():
    parser = cli.parser(__doc__.strip())
    parser.add_argument(
        '--arch',
        required=True,
        help="name of an arch, such as deit_small, or an arch JSON's path",
    )
    parser.add_argument(
        '--target',
        type=float,
        required=True,
        help="reduction to reach, as a fraction of the dense model's MACs: "
        '0.43 leaves 57 %% of them',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        required=True,
        metavar='N',
        help='image height and width in pixels, or one number for both',
    )
    parser.add_argument(
        '--channels',
        type=float,
        default=0.0,
        metavar='SHARE',
        help="the channels' share of the reduction: 0 only merges tokens, 1 "
        'only prunes channels. Merges then stand evenly and channels make up '
        'the difference to the target',
    )
    parser.add_argument(
        '--num-classes',
        type=int,
        default=0,
        metavar='N',
        help="count a classifier of N classes, as the papers' figures do "
        '(1000)',
    )
    parser.add_argument(
        '--min-head-dim',
        type=int,
        default=DEFAULTS.min_head_dim,
        metavar='N',
        help='channels that each head keeps at the least',
    )
    parser.add_argument(
        '--min-mlp-dim',
        type=int,
        default=DEFAULTS.min_mlp_dim,
        metavar='N',
        help='hidden channels that each MLP keeps at the least',
    )
    parser.add_argument(
        '--method',
        choices=[*METHODS],
        default=TokenMerging.key,
        help='token method to plan with',
    )
    cli.add_json(parser, 'also write the plan')
    args = parser.parse_args()
    if len(args.shape) > 2:
        parser.error('--shape takes one or two numbers')
    return args


def report(arch: str, shape: tuple[int, int], found: Plan) -> str:
    """The plan as text."""
    counted = get_arch(arch).layers_counted
    lines = [
        f'{arch} at {shape[0]} x {shape[1]} pixels: '
        f'{found.dense_macs / 1e9:.3f} G → {found.macs / 1e9:.3f} G MACs, '
        f'{found.reduction:.2%} less',
        f'{found.spec.summary()}, which save {found.token_reduction:.2%} '
        f'({counted})',
    ]
    if found.channel_reduction:
        lines.append(
            f'channels have to save {found.channel_reduction:.2%} of the '
            'dense MACs'
        )
    for key, arguments in found.config().items():
        values = (f'{name}={value!r}' for name, value in arguments.items())
        lines.append(f'in a config: {key}=dict({", ".join(values)})')
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    shape = (args.shape[0], args.shape[-1])
    rules = SelectionRules(
        min_head_dim=args.min_head_dim, min_mlp_dim=args.min_mlp_dim
    )
    found = plan_arch(
        get_arch(args.arch),
        args.target,
        shape,
        args.channels,
        args.num_classes,
        rules,
        args.method,
    )
    print(report(args.arch, shape, found))
    if args.json:
        settings = dict(arch=args.arch, target=args.target, shape=list(shape))
        cli.write_json(args.json, {**found.to_dict(), **settings})


if __name__ == '__main__':
    cli.run(main)
