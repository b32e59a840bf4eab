"""PPTX → slides in order: title, text with formulas, tables, charts, diagrams, then the speaker's notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from lift_server.convert import graphics, omml, rows
from lift_server.convert.archive import Archive, attribute, local
from lift_server.convert.clean import HEADING, PAGE
from lift_server.convert.package import main_part, related, targets

TITLES = frozenset({"title", "ctrTitle"})
FURNITURE = frozenset({"sldNum", "dt", "ftr", "hdr", "sldImg"})


def text_of(archive: Archive) -> str:
    main = main_part(archive, "ppt/presentation.xml")
    parts = targets(archive, main)
    ids = [attribute(slide, "id") for slide in archive.xml(main).iter() if local(slide) == "sldId"]
    slides = [(number, _slide(archive, parts[one])) for number, one in enumerate(ids, start=1) if one in parts]
    return "\n\n".join(PAGE.format(number) + slide for number, slide in slides if slide)


def _slide(archive: Archive, name: str) -> str:
    notes = [target for kind, target in related(archive, name) if kind == "notesSlide"]
    blocks = [block for part in (name, *notes) for block in _blocks(archive, part)]
    return "\n\n".join(blocks)


def _blocks(archive: Archive, part: str) -> list[str]:
    """A block a shape; titles first, wherever they were drawn."""
    titles: list[str] = []
    others: list[str] = []
    parts = targets(archive, part)
    for shape in _shapes(archive.xml(part)):
        kind = next((attribute(one, "type") for one in shape.iter() if local(one) == "ph"), "")
        text = "\n".join(_lines(archive, parts, shape))
        if text.strip() and kind not in FURNITURE:
            (titles if kind in TITLES else others).append(text)
    return [HEADING + title for title in titles] + others


def _lines(archive: Archive, parts: dict[str, str], shape: Element) -> Iterable[str]:
    if local(shape) == "tbl":
        return _table(shape)
    return graphics.lines(archive, parts, shape) if local(shape) in graphics.KINDS else _paragraphs(shape)


def _shapes(element: Element) -> Iterator[Element]:
    """Shapes with text, tables, charts and diagrams, in groups too; of alternatives the first."""
    for child in element:
        if local(child) in ("sp", "tbl", *graphics.KINDS):
            yield child
        elif local(child) != "Fallback":
            yield from _shapes(child)


def _table(table: Element) -> Iterator[str]:
    """The first row names the columns where the table's look says that it is a header."""
    found = [
        [" ".join(_paragraphs(cell)) for cell in row if local(cell) == "tc"] for row in table if local(row) == "tr"
    ]
    has_header = any(attribute(one, "firstRow") in ("1", "true") for one in table if local(one) == "tblPr")
    yield from rows.lines(found) if has_header else (rows.line(cells) for cells in found)


def _paragraphs(element: Element) -> list[str]:
    found = ["".join(_runs(one)).strip() for one in element.iter() if local(one) == "p"]
    return [text for text in found if text]


def _runs(element: Element) -> Iterator[str]:
    for one in element:
        if one.tag in omml.NAMES:
            yield omml.line(one)
        elif local(one) == "t":
            yield one.text or ""
        elif local(one) in ("br", "tab"):
            yield " "
        elif local(one) != "Fallback":
            yield from _runs(one)
