"""PDFs that are drawn row by row across two columns, and what looks like columns and is none."""

from __future__ import annotations

import pytest
from tests.lift_server.made_files import Text, pdf

from lift_server.convert import pdf as reader
from lift_server.convert.clean import cleaned
from lift_server.convert.paragraphs import HYPHEN, Line, whole

LEFT = [
    "The lighthouse at Varn Point was built",
    "in 1874 by Edda Holm, who had come",
    "from the mainland with two good ma-",
    "sons and a boat full of stones; and its",
    "lamp burns rapeseed oil, and ships are",
    "warned by three long blasts of a horn,",
]
RIGHT = [
    "two of them in snow. Nobody has heard",
    "more than three since it was put there.",
    "The keeper has eleven bees, and each",
    "has a name of her own, which is written",
    "above the door of the hive by hand and",
    "renewed in spring.",
]
COLUMNS = (
    "The lighthouse at Varn Point was built in 1874 by Edda Holm, who had come from the mainland with two good"
    " masons and a boat full of stones; and its lamp burns rapeseed oil, and ships are warned by three long "
    "blasts of a horn, two of them in snow. Nobody has heard more than three since it was put there. The "
    "keeper has eleven bees, and each has a name of her own, which is written above the door of the hive by "
    "hand and renewed in spring."
)


def rows(left: list[str], right: list[str], top: float = 700.0, at: float = 264.0) -> list[Text]:
    """Two columns' lines by turns, as some programs draw them."""
    pairs = enumerate(zip(left, right, strict=True))
    return [(x, top - 13 * row, 10.0, text) for row, pair in pairs for x, text in zip((72.0, at), pair, strict=True)]


def read(page: list[Text]) -> str:
    return cleaned(reader.read(pdf([page])))


def test_two_columns_between_lines_across_both() -> None:
    above = [
        (72.0, 760.0, 18.0, "Station log"),
        (72.0, 730.0, 10.0, "It was kept by several keepers, one after the other."),
    ]
    below = [(72.0, 590.0, 10.0, "What was added in another hand stands here, below the two columns, and is last.")]
    number = [(300.0, 30.0, 10.0, "7")]
    said = [above[0][3], above[1][3], COLUMNS, below[0][3], "7"]
    assert read([*above, *rows(LEFT, RIGHT), *below, *number]) == "\n\n".join(said)


@pytest.mark.parametrize(
    ("left", "right", "at"),
    [
        ([f"{name} and all of its lighthouses" for name in ("Varn", "Holm", "Arven", "Ost", "Nord")], RIGHT[:5], 264.0),
        (LEFT[:4], RIGHT[:4], 264.0),  # too few to be sure
        (LEFT[:5], [f"{number} barrels" for number in range(5)], 264.0),
        (LEFT[:5], RIGHT[:5], 420.0),
    ],
)
def test_rows_of_a_table_stay_rows(left: list[str], right: list[str], at: float) -> None:
    """Names, few lines, numbers, or far away."""
    text = read(rows(left, right, at=at)).replace("\n", " ")
    assert f"{left[0]} {right[0]}" in text
    assert f"{left[3]} {right[3]}" in text


def line(text: str, left: float, right: float, bottom: float = 100.0) -> Line:
    return Line(text, left, right, bottom, bottom + 12, first_word_width=right - left)


def test_a_word_that_pdfium_parts_is_one() -> None:
    """As Chromium's links have it; a hyphen within a line is the word's own."""
    parted = [
        line(f"well{HYPHEN}", 50, 80),
        line("known structur", 80.2, 150),
        line("e", 149.8, 155),
        line("of", 158, 166),
    ]
    assert [one.text for one in whole([*parted, line("stone", 166, 190, bottom=86)])] == [
        "well-known structure",
        "of",
        "stone",
    ]


def test_running_heads_on_pages_whose_text_is_smaller() -> None:
    pages = []
    for number in range(1, 6):
        size = 7.0 if number < 5 else 10.0
        listing = [
            (72.0, 700.0 - 12 * row, size, f"line {number * row} of it") for row in range(5 if number < 5 else 90)
        ]
        pages.append([*listing[:50], (72.0, 30.0, 10.0, f"Varn Point, by Edda Holm {number}/5")])
    assert cleaned(reader.read(pdf(pages))).count("Edda Holm") == 1
