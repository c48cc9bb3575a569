"""How Sphinx makes the site out of these pages and the docstrings."""

from mmvitcompress import __version__

project = 'mmvitcompress'
author = 'mmvitcompress contributors'
copyright = f'2026, {author}'
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
]
exclude_patterns = ['_build', '_templates']

html_theme = 'furo'
html_title = f'{project} {version}'
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
# shapes such as (B, N, size) stand where types may, and aren't references
suppress_warnings = ['ref.python']
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
