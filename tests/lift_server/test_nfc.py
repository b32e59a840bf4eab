"""NFC piece by piece is NFC; marks in a row are refused before they are put in order."""

from __future__ import annotations

import random
import unicodedata

import pytest

from lift_server.convert import nfc
from lift_server.convert.nfc import MOST_MARKS, composed
from lift_server.convert.refusal import Refused

LETTERS = [
    *"ae o\n",
    "\u00e9",
    "\u0301",
    "\u0316",
    "\u0344",
    "\u1100",
    "\u1161",
    "\u11a8",
    "\uac00",
    "\u304b",
    "\u3099",
    "\u6771",
]
LETTERS += ["\u0915", "\u093c", "\u0958", "\u212b", "\U0001d15e", "\u0bc6", "\u0bbe"]


@pytest.mark.parametrize("piece_chars", [1, 3, 64])
def test_pieces_together_are_the_whole(monkeypatch: pytest.MonkeyPatch, piece_chars: int) -> None:
    monkeypatch.setattr(nfc, "PIECE_CHARS", piece_chars)
    draw = random.Random(piece_chars)
    for _ in range(2000):
        text = "".join(draw.choices(LETTERS, k=draw.randint(1, 40)))
        assert composed(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("before", [0, 1, 100, MOST_MARKS, 300])
def test_marks_in_a_row(before: int) -> None:
    allowed = "x" * before + "\u0316\u0301" * (MOST_MARKS // 2) + "\u0301"
    assert composed(allowed + "x") == unicodedata.normalize("NFC", allowed + "x")
    with pytest.raises(Refused, match="more than 255 combining marks"):
        composed(allowed + "\u0301")


def test_marks_that_are_two_in_one() -> None:
    with pytest.raises(Refused, match="more than 255 combining marks"):
        composed("\u0f40" + "\u0f73" * 300)
