"""Rows of a table → a line each, with the header's names in it, so that a line makes sense by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The header is the first row of several cells, if these are names and rows follow; above it there may be a
    caption."""
    header: list[str] | None = None
    is_read = True
    for row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        if header is None and len([cell for cell in cells if cell]) > 1:
            header = cells if is_header(cells) else []
            if header:
                is_read = False
                continue
        if any(cells):
            is_read = True
            yield line(cells, header or ())
    if header and not is_read:
        yield line(header)


def line(cells: Sequence[str], header: Sequence[str] = ()) -> str:
    if not header:
        return " | ".join(cell for cell in cells if cell)
    names = [*header, *[""] * (len(cells) - len(header))]
    pairs = zip(names, cells, strict=False)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)


def is_header(cells: Sequence[str]) -> bool:
    """Names, all different, none a number or as long as a sentence."""
    names = [cell for cell in cells if cell]
    return len(set(names)) == len(names) and all(_is_name(name) for name in names)


def _is_name(cell: str) -> bool:
    return len(cell) <= 60 and any(letter.isalpha() for letter in cell) and not cell[0].isdigit()
