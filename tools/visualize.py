"""Draw what compression does to a trained model.

Each kind of picture has a --help of its own; docs/visualization.md shows and
explains all of them. Needs matplotlib.
"""

import shlex
import sys

from mmvitcompress.utils import cli


def parse_args():
    from mmvitcompress.visualization import FIGURES

    parser = cli.parser(__doc__.strip())
    parsers = parser.add_subparsers(
        dest='kind', required=True, metavar='KIND', parser_class=cli.parser
    )
    for name, kind in FIGURES.items():
        one = parsers.add_parser(
            name, help=kind.about, description=f'Draw {kind.about}.'
        )
        kind.add_arguments(one)
        add = one.add_argument
        out = f'work_dirs/visualize/{name}.png'
        add('--out', default=out, metavar='FILE', help='picture to write')
        page = 'also write a page that holds its pictures, in larger'
        add('--html', metavar='FILE', help=page)
        if kind.has_numbers:
            cli.add_json(one, 'also write the figures')
    return parser.parse_args()


def main():
    arguments = vars(parse_args())
    from mmvitcompress.visualization import FIGURES, style

    name, out, page, numbers = (
        arguments.pop(key, None) for key in ('kind', 'out', 'html', 'json')
    )
    kind = FIGURES[name]
    style.check_format(out)
    if page:
        style.check_page(page)
    view = kind.view(**arguments)
    style.save_figure(view.whole(), out)
    print(f'picture: {out}')
    if page:
        style.write_page(
            page,
            f'{name}: {kind.about}',
            kind.caption,
            view.sections(),
            f'python {shlex.join(sys.argv)}',
        )
        print(f'page: {page}')
    if numbers:
        cli.write_json(numbers, view.numbers)


if __name__ == '__main__':
    cli.run(main)
