"""Draw what compression does to a trained model.

Each kind of picture has a --help of its own; docs/visualization.md shows and
explains all of them. Needs matplotlib.
"""

import shlex
import sys

from mmvitcompress.engine.config import add_cfg_options
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils import cli

KINDS = {
    'merges': 'which patches share a token, stage by stage',
    'life': 'predicted lives of patches, and who is left after each layer',
    'channels': 'what each block keeps, or what became of the channels of '
    'each head',
    'attention': 'what the last block looks at, dense beside compressed',
    'features': 'restored feature maps as colours, dense beside compressed',
    'compare': 'what two segmentors say about validation images, where they '
    'differ, and the IoU of each class',
    'curve': 'accuracy or mIoU over MACs and over latency',
}
WITH_IMAGES = ('merges', 'life', 'attention', 'features')
WITH_FIGURES = ('channels', 'compare')


def parse_args():
    parser = cli.parser(__doc__.strip())
    parsers = parser.add_subparsers(
        dest='kind', required=True, metavar='KIND', parser_class=cli.parser
    )
    kinds = {
        name: parsers.add_parser(name, help=text, description=f'Draw {text}.')
        for name, text in KINDS.items()
    }
    for name, kind in kinds.items():
        if name in (*WITH_IMAGES, 'compare'):
            add_model(kind, name)
        if name in WITH_IMAGES:
            add_images(kind)
        add_outputs(kind, name)
    add = kinds['channels'].add_argument
    pruned = 'what a pruning run or tools/export_pruned.py has written'
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help=pruned)
    add('--names', nargs='+', metavar='NAME', help='what to call them')
    heads = 'head: also what is zero and cannot go; of pruning runs only'
    add('--by', choices=['block', 'head'], default='block', help=heads)
    add = kinds['attention'].add_argument
    add('--head', type=int, metavar='N', help='counted from 0, not the mean')
    add = kinds['features'].add_argument
    levels = 'blocks (of a Swin: stages), counted from 1'
    add('--blocks', type=int, nargs='+', metavar='N', help=levels)
    add = kinds['compare'].add_argument
    add('--evaluate', type=int, default=100, help='images to take IoUs over')
    add('--show', type=int, default=4, help='how many of them to draw')
    add = kinds['curve'].add_argument
    add('results', nargs='*', metavar='RESULTS', help='JSON lists of results')
    add('--benchmark', metavar='FILE', help='of tools/benchmark.py --json')
    metrics = 'of tools/test.py --json for each of its models, baseline first'
    add('--metrics', nargs='+', metavar='FILE', help=metrics)
    add('--names', nargs='+', metavar='NAME', help='what to call the models')
    parts = ['backbone', 'encoder', 'overall']
    add('--part', choices=parts, default='overall', help='whose time counts')
    return parser.parse_args()


def add_model(kind, name: str) -> None:
    add = kind.add_argument
    add('config', help='config of the compressed model')
    count = '?' if name == 'merges' else None
    add('checkpoint', nargs=count, help='its checkpoint')
    if name not in ('merges', 'life'):
        pair, needed = ('CONFIG', 'CHECKPOINT'), name == 'compare'
        dense = 'the uncompressed model to stand beside it'
        add('--dense', nargs=2, required=needed, metavar=pair, help=dense)
    add_cfg_options(kind, 'override settings of all configs')


def add_images(kind) -> None:
    add = kind.add_argument
    source = "image, folder of images, or dataset: the config's test data"
    add('--images', default='dataset', metavar='SOURCE', help=source)
    add('--count', type=int, default=4, help='images at equal distances in it')
    shape = 'height and width to resize them to, in pixels, or one for both'
    add('--shape', type=int, nargs='+', metavar='N', help=shape)


def add_outputs(kind, name: str) -> None:
    add = kind.add_argument
    out = f'work_dirs/visualize/{name}.png'
    add('--out', default=out, metavar='FILE', help='picture to write')
    page = 'also write a page that holds its pictures, in larger'
    add('--html', metavar='FILE', help=page)
    if name in WITH_FIGURES:
        add('--json', metavar='FILE', help='also write the figures')


def make(args):
    """The view that the arguments ask for."""
    from mmvitcompress.visualization import curve, loading, views

    if args.kind == 'curve':
        results = [
            r for path in args.results for r in curve.read_results(path)
        ]
        joined = bool(args.benchmark), bool(args.metrics)
        if not all(joined) and (any(joined) or args.names):
            raise ConfigError(
                '--benchmark and --metrics need each other, and --names both'
            )
        if args.benchmark:
            results += curve.join_results(
                args.benchmark, args.metrics, args.names, args.part
            )
        return views.plot(results)
    if args.kind == 'channels':
        heads = args.by == 'head'
        return views.channels(args.checkpoints, args.names, heads)
    given = dict(options=args.cfg_options)
    if args.kind in WITH_IMAGES:
        given['source'] = loading.Source(args.images, args.count, args.shape)
    if hasattr(args, 'dense'):
        given['dense'] = args.dense
    if args.kind == 'attention':
        given['head'] = args.head
    elif args.kind == 'features':
        given['levels'] = args.blocks
    elif args.kind == 'compare':
        given.update(evaluate=args.evaluate, show=args.show)
    draw = getattr(views, args.kind)
    return draw(args.config, args.checkpoint, **given)


def main():
    args = parse_args()
    from mmvitcompress.visualization import page, style

    style.check_format(args.out)
    if args.html:
        page.check_page(args.html)
    view = make(args)
    style.save(view.whole(), args.out)
    print(f'picture: {args.out}')
    if args.html:
        title = f'{args.kind}: {KINDS[args.kind]}'
        command = f'python {shlex.join(sys.argv)}'
        page.write_page(
            args.html, title, view.caption, view.sections(), command
        )
        print(f'page: {args.html}')
    if getattr(args, 'json', None):
        cli.write_json(args.json, view.figures)


if __name__ == '__main__':
    cli.run(main)
