"""CSV and TSV → lines; XLSX → lines, each sheet under its name where there are several."""

from __future__ import annotations

import csv
import io
from datetime import datetime, time, timedelta

from lift_server.convert import legacy, rows
from lift_server.convert.clean import HEADING

DELIMITERS = ",;\t|"
SAMPLE_CHARS = 8192
MIDNIGHT = time()


def read(content: bytes) -> str:
    text = legacy.read(content)
    csv.field_size_limit(max(len(text) + 1, csv.field_size_limit()))  # the whole process's
    cells = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text[:SAMPLE_CHARS]), skipinitialspace=True)
    return "\n".join(rows.lines(list(cells)))


def read_xlsx(content: bytes) -> str:
    from python_calamine import CalamineWorkbook

    workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
    sheets = []
    for name in workbook.sheet_names:
        cells = workbook.get_sheet_by_name(name).to_python()
        if found := list(rows.lines([[_shown(cell) for cell in row] for row in cells])):
            sheets.append((name, found))
    return "\n\n".join("\n".join(found if len(sheets) == 1 else [HEADING + name, "", *found]) for name, found in sheets)


def _delimiter(sample: str) -> str:
    """All that csv tells of a dialect that can be relied on: it takes apostrophes for quotes, and `""` for two ends."""
    try:
        return csv.Sniffer().sniff(sample, DELIMITERS).delimiter
    except csv.Error:  # one column, or nothing regular
        return ","


def _shown(cell: object) -> str:
    """As a person writes it: no .0, no time of day where there is none."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == MIDNIGHT else cell.isoformat(" ", "minutes")
    if isinstance(cell, float):
        return f"{cell:.12g}"
    if isinstance(cell, timedelta | time):
        return str(cell)
    return "" if cell is None else str(cell)
