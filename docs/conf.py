"""How Sphinx makes the site out of these pages and the docstrings."""

from docutils import nodes
from latex2mathml.converter import convert

from mmvitcompress import __version__

project = 'mmvitcompress'
author = 'mmvitcompress contributors'
copyright = f'2026, {author}'
version = release = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build', '_templates']

html_theme = 'furo'
html_title = f'{project} {version}'
html_math_renderer = 'mathml'
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False

# pages are read on code hosts as well: plain Markdown, with $math$
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3

# what a module imports is documented where it comes from
autodoc_default_options = {'members': True, 'ignore-module-all': True}
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
autodoc_inherit_docstrings = False
add_module_names = False
python_use_unqualified_type_names = True
# shapes such as (B, N, size) stand where types may, and aren't references
suppress_warnings = ['ref.python']
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def keep_colon(app, what, name, obj, options, lines):
    """Keep Napoleon from taking text before a colon for a value's type."""
    if what in ('attribute', 'data') and lines and ': ' in lines[0]:
        head, tail = lines[0].split(': ', 1)
        lines[:1] = [f'{head}:', tail]


def visit_math(display):
    """A visitor that writes MathML, which needs no script and no network."""

    def visit(self, node):
        self.body.append(convert(node.astext(), display=display))
        raise nodes.SkipNode

    return visit


def setup(app):
    app.connect('autodoc-process-docstring', keep_colon, priority=400)
    app.add_html_math_renderer(
        'mathml',
        inline_renderers=(visit_math('inline'), None),
        block_renderers=(visit_math('block'), None),
    )
