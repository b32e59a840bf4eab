"""Lines as they stand on pages → paragraphs: wrapped lines joined, hyphens taken out, running heads left out.

In: for each page its lines with their places. Out: text with marks (clean.py), blank lines between paragraphs. A line
that does not reach the right edge of its block although the next word would have fitted (verse, code) stays a line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from lift_server.convert.clean import HEADING, PAGE

EDGE_LINES = 2  # of a page's beginning and end, where running heads and page numbers are
REPEATED = 3  # pages
PAGE_OF = 12  # letters beside the number of a page, as in "Page 3 of 17"
SAME_SIZE = 0.12
WIDE_GAP = 1.3  # times the usual distance of lines
SAME_PLACE = 3.0  # points
NUMBER = re.compile(r"\d+")
STOP = re.compile(r"[.!?:;…。！？][\"'”’»)\]]*$")
ITEM = re.compile(r"(?:[•‣▪◦●■\u2013—*·-]|\(?(?:\d{1,3}|[a-zA-Z])[.)]|\d+(?:\.\d+)+)\s|--?\w")
TOUCHING = 0.1  # line heights; a space is twice as wide at least
LEADERS = re.compile(r"[ \t]*(?:\.[ \t]*){5,}")  # between a heading and its page
HYPHEN = "\x02"  # stands for one at a line's end, until all is read
HYPHENATED = re.compile(rf"(\w+){HYPHEN}(\w+)")
LEAST_CHARS = 30  # of a line that is wrapped
HEADING_SIZE = 1.15  # times the usual size of lines
HEADING_LINES = 3
FULL = 0.8  # of the block's width
PROSE = 0.6  # of a block's lines are full, if it is wrapped text


@dataclass(frozen=True)
class Line:
    """Places in points, upwards and to the right."""

    text: str
    left: float
    right: float
    bottom: float
    top: float
    first_word_width: float

    @property
    def size(self) -> float:
        return self.top - self.bottom


def whole(lines: Sequence[Line]) -> list[Line]:
    """With those joined that are one: where a link or another font begins, PDFium may end a line within a word."""
    found: list[Line] = []
    for line in lines:
        last = found[-1] if found else None
        if last and max(abs(last.bottom - line.bottom), abs(last.right - line.left)) < TOUCHING * line.size:
            text = last.text.replace(HYPHEN, "-") + line.text
            found[-1] = replace(last, text=text, right=line.right)
        else:
            found.append(line)
    return found


def joined(pages: Sequence[Sequence[Line]], recognized: Mapping[int, str] | None = None) -> str:
    """`recognized`: the text of pages that have no lines, by their index."""
    paragraphs: list[str] = []
    usual = median([line.size for page in pages for line in page] or [0])
    for number, page in enumerate(_without_running_heads(pages, usual), start=1):
        mark = PAGE.format(number)
        if recognized and number - 1 in recognized:
            paragraphs.append(mark + recognized[number - 1])
        for block in _blocks(page):
            text = _text(block)
            if paragraphs and _goes_on(paragraphs[-1], text):  # over a page's or a column's end
                paragraphs[-1] = _with_next(paragraphs[-1], text, mark)
            else:
                paragraphs.append(mark + (HEADING if _is_heading(block, usual) else "") + text)
            mark = ""
    return LEADERS.sub(" … ", _with_whole_words("\n\n".join(paragraphs)))


def _without_running_heads(pages: Sequence[Sequence[Line]], usual: float) -> Iterator[list[Line]]:
    """Lines at the same height of three pages or more, not larger than other text, the same but for a number that
    counts the pages. The first of each is kept where it is more than that number: nothing is lost where it is none."""
    counts = Counter(key for number, page in enumerate(pages) for key in _edge_keys(page, number, usual))
    seen: set[str] = set()
    for number, page in enumerate(pages):
        kept = []
        for index, line in enumerate(page):
            keys = _keys(line, number) if _is_at_edge(index, line, page, usual) else []
            words = NUMBER.sub("", line.text).strip()
            is_running = any(counts[key] >= REPEATED for key in keys)
            is_number = words != line.text and len(words) <= PAGE_OF
            if not is_running or not (is_number or words in seen):
                kept.append(line)
            if is_running:
                seen.add(words)
        yield kept


def _edge_keys(page: Sequence[Line], number: int, usual: float) -> set[tuple[str, int]]:
    edge = [line for index, line in enumerate(page) if _is_at_edge(index, line, page, usual)]
    return {key for line in edge for key in _keys(line, number)}


def _is_at_edge(index: int, line: Line, page: Sequence[Line], usual: float) -> bool:
    """`usual` counts on a page of code or notes, whose lines are smaller."""
    if EDGE_LINES <= index < len(page) - EDGE_LINES:
        return False
    return line.size <= (1 + SAME_SIZE) * max(usual, median(one.size for one in page))


def _keys(line: Line, page_number: int) -> list[tuple[str, int]]:
    """The line itself, and the line with its first or last number as a distance from the page's."""
    place = round(line.bottom / SAME_PLACE)
    found = [(line.text, place)]
    numbers = [one for one in NUMBER.finditer(line.text) if len(one[0]) < 6]
    for one in numbers[:1] + numbers[-1:]:
        counted = f"{line.text[: one.start()]}\0{int(one[0]) - page_number}\0{line.text[one.end() :]}"
        found.append((counted, place))
    return found


