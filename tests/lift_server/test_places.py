"""Headings and pages beside a text: taken out of what readers write, told by markup, found for a span."""

from __future__ import annotations

from itertools import accumulate

import pytest

from lift_server import places
from lift_server.convert.clean import HEADING, PAGE, cleaned, with_places
from lift_server.places import Whereabouts, of_text

MARKED = f"\n\n{PAGE.format(1)}{HEADING}The \x00horn\n\nBlasts of e\u0301t\u00e9, \ufb01ne. {PAGE.format(2)}More."


def test_marks_are_taken_out_and_what_is_left_is_the_same() -> None:
    text, found = with_places(MARKED)
    assert text == cleaned(MARKED) == "The horn\n\nBlasts of \u00e9t\u00e9, fine. More."
    assert found == {"headings": [0], "pages": [(0, 1), (text.index("More"), 2)]}


@pytest.mark.parametrize("text", [f"a\n\n{HEADING}\n\nb", f"a\n{PAGE.format(2)}", "a\ufdd1x\ufdd2", "plain"])
def test_marks_that_stand_before_nothing_cost_the_places_not_the_text(text: str) -> None:
    assert with_places(text) == (cleaned(text), {})
    assert "\ufdd1" not in cleaned(text)


@pytest.mark.parametrize(
    ("text", "filename", "found"),
    [
        ("# The horn\n\nIt is loud.\n\n```\n# no heading\n```\n## Fog #\n", None, ["The horn", "Fog"]),
        ("The horn\n========\n\nIt.\n\nFog\n---\n", "a.rst", ["The horn", "Fog"]),
        ("\\section{The horn}\nIt.\n\\subsection*{Fog}\nThick.", "a.tex", ["The horn", "Fog"]),
        ("# a comment\nhorn()\n", "a.py", []),
        ("---\ntitle: x\n---\n| a |\n|---|\n", None, []),
    ],
)
def test_headings_of_text_as_it_is(text: str, filename: str | None, found: list[str]) -> None:
    of_file = of_text(text, filename)
    where = Whereabouts(text, of_file)
    assert [where.heading(at, at) for at in of_file.get("headings", [])] == found


def test_headings_in_a_long_text() -> None:
    """It is searched in pieces."""
    lines = [f"# {number}\n\n" + "The horn is loud. " * 40 + "\n\n" for number in range(2000)]
    text = "".join(lines)
    assert len(text) > 5 * places.PIECE_CHARS
    assert of_text(text, None)["headings"] == [0, *accumulate(map(len, lines[:-1]))]


def test_what_is_above_a_span() -> None:
    text = "Before it.\n\nThe horn\n\nThree blasts.\n\nThe lamp\n\nOil."
    horn, lamp, oil = text.index("The horn"), text.index("The lamp"), text.index("Oil")
    where = Whereabouts(text, {"headings": [horn, lamp], "pages": [[horn, 4], [oil, 5]]})
    assert (where.heading(0, 10), where.page(0)) == (None, None)
    assert (where.heading(horn, lamp), where.page(horn)) == ("The horn", 4)
    assert where.heading(lamp - 3, oil + 4) == "The lamp"  # what was left of the part above is joined to it
    assert (where.heading(oil, oil + 4), where.page(oil)) == ("The lamp", 5)
