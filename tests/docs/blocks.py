"""The fenced blocks of README and docs/: where each stands, its language, and the reason where one is not to be run."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)
PAGE_MARK = re.compile(r"\A<!-- no block of this page is run: (.+?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str
    reason: str | None  # why it is not run

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for_all = PAGE_MARK.match(text)
    for found in FENCE.finditer(text):
        mark = MARK.search(text[: found.start()]) or for_all
        code = textwrap.dedent(found[3])
        yield Block(page, text[: found.start()].count("\n") + 1, found[2], code, mark[1] if mark else None)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))
