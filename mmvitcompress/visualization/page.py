"""One HTML page that holds all of its pictures."""

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path

from mmvitcompress.errors import ConfigError
from mmvitcompress.visualization.style import Figure

STYLE = (
    'body{font:16px/1.5 sans-serif;max-width:80em;margin:2em auto;'
    'padding:0 1em;color:#222;background:#fff}'
    'img{max-width:100%;height:auto}'
    'pre{background:#f4f4f4;padding:.7em;overflow:auto}'
    'h2{font-size:1.1em;margin:2em 0 .3em}'
)


def write_page(
    path: str | Path,
    title: str,
    caption: str,
    sections: Iterable[tuple[str, Figure]],
    notes: str = '',
) -> None:
    """Write a page that needs nothing else, making its folder if need be.

    Args:
        path: Ends in ``.html`` or ``.htm``.
        title: Heading of the page.
        caption: How the pictures are to be read.
        sections: Heading ('' for none) and picture of each section.
        notes: Preformatted text at the end, such as how the page was made.
            Defaults to none.

    Raises:
        ConfigError: If the path has another suffix.
    """
    check_page(path)
    parts = [
        f'<h1>{html.escape(title)}</h1>',
        f'<p>{html.escape(caption)}</p>',
    ]
    for heading, figure in sections:
        if heading:
            parts.append(f'<h2>{html.escape(heading)}</h2>')
        parts.append(
            f'<img alt="{html.escape(heading or title)}" '
            f'src="data:image/png;base64,{_encoded(figure)}">'
        )
    if notes:
        parts.append(f'<pre>{html.escape(notes)}</pre>')
    body = '\n'.join(parts)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<title>{html.escape(title)}</title><style>{STYLE}</style></head>'
        f'<body>\n{body}\n</body></html>\n',
        encoding='utf-8',
    )


def check_page(path: str | Path) -> None:
    """Raise ConfigError if a page's name doesn't say that it is one."""
    if Path(path).suffix.lower() not in ('.html', '.htm'):
        raise ConfigError(
            f'a page must be named *.html, but got {str(path)!r}'
        )


def _encoded(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=150)
    return base64.b64encode(buffer.getvalue()).decode()
