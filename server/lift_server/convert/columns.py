"""A page's rows that were drawn across two columns → its lines, the left column before the right one.

In: rows in the file's order, each as a line and, where it has one wide gap, as the two lines beside that. Most files
draw a column at a time, and their rows have no such gaps; tables have them too, so columns must look like running text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from lift_server.convert.paragraphs import HYPHEN, Line

LEAST_ROWS = 5
LEAST_CHARS = 20  # in the usual line of a column
MOST_GAP = 4  # line heights, between the columns where they are closest
SAME_EDGE = 3.0  # points, of the right column's lines
ALIGNED = 0.7  # of the rows
GOING_ON = 0.4  # of a column's lines begin in the middle of a sentence, so that no row of a table is torn apart
HYPHENATED = re.compile(r"(?<=\w)-$")  # PDFium sees no line's end there
FAR = 2.5  # line heights: what stands above or below a column and does not belong to it


@dataclass(frozen=True)
class Row:
    line: Line
    halves: tuple[Line, Line] | None


def ordered(rows: Sequence[Row]) -> list[Line]:
    """Column by column between what stands across both."""
    edge = _edge(rows)
    lines: list[Line] = []
    run: list[Row] = []
    for row in rows:
        is_far = bool(run) and abs(run[-1].line.bottom - row.line.bottom) > FAR * row.line.size
        if run and (is_far or _crosses(row, edge)):
            lines += _columns(run, edge)
            run = []
        run.append(row)
        if _crosses(row, edge):
            lines.append(run.pop().line)
    return lines + _columns(run, edge)


def _edge(rows: Sequence[Row]) -> float:
    """Where the right column begins; infinite where there is none."""
    halves = [row.halves for row in rows if row.halves]
    if len(halves) < LEAST_ROWS:
        return float("inf")
    edge = median(right.left for _, right in halves)
    aligned = [(left, right) for left, right in halves if abs(right.left - edge) <= SAME_EDGE]
    is_narrow = min(((right.left - left.right) / right.size for left, right in aligned), default=0) <= MOST_GAP
    is_text = len(aligned) >= ALIGNED * len(halves) and all(_is_text(column) for column in zip(*aligned, strict=True))
    return edge - SAME_EDGE if is_narrow and is_text else float("inf")


def _is_text(column: Sequence[Line]) -> bool:
    going_on = sum(line.text[0].islower() for line in column)
    return median(len(line.text) for line in column) >= LEAST_CHARS and going_on >= GOING_ON * len(column)


def _crosses(row: Row, edge: float) -> bool:
    return row.line.left < edge < row.line.right and not (row.halves and row.halves[0].right < edge)


def _columns(run: Sequence[Row], edge: float) -> list[Line]:
    lines: list[Line] = []
    for row in run:
        if row.halves and row.line.right > edge:
            left, right = row.halves
            lines += [replace(left, text=HYPHENATED.sub(HYPHEN, left.text)), right]
        else:
            lines.append(row.line)
    return sorted(lines, key=lambda line: line.left >= edge)
