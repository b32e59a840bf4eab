"""HTML → the text a reader sees: blocks parted by blank lines, lists and tables in lines; no scripts, no navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder

from selectolax.lexbor import LexborHTMLParser, LexborNode

from lift_server.convert import legacy, mathml, rows
from lift_server.convert.clean import HEADING
from lift_server.convert.kinds import is_utf16

CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w-]{2,40})|<\?xml[^>]{0,200}?encoding=[\"']([\w-]{2,40})", re.IGNORECASE
)
CHARSET_WITHIN_BYTES = 4096
UNREAD = (
    "head, script, style, noscript, template, nav, svg, object, iframe, canvas, audio, video, select, button, input, "
    "textarea, dialog, rp, [hidden], [aria-hidden=true], [role=navigation], [role=search], "
    "[role=contentinfo], [role=banner], body > footer, "
    ".navheader, .navfooter, p:has(> a[accesskey]:is([rel=next], [rel=prev], [rel=up]))"  # DocBook's and Texinfo's
)
# Links that may have no words: from a note to its place (some put its number there), from a heading to itself.
SIGNS = "[role=doc-backlink], :is(h1, h2, h3, h4, h5, h6, dt) a[href^='#']"
UNSEEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
BLOCK = re.compile(
    "address|article|aside|blockquote|body|caption|center|details|div|dl|fieldset|figcaption|figure|footer|form|"
    "h[1-6]|header|hgroup|hr|main|ol|p|pre|section|summary|table|td|th|tr|ul"
)
HEADINGS = re.compile("h[1-6]")
LINE = re.compile("li|dt|dd|br")
IN_LAYOUT = "h1, h2, h3, h4, ul, ol, pre, form"  # a table that holds one of these lays out a page
MATH = "math"
SPACE = re.compile(r"\s+")


def read(content: bytes) -> str:
    return text_of(_decoded(content))


def read_chapter(content: bytes) -> str:
    """Without its title, which no reader of a book sees, and which may be the book's or "Unknown"."""
    return text_of(_decoded(content), has_title=False)


def text_of(markup: str, *, has_title: bool = True) -> str:
    tree = LexborHTMLParser(markup)
    title = tree.css_first("head > title", default=None) if has_title else None
    heading = title.text() if title and not tree.css_first("body h1", default=None) else ""
    for node in tree.css(UNREAD):
        node.decompose()
    for node in tree.css(SIGNS):
        if not any(letter.isalnum() for letter in node.text()):
            node.decompose()
    for node in tree.css("[style]"):
        is_shown = node.css_first(MATH, default=None) is not None  # sites hide it behind a picture of it
        if UNSEEN.search(node.attributes.get("style") or "") and not is_shown:
            node.decompose()
    body = _Reading().of(tree.body) if tree.body else ""
    heading = SPACE.sub(" ", heading).strip()
    if not heading or body.partition("\n")[0] == HEADING + heading:
        return body
    return f"{HEADING}{heading}\n\n{body}"