def _blocks(page: Sequence[Line]) -> Iterator[list[Line]]:
    """Runs of lines of one size at the usual distance; a page's order is the file's."""
    usual = _usual_gap(page)
    block: list[Line] = []
    for line in page:
        if block and _begins(line, block, usual):
            yield block
            block = []
        block.append(line)
    if block:
        yield block


def _usual_gap(page: Sequence[Line]) -> float:
    """Between baselines, in line heights: that of a quarter of the lines, since paragraphs may be short."""
    gaps = [(above.bottom - below.bottom) / max(below.size, 1) for above, below in pairwise(page)]
    usual = sorted(gap for gap in gaps if 0.5 < gap < 2.5) or [1.2]
    return usual[len(usual) // 4]


def _begins(line: Line, block: Sequence[Line], usual: float) -> bool:
    last = block[-1]
    gap = (last.bottom - line.bottom) / max(line.size, 1)
    if abs(gap) < 0.4:  # beside the last one
        return False
    if abs(line.size - last.size) > SAME_SIZE * max(line.size, last.size) or not 0 < gap <= usual * WIDE_GAP:
        return True
    is_indented = line.left > last.left + 0.7 * line.size
    return is_indented and bool(STOP.search(last.text)) and not ITEM.match(last.text)


def _text(block: Sequence[Line]) -> str:
    """The block's lines, joined where one was wrapped into the next; each item of a list is looked at by itself."""
    left, right = min(line.left for line in block), max(line.right for line in block)
    starts = [0, *(index for index, line in enumerate(block) if index and ITEM.match(line.text)), len(block)]
    return "\n".join(_unwrapped(block[start:end], left, right) for start, end in pairwise(starts))


def _unwrapped(lines: Sequence[Line], left: float, right: float) -> str:
    is_full = [line.right - left >= FULL * (right - left) for line in lines[:-1]]
    is_prose = sum(is_full) >= PROSE * len(is_full)
    text = lines[0].text
    for last, line in pairwise(lines):
        is_beside = abs(last.bottom - line.bottom) < 0.4 * line.size
        fits = last.right + line.first_word_width + 0.3 * line.size <= right
        if is_beside or text.endswith(HYPHEN) or (is_prose and not fits and len(last.text) >= LEAST_CHARS):
            text = _with_next(text, line.text)
        else:
            text += f"\n{line.text}"
    return text


def _goes_on(text: str, following: str) -> bool:
    last = text[text.rfind("\n") + 1 :]
    return text.endswith(HYPHEN) or (len(last) > LEAST_CHARS and not STOP.search(last) and following[0].islower())


def _is_heading(block: Sequence[Line], usual: float) -> bool:
    return len(block) <= HEADING_LINES and min(line.size for line in block) > HEADING_SIZE * usual


def _with_next(text: str, following: str, mark: str = "") -> str:
    """`mark` stands before the first whole word of what follows."""
    if not text.endswith(HYPHEN):
        return f"{text} {mark}{following}"
    word, space, rest = following.partition(" ")
    return text + word + space + (mark + rest if rest else "")


def _with_whole_words(text: str) -> str:
    """A hyphen at a line's end stays where the text has the word with it elsewhere, or after a capital or digit."""
    hyphenated = {word.casefold() for word in re.findall(r"\w+-\w+", text)}

    def whole(found: re.Match[str]) -> str:
        first, second = found.groups()
        is_one = first[-1].islower() and second[0].islower() and f"{first}-{second}".casefold() not in hyphenated
        return first + second if is_one else f"{first}-{second}"

    return HYPHENATED.sub(whole, text).replace(HYPHEN, "-")
