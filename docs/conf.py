"""How Sphinx builds docs/ (`scripts/docs`): the pages as they lie, the reference made of the code, notebooks as pages.

Warnings are errors. Nothing in a built page is fetched from elsewhere.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("config", "server", "workers", "scripts")]

from docs_reference import CHAPTERS  # noqa: E402 found by the line above

project = "LIFT Serve"
html_title = "LIFT Serve"
language = "en"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
html_theme = "furo"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
myst_heading_anchors = 4  # GitHub's, so that links hold in both places
OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)]+)\)")


class Generated(SphinxDirective):
    """`{generated} NAME`: a chapter of scripts/docs_reference.py."""

    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(CHAPTERS[self.arguments[0]](), allow_section_headings=True)


def read_source(app: Sphinx, name: str, source: list[str]) -> None:
    """A notebook as Markdown; links out of docs/, which lead somewhere in the checkout only, as plain text."""
    if Path(app.env.doc2path(name)).suffix == ".ipynb":
        source[0] = notebook_page(json.loads(source[0]), name)
    page = (DOCS / name).parent

    def told(link: re.Match[str]) -> str:
        return link[0] if (page / link[2].split("#")[0]).resolve().is_relative_to(DOCS) else link[1]

    source[0] = OUTSIDE.sub(told, source[0])


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """Its cells as they are read; code as blocks, without outputs: a test runs them."""
    texts = ("".join(cell["source"]) for cell in notebook["cells"])
    cells = zip(notebook["cells"], texts, strict=True)
    shown = [text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```" for cell, text in cells]
    file = name.rpartition("/")[2] + ".ipynb"
    return "\n\n".join([shown[0], f"The file: {{download}}`{file}`.", *shown[1:]])


def setup(app: Sphinx) -> None:
    app.add_directive("generated", Generated)
    app.connect("source-read", read_source)
