"""A Jupyter notebook → its cells in order: text, code, and what the code printed or returned as text; no pictures.

In: JSON, nbformat 4 or 3. Out: text, in which Markdown stays as it is and its headings are marked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lift_server import places
from lift_server.convert import legacy
from lift_server.convert.clean import HEADING
from lift_server.convert.refusal import Refused

Json = dict[str, Any]


def read(content: bytes) -> str:
    try:
        notebook = json.loads(legacy.read(content))
        sheets = notebook.get("worksheets", [notebook])  # nbformat 3
        blocks = [block for sheet in sheets for cell in sheet["cells"] for block in _blocks(cell)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused("The file looks like a Jupyter notebook, but is none.", code="conversion_failed") from error
    return "\n\n".join(block for block in blocks if block.strip())


def _blocks(cell: Json) -> Iterator[str]:
    source = _text(cell.get("source", cell.get("input", "")))
    if cell["cell_type"] == "heading":  # nbformat 3
        yield HEADING + source
    elif cell["cell_type"] == "markdown":
        yield places.marked(source, "cell.md")
    else:
        yield source
    for output in cell.get("outputs", []):
        yield _printed(output).strip("\n")


def _printed(output: Json) -> str:
    if output["output_type"] in ("error", "pyerr"):
        return f"{output.get('ename', '')}: {output.get('evalue', '')}"
    data = output.get("data", {})
    return _text(output.get("text", data.get("text/markdown", data.get("text/plain", ""))))


def _text(lines: Any) -> str:
    """A string, or a list of its lines."""
    return "".join(lines)
