"""Text → the same in Unicode's composed form (NFC), so that a letter and its accent are one however it was saved.

Refused where marks stand in a row as in no text: to put n of them in order takes n² steps, and Python lets no other
thread run meanwhile. For that reason it goes piece by piece, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import takewhile

from lift_server.convert.refusal import Refused

MOST_MARKS = 255  # Unicode's Stream-Safe Text Format (UAX #15, 13) allows 30
MARKS_IN_ONE = "\u0f73\u0f75\u0f81"  # two marks each, though Unicode gives them no combining class
PIECE_CHARS = 2**18
# Never composed with what stands before it: ASCII, kana, Han, whole Hangul syllables.
STARTER = re.compile(r"[\x00-\x7f\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff\uac00-\ud7a3]")


def composed(text: str) -> str:
    if text.isascii():
        return text
    _check_marks(text)
    return "".join(unicodedata.normalize("NFC", piece) for piece in _pieces(text))


def _check_marks(text: str) -> None:
    """Looks at one character of MOST_MARKS + 1: a longer row has one of these."""
    for at in range(0, len(text), MOST_MARKS + 1):
        if _is_mark(text[at]):
            before = takewhile(_is_mark, reversed(text[max(0, at - MOST_MARKS) : at]))
            after = takewhile(_is_mark, text[at : at + MOST_MARKS + 1])
            if sum(1 for _ in before) + sum(1 for _ in after) > MOST_MARKS:
                message = f"Near character {at} more than {MOST_MARKS} combining marks stand in a row."
                raise Refused(message, code="invalid_encoding")


def _is_mark(character: str) -> bool:
    return unicodedata.combining(character) > 0 or character in MARKS_IN_ONE


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        starter = STARTER.search(text, start + PIECE_CHARS)
        end = starter.start() if starter else len(text)
        yield text[start:end]
        start = end
