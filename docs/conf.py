"""How Sphinx builds these pages: Markdown by MyST, the API pages from the docstrings."""

from importlib.metadata import version as installed

project = "circuit-claims"
release = version = installed("circuit-claims")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
html_theme = "furo"
html_title = "circuit-claims"
