"""Text as a reader gives it → as it is kept: no control characters, no runs of blank lines, words whole, NFC.

Readers put marks into their text, directly before a letter: where a heading begins, and where a page does. They are
taken out here, and told beside the text as places in it.
"""

from __future__ import annotations

import re
from typing import Any

from lift_server.convert.nfc import composed

HEADING = "\ufdd0"
PAGE = "\ufdd1{}\ufdd2"  # with the page's number
MARK = re.compile(r"\ufdd0|\ufdd1(\d{1,9})\ufdd2")
MOST_PLACES = 10_000  # of headings, and of pages

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufdd3-\ufdef\ufff9-\uffff\ud800-\udfff]")
MARKS = re.compile(r"\ufdd1\d{1,9}\ufdd2|[\ufdd0-\ufdd2]")
INVISIBLE = re.compile(r"[\u00ad\u200b\u2060\ufeff]")  # soft hyphens, spaces without width
LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
TRAILING = re.compile(r"(?<![^\S\n])[^\S\n]++$", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{3,}")
LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})

Places = dict[str, Any]  # {"headings": [where each begins], "pages": [[where it begins, its number]]}


def cleaned(text: str) -> str:
    return _tidy(MARKS.sub("", text))


def with_places(text: str) -> tuple[str, Places]:
    """Without places where a mark stands so that the text would differ: the text decides."""
    marked, plain = _tidy(text), cleaned(text)
    headings: list[int] = []
    pages: list[tuple[int, int]] = []
    taken_chars = 0
    for mark in MARK.finditer(marked):
        at = mark.start() - taken_chars
        taken_chars += len(mark[0])
        if mark[1] is None:
            headings.append(at)
        else:
            pages.append((at, int(mark[1])))
    if MARK.sub("", marked) != plain or not (headings or pages):
        return plain, {}
    return plain, {"headings": headings[:MOST_PLACES], "pages": pages[:MOST_PLACES]}


def _tidy(text: str) -> str:
    text = LINE_ENDS.sub("\n", text)
    text = INVISIBLE.sub("", CONTROL.sub("", text)).translate(LIGATURES)
    return composed(BLANK_LINES.sub("\n\n", TRAILING.sub("", text)).strip("\n"))