class _Reading:
    """Lines so far, an empty one between blocks, and the line that is being written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line: list[str] = []
        self.mark = ""  # of a list's item, before its first text
        self.heading = ""  # its mark, before the first line of one
        self.numbers: list[int | None] = []  # of the lists around: the next item's number, None without numbers

    def of(self, root: LexborNode) -> str:
        for node, is_end in _walk(root):
            if is_end:
                self._end(node.tag or "")
            elif node.is_text_node:
                self.line.append(SPACE.sub(" ", node.text_content or ""))
            else:
                self._begin(node, node.tag or "")
        self._break("")
        return "\n".join(self.lines)

    def _begin(self, node: LexborNode, tag: str) -> None:
        self._break(tag)
        if tag == "pre":
            self.lines += [*node.text().strip("\n").splitlines(), ""]
        elif tag == "table" and not _is_layout(node):
            self.lines += [*_table(node), ""]
        elif tag == MATH:
            self.line.append(mathml.line(_element(node)))
        elif HEADINGS.fullmatch(tag):
            self.heading = HEADING
        elif tag == "ul":
            self.numbers.append(None)
        elif tag == "ol":
            self.numbers.append(_first_number(node))
        elif tag == "li":
            self.mark = self._next_mark()

    def _end(self, tag: str) -> None:
        if tag in ("ul", "ol"):
            self.numbers.pop()
        self._break(tag)
        if HEADINGS.fullmatch(tag):  # it may be empty
            self.heading = ""

    def _break(self, tag: str) -> None:
        """End the line where an element does that; a blank one after it, but within a list."""
        is_block = bool(BLOCK.fullmatch(tag))
        if tag and not is_block and not LINE.fullmatch(tag):
            return
        if text := "".join(self.line).strip():
            self.lines.append(SPACE.sub(" ", self.heading + self.mark + text))
            self.mark = self.heading = ""
        self.line = []
        if is_block and not self.numbers and self.lines and self.lines[-1]:
            self.lines.append("")

    def _next_mark(self) -> str:
        number = self.numbers[-1] if self.numbers else None
        if number is None:
            return "- "
        self.numbers[-1] = number + 1
        return f"{number}. "


def _walk(root: LexborNode) -> Iterator[tuple[LexborNode, bool]]:
    """Each node at its beginning and its end, in a loop: pages nest deeper than Python's stack. The inside of what
    is read as a whole (`pre`, a formula, a table of data) is left out, but for the root's."""
    node: LexborNode | None = root
    depth = 0
    while node is not None:
        yield node, False
        is_whole = node.tag in ("pre", MATH) or (node.tag == "table" and not _is_layout(node))
        if node.child is not None and not (is_whole and depth):
            node, depth = node.child, depth + 1
            continue
        yield node, True
        while depth and node is not None and node.next is None:
            node, depth = node.parent, depth - 1
            if node is not None:
                yield node, True
        node = node.next if depth and node is not None else None


def _is_layout(table: LexborNode) -> bool:
    return len(table.css("table")) > 1 or table.css_first(IN_LAYOUT, default=None) is not None  # css finds itself too


def _table(table: LexborNode) -> Iterator[str]:
    """A row of `th` alone names the columns of those below it."""
    if caption := table.css_first("caption", default=None):
        yield _cell(caption)
    header: list[str] = []
    for row in table.css("tr"):
        found = row.css("td, th")
        cells, tags = [_cell(cell) for cell in found], [cell.tag for cell in found]
        if len(cells) > 1 and set(tags) == {"th"} and not header:
            header = cells
        elif tags == ["th", "td"]:
            yield rows.line(cells[1:], cells[:1])
        elif any(cells):
            yield rows.line(cells, header)


def _element(root: LexborNode) -> Element:
    """The same as XML, which formulas are elsewhere."""
    building = TreeBuilder()
    for node, is_end in _walk(root):
        if node.is_text_node:
            building.data(node.text_content or "" if not is_end else "")
        elif is_end:
            building.end(node.tag or "")
        else:
            building.start(node.tag or "", {name: value or "" for name, value in node.attributes.items()})
    return building.close()


def _cell(cell: LexborNode) -> str:
    return " ".join(_Reading().of(cell).replace(HEADING, "").split())


def _first_number(node: LexborNode) -> int:
    start = node.attributes.get("start") or ""
    return int(start) if start.isdecimal() and len(start) < 9 else 1


def _decoded(content: bytes) -> str:
    """As the page says, if that is right; else by its mark, as UTF-8, or by its letters."""
    found = CHARSET.search(content[:CHARSET_WITHIN_BYTES])
    if found and not is_utf16(content):
        try:
            return content.decode((found[1] or found[2]).decode())
        except (LookupError, ValueError):  # `undefined` is a codec that fails with any text
            pass
    return legacy.read(content)
