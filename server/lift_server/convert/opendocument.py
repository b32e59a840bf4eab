"""OpenDocument (ODT, ODS, ODP) → headings, paragraphs with formulas, lists, tables, notes; slides and sheets in order.

Without what was deleted under tracking, comments, and tables of contents, which repeat headings.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from lift_server.convert import mathml, rows
from lift_server.convert.archive import Archive, attribute, local
from lift_server.convert.clean import HEADING, PAGE
from lift_server.convert.refusal import Refused

INDEXES = frozenset({"table-of-content", "illustration-index", "table-index", "object-index", "alphabetical-index"})
UNREAD = INDEXES | {"tracked-changes", "annotation", "forms", "ruby-text", "settings", "page-thumbnail", "object"}
SHAPES = frozenset({"frame", "custom-shape", "rect", "ellipse", "g", "line", "connector", "text-box"})
FURNITURE = frozenset({"date-time", "footer", "header", "page-number"})
SVG = "svg-compatible"  # its titles are descriptions of pictures, which nobody sees
MAX_CELLS = 1_000_000
BLANK = re.compile(r"[^\S\n]+")


def text_of(archive: Archive) -> str:
    if any(local(one) == "encryption-data" for one in archive.xml("META-INF/manifest.xml").iter()):
        raise Refused("The document is encrypted. Save it without a password.", code="encrypted_document")
    content = archive.xml("content.xml")
    styles = [*content.iter(), *archive.xml("styles.xml").iter()]
    lists = {attribute(one, "name"): one for one in styles if local(one) == "list-style"}
    reading = _Reading(
        archive, lists, {attribute(one, "name") for one in styles if _is_titles(one)} | {"Title", "Subtitle"}
    )
    blocks: list[str] = []
    for body in (one for one in content if local(one) == "body"):
        for part in body:
            blocks += reading.sheets(part) if local(part) == "spreadsheet" else reading.blocks(part)
    return "\n\n".join([*blocks, *reading.notes])


class _Reading:
    """`notes` are those met so far, for the end of the text."""

    def __init__(self, archive: Archive, list_styles: dict[str, Element], titles: set[str]) -> None:
        self._archive = archive
        self._list_styles = list_styles
        self._titles = titles
        self._cells = 0
        self._slides = 0
        self.notes: list[str] = []

    def blocks(self, elements: Iterable[Element]) -> Iterator[str]:
        """Of an element's children, or of any others."""
        for child in elements:
            name = local(child)
            if name in UNREAD or SVG in child.tag:
                continue
            if name in ("h", "p"):
                is_title = name == "h" or attribute(child, "style-name") in self._titles
                yield from self._paragraph(child, HEADING if is_title else "")
            elif name == "list":
                yield "\n".join(self._items(child, attribute(child, "style-name"), 1))
            elif name == "table":
                yield from self._table(child)
            elif name == "page":
                yield from self._slide(child)
            else:  # sections, frames, groups, boxes
                yield from self.blocks(child)

    def sheets(self, element: Element) -> list[str]:
        found = [(attribute(one, "name"), list(rows.lines(list(self._rows(one))))) for one in _named(element, "table")]
        filled = [(name, lines) for name, lines in found if lines]
        return ["\n".join(lines if len(filled) == 1 else [f"{HEADING}{name}", "", *lines]) for name, lines in filled]

    def _slide(self, page: Element) -> Iterator[str]:
        """The title first, wherever it was drawn; the notes last."""
        self._slides += 1
        found: dict[str, list[str]] = {"title": [], "": [], "notes": []}
        for shape in page:
            kind = "notes" if local(shape) == "notes" else attribute(shape, "class")
            if kind not in FURNITURE and local(shape) not in UNREAD:
                found[kind if kind in found else ""] += self._shape(shape)
        titles = [f"{HEADING}{one}" for one in found["title"]]
        texts = [one for one in [*titles, *found[""], *found["notes"]] if one.strip()]
        for number, text in enumerate(texts):
            yield text if number else PAGE.format(self._slides) + text

    def _shape(self, shape: Element) -> list[str]:
        """Its paragraphs in lines, as in a slide of PowerPoint; a table by itself."""
        return ["\n".join(one for one in self.blocks(shape) if one.strip())]

    def _paragraph(self, element: Element, mark: str) -> Iterator[str]:
        text = "\n".join(line.strip() for line in BLANK.sub(" ", "".join(self._inline(element))).split("\n")).strip()
        if text:
            yield mark + text
        for shape in _shapes(element):
            yield from self.blocks(shape)

    def _inline(self, element: Element) -> Iterator[str]:
        yield _spaced(element.text)
        for child in element:
            name = local(child)
            if name in ("s", "tab"):
                yield " "
            elif name == "line-break":
                yield "\n"
            elif name == "note":
                yield self._note(child)
            elif name == "frame":
                yield self._formula(child)
            elif name not in UNREAD and name not in SHAPES:
                yield from self._inline(child)
            yield _spaced(child.tail)

    def _formula(self, frame: Element) -> str:
        """A formula is a file of its own, or stands in the frame."""
        for one in _named(frame, "object"):
            part = posixpath.join(posixpath.normpath(attribute(one, "href")), "content.xml")
            root = next(_named(one, "math"), self._archive.xml(part))
            if local(root) == "math":
                return mathml.line(root)
        return ""

    def _note(self, note: Element) -> str:
        number = "".join("".join(one.itertext()) for one in _named(note, "note-citation")).strip()
        text = " ".join(text for body in _named(note, "note-body") for text in self.blocks(body))
        self.notes.append(f"[{number}] {text}")
        return f"[{number}]"

    def _items(self, element: Element, style: str, level: int) -> Iterator[str]:
        is_numbered = self._is_numbered(style, level)
        number = 0
        for item in element:
            number += local(item) == "list-item"
            mark = f"{number}. " if is_numbered else "- "
            for child in item:
                if local(child) == "list":
                    yield from self._items(child, attribute(child, "style-name") or style, level + 1)
                else:
                    for text in self.blocks([child]):
                        yield mark + text
                        mark = ""

    def _is_numbered(self, style: str, level: int) -> bool:
        levels = self._list_styles.get(style, ())
        return any(local(one) == "list-level-style-number" and attribute(one, "level") == str(level) for one in levels)

    def _table(self, table: Element) -> Iterator[str]:
        """The first row names the columns where the table says that it is a header."""
        has_header = any(True for _ in _named(table, "table-header-rows"))
        found = list(self._rows(table))
        lines = list(rows.lines(found) if has_header else (rows.line(row) for row in found))
        if any(lines):
            yield "\n".join(line for line in lines if line)

    def _rows(self, table: Element) -> Iterator[list[str]]:
        """Without empty ones; programs write one row or cell for many that are alike."""
        for row in _rows_of(table):
            cells = [(self._cell(one), _repeated(one, "columns")) for one in row if local(one).endswith("table-cell")]
            while cells and not cells[-1][0]:
                cells.pop()
            count = _repeated(row, "rows") if cells else 0
            self._cells += count * sum(times for _, times in cells)
            if self._cells > MAX_CELLS:
                raise Refused(f"The tables have more than {MAX_CELLS} cells.", code="too_large")
            for _ in range(count):
                yield [text for text, times in cells for _ in range(times)]

    def _cell(self, cell: Element) -> str:
        return " ".join(" ".join(self.blocks(cell)).replace(HEADING, "").split())


def _is_titles(style: Element) -> bool:
    """A paragraph's style that is a document's title, or made of it: no heading by its element."""
    names = (attribute(style, "name"), attribute(style, "parent-style-name"))
    return local(style) == "style" and any(name.lower().endswith("title") for name in names)


def _rows_of(table: Element) -> Iterator[Element]:
    for child in table:
        if local(child) == "table-row":
            yield child
        elif local(child) in ("table-header-rows", "table-rows", "table-row-group"):
            yield from _rows_of(child)


def _shapes(paragraph: Element) -> Iterator[Element]:
    """Boxes that are anchored in a paragraph, the outermost."""
    for child in paragraph:
        if local(child) in SHAPES:
            yield child
        elif local(child) not in UNREAD | {"note"}:
            yield from _shapes(child)


def _named(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if local(child) == name)


def _repeated(element: Element, what: str) -> int:
    told = attribute(element, f"number-{what}-repeated")
    return int(told) if told.isdecimal() and 0 < len(told) < 9 else 1


def _spaced(text: str | None) -> str:
    return BLANK.sub(" ", (text or "").replace("\n", " "))
