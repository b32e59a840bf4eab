"""What counts as read."""

from __future__ import annotations

import pytest

from bench_convert import CORPUS, EXPECTED, _made, scored
from bench_convert_reader import _packages


@pytest.mark.parametrize(
    ("text", "expected", "found", "in_line"),
    [
        ("The lamp, **burns**!", ("The lamp burns",), 1, 1),
        ("The lamp\nburns.", ("The lamp burns",), 1, 0),
        ("The lamps burn.", ("The lamp",), 0, 0),
        ("| 1874 | Edda | Holm |", ("1874 … Holm",), 1, 1),
        ("1874\nHolm", ("1874 … Holm",), 0, 0),  # no row any more
        ("Holm, 1874", ("1874 … Holm", "Holm"), 0.5, 0.5),
        ("", ("Holm",), 0, 0),
    ],
)
def test_what_is_found(text: str, expected: tuple[str, ...], found: float, in_line: float) -> None:
    score = scored(text, expected)
    assert (score["found"], score["in_line"]) == (found, in_line)


def test_every_file_is_in_the_corpus_or_made() -> None:
    made = _made()
    assert not [name for name in EXPECTED if not (CORPUS / name).exists() and name not in made]


def test_packages_with_what_they_require() -> None:
    found = {one["name"]: one for one in _packages(("mammoth",))}
    assert list(found) == ["cobble", "mammoth"]
    assert found["mammoth"]["licence"] == "BSD-2-Clause"
    assert 0 < found["mammoth"]["mb"] < 5
