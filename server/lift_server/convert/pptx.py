"""PPTX → slides in order: title, text, tables, then the speaker's notes."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from lift_server.convert import rows
from lift_server.convert.archive import Archive, attribute, local
from lift_server.convert.clean import HEADING, PAGE

TITLES = frozenset({"title", "ctrTitle"})
FURNITURE = frozenset({"sldNum", "dt", "ftr", "hdr", "sldImg"})


def text_of(archive: Archive) -> str:
    main = next((name for kind, name in _related(archive, "") if kind == "officeDocument"), "ppt/presentation.xml")
    targets = _targets(archive, main)
    ids = [attribute(slide, "id") for slide in archive.xml(main).iter() if local(slide) == "sldId"]
    slides = [(number, _slide(archive, targets[one])) for number, one in enumerate(ids, start=1) if one in targets]
    return "\n\n".join(PAGE.format(number) + slide for number, slide in slides if slide)


def _slide(archive: Archive, name: str) -> str:
    notes = [target for kind, target in _related(archive, name) if kind == "notesSlide"]
    blocks = _blocks(archive.xml(name)) + [block for note in notes for block in _blocks(archive.xml(note))]
    return "\n\n".join(blocks)


def _blocks(slide: Element) -> list[str]:
    """A block a shape; titles first, wherever they were drawn."""
    titles: list[str] = []
    others: list[str] = []
    for shape in _shapes(slide):
        kind = next((attribute(one, "type") for one in shape.iter() if local(one) == "ph"), "")
        text = "\n".join(_table(shape) if local(shape) == "tbl" else _paragraphs(shape))
        if text.strip() and kind not in FURNITURE:
            (titles if kind in TITLES else others).append(text)
    return [HEADING + title for title in titles] + others


def _shapes(element: Element) -> Iterator[Element]:
    """Shapes with text, and tables, in groups too; of alternatives the first."""
    for child in element:
        if local(child) in ("sp", "tbl"):
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


def _runs(paragraph: Element) -> Iterator[str]:
    for one in paragraph.iter():
        if local(one) == "t":
            yield one.text or ""
        elif local(one) in ("br", "tab"):
            yield " "


def _targets(archive: Archive, name: str) -> dict[str, str]:
    """Members that a member refers to, by the reference's id."""
    return {attribute(one, "Id"): _resolved(name, one) for one in _references(archive, name)}


def _related(archive: Archive, name: str) -> list[tuple[str, str]]:
    """The same, with what each is for."""
    found = _references(archive, name)
    return [(attribute(one, "Type").rpartition("/")[2], _resolved(name, one)) for one in found]


def _references(archive: Archive, name: str) -> list[Element]:
    folder, _, file = name.rpartition("/")
    return list(archive.xml(posixpath.join(folder, "_rels", f"{file}.rels")))


def _resolved(name: str, reference: Element) -> str:
    target = attribute(reference, "Target")
    return (
        target.lstrip("/")
        if target.startswith("/")
        else posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    )
