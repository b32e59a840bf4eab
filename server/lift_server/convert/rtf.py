"""RTF → its text, a paragraph each line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from striprtf.striprtf import rtf_to_text

from lift_server.convert import rows

CODE_PAGE = re.compile(rb"\\ansicpg(\d+)")
HEAD_BYTES = 4096
UNCOUNTED = re.compile(r"(\\\\)|\\bin(?![-\da-z])")  # so pandoc begins a picture; striprtf wants a number
CELL = re.compile(r"\n\s*\|")  # a cell of several paragraphs, or one that ends with one


def read(content: bytes) -> str:
    page = CODE_PAGE.search(content[:HEAD_BYTES])
    encoding = f"cp{page[1].decode()}" if page else "cp1252"
    text: str = rtf_to_text(UNCOUNTED.sub(r"\1", content.decode("latin-1")), encoding=encoding, errors="replace")
    lines = [line.strip() for line in CELL.sub(" |", text).splitlines() if line.strip()]
    return "\n\n".join(_blocks(lines))


def _blocks(lines: list[str]) -> Iterator[str]:
    """Paragraphs, and tables, whose rows come with each cell ended by a bar."""
    for is_table, found in groupby(lines, lambda line: line.endswith("|")):
        if is_table:
            yield "\n".join(rows.line([cell.strip() for cell in line.split("|")]) for line in found)
        else:
            yield from found
