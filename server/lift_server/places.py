"""Where in a document something stands: the heading above it and its page.

In: the places that the converter found in a file (convert/clean.py), or for text as it is the headings that its markup
makes: Markdown, reStructuredText, LaTeX. Out: a heading and a page for a span. The text itself is never changed by it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from lift_server.convert.clean import HEADING, MOST_PLACES, Places

MARKED_UP = (".md", ".markdown", ".rst", ".tex", ".txt")  # `#` begins a comment in many others
MAX_HEADING_CHARS = 200
FENCE = re.compile(r"\s{0,3}(?:```|~~~)")
ATX = re.compile(r"#{1,6}\s+\S")
MARKUP = re.compile(
    r"""^(?:[ \t]*(?:```|~~~|\\(?:part|chapter|(?:sub){0,2}section))|\#{1,6}[ \t]|[=\-~^"'*+\#`]{3})""", re.MULTILINE
)
PIECE_CHARS = 2**18
UNDERLINE = re.compile(r"([=\-~^\"'*+#`])\1{2,}\s*")
SECTION = re.compile(r"\s*\\(?:part|chapter|(?:sub){0,2}section)\*?(?:\[[^\]]*\])?\{(.+?)\}")


def of_text(text: str, filename: str | None) -> Places:
    """Empty where the file's name says that it is something else, as source code is."""
    name = (filename or "").lower()
    if "." in name and not name.endswith(MARKED_UP):
        return {}
    found = [at for at, _ in zip(_headings(text), range(MOST_PLACES), strict=False)]
    return {"headings": found} if found else {}


def marked(text: str, filename: str) -> str:
    """With a mark (convert/clean.py) before each heading, for text that is a part of what is converted."""
    starts = [0, *of_text(text, filename).get("headings", []), len(text)]
    return HEADING.join(text[start:end] for start, end in pairwise(starts))


class Whereabouts:
    """Of a text with its places; the text is not kept."""

    def __init__(self, text: str, places: Places) -> None:
        self._headings: Sequence[int] = places.get("headings", [])
        self._names = [_name(text, at) for at in self._headings]
        pages = places.get("pages", [])
        self._starts, self._numbers = [start for start, _ in pages], [number for _, number in pages]

    def heading(self, start: int, end: int) -> str | None:
        """The last one before the span's middle: a segment may begin with its heading, or with what was left above."""
        number = bisect_right(self._headings, (start + end) // 2)
        return self._names[number - 1] if number else None

    def page(self, start: int) -> int | None:
        number = bisect_right(self._starts, start)
        return self._numbers[number - 1] if number else None


def _name(text: str, at: int) -> str:
    """Of the heading there."""
    end = text.find("\n", at)
    line = text[at:] if end < 0 else text[at:end]
    section = SECTION.match(line)
    return (section[1] if section else line.strip("# \t"))[:MAX_HEADING_CHARS]


def _headings(text: str) -> Iterator[int]:
    is_code = False
    for at in _marked_lines(text):
        line = text[at : _end_of_line(text, at)]
        is_code ^= bool(FENCE.match(line))
        if is_code:
            continue
        if ATX.match(line) or SECTION.match(line):
            yield at
        elif UNDERLINE.fullmatch(line):
            above = text.rfind("\n", 0, max(0, at - 1)) + 1
            if _is_title(text[above:at]) and len(line) >= 0.7 * (at - above):
                yield above


def _marked_lines(text: str) -> Iterator[int]:
    """Where those begin that may be markup. Not line by line: a text may have millions. In pieces, since Python lets no
    other thread run while it searches."""
    start = 0
    while start < len(text):
        end = _end_of_line(text, start + PIECE_CHARS)
        for found in MARKUP.finditer(text, start, end):
            yield found.start()
        start = end


def _end_of_line(text: str, at: int) -> int:
    return text.find("\n", at) + 1 or len(text)


def _is_title(line: str) -> bool:
    return bool(line.strip()) and len(line) <= MAX_HEADING_CHARS and line[:1].isalnum()
