"""How the site is made: `./dev docs`."""

import sys
from pathlib import Path

import iocancel

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # our own extensions are in tools/docs

project = "iocancel"
author = "the authors of iocancel"
copyright = "the authors of iocancel, MIT licence"  # noqa: A001
version = release = iocancel.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "tools.docs.columns",
    "tools.docs.docstrings",
    "tools.docs.names",
]
exclude_patterns = ["data"]
templates_path: list[str] = []

# Pages. Three levels, as GitHub has them: a link to a heading works in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

# Docstrings: Google's sections, in Markdown's spirit (see tools/docs/docstrings.py).
default_role = "py:obj"
smartquotes_action = "D"  # dashes alone: b"" is code, also in a sentence
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

# Each name is looked up, and one that is nowhere is an error (`-n -W`).
nitpicky = True
nitpick_ignore: list[tuple[str, str]] = []

html_theme = "furo"
html_title = f"iocancel {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c8a", "color-brand-content": "#0b5c8a"},
    "dark_css_variables": {"color-brand-primary": "#6cb8e6", "color-brand-content": "#6cb8e6"},
}
pygments_style = "default"
pygments_dark_style = "github-dark"
