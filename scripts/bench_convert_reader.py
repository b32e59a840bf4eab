"""One reader in a process of its own: files → their texts and what that took, as JSON on standard output.

`python scripts/bench_convert_reader.py READER FILE…`, run by bench_convert.py in the environment that has the reader;
nothing here needs more than the standard library, `packaging` and that.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

RUNS = 3
Read = Callable[[Path], str]

# By reader: the distributions that are installed for it, with extras, and the files it is for; none: all.
READERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "LIFT Serve": (
        (
            "pypdfium2", "mammoth", "selectolax", "pylatexenc", "striprtf", "python-calamine", "charset-normalizer",
        ),
        (),
    ),
    "markitdown": (("markitdown[docx,pptx,xlsx,pdf]",), ()),
    "pdfminer.six": (("pdfminer.six",), (".pdf",)),
    "pypdf": (("pypdf",), (".pdf",)),
    "python-docx": (("python-docx",), (".docx",)),
    "python-pptx": (("python-pptx",), (".pptx",)),
    "openpyxl": (("openpyxl",), (".xlsx",)),
    "beautifulsoup4": (("beautifulsoup4",), (".html",)),
}  # fmt: skip


def main(reader: str, paths: list[Path]) -> None:
    began_s = time.perf_counter()
    read = _reader(reader)
    start_s = time.perf_counter() - began_s
    wanted, endings = READERS[reader]
    packages = _packages(wanted)  # before csv's limit is set for a file, which the lists of installed files are read by
    files = {path.name: _measured(read, path) for path in paths if not endings or path.suffix in endings}
    told = {
        "start_s": start_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "packages": packages,
        "files": files,
    }
    print(json.dumps(told, ensure_ascii=False))


def _measured(read: Read, path: Path) -> dict[str, Any]:
    """The fastest of a few; what a reader refuses is told in its words."""
    seconds = []
    for _ in range(RUNS):
        began_s = time.perf_counter()
        try:
            text = read(path)
        except Exception as error:  # noqa: BLE001 - whatever the library raises is its answer to this file
            return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        seconds.append(time.perf_counter() - began_s)
    return {"seconds": min(seconds), "text": text}


def _reader(name: str) -> Read:
    return {
        "LIFT Serve": _lift,
        "markitdown": _markitdown,
        "pdfminer.six": _pdfminer,
        "pypdf": _pypdf,
        "python-docx": _docx,
        "python-pptx": _pptx,
        "openpyxl": _openpyxl,
        "beautifulsoup4": _soup,
    }[name]()


def _lift() -> Read:
    """As the child reads it, without the process: the others are timed without one too. All that it may import comes
    first, as theirs does; the child imports what its one file needs."""
    kinds, clean = (importlib.import_module(f"lift_server.convert.{name}") for name in ("kinds", "clean"))
    names = {kind: "legacy" if kind is kinds.Kind.TEXT else kind.value for kind in kinds.Kind}
    readers = {kind: importlib.import_module(f"lift_server.convert.{name}") for kind, name in names.items()}
    for name in ("docx", "epub", "pptx", "opendocument"):
        importlib.import_module(f"lift_server.convert.{name}")

    def read(path: Path) -> str:
        content = path.read_bytes()
        return str(clean.cleaned(readers[kinds.kind_of(content, path.name)].read(content)))

    return read


def _markitdown() -> Read:
    converter = importlib.import_module("markitdown").MarkItDown()
    return lambda path: str(converter.convert(path).text_content)


def _pdfminer() -> Read:
    extract = importlib.import_module("pdfminer.high_level").extract_text
    return lambda path: str(extract(path))


def _pypdf() -> Read:
    reader = importlib.import_module("pypdf").PdfReader
    return lambda path: "\n\n".join(page.extract_text() for page in reader(path).pages)


def _docx() -> Read:
    """In the body's order, tables too, as its documentation shows."""
    document, table = importlib.import_module("docx").Document, importlib.import_module("docx.table").Table

    def read(path: Path) -> str:
        lines = []
        for block in document(str(path)).iter_inner_content():
            rows = block.rows if isinstance(block, table) else ()
            lines += [" | ".join(cell.text for cell in row.cells) for row in rows] if rows else [block.text]
        return "\n\n".join(lines)

    return read


def _pptx() -> Read:
    presentation = importlib.import_module("pptx").Presentation

    def read(path: Path) -> str:
        shapes = [shape for slide in presentation(str(path)).slides for shape in slide.shapes]
        return "\n\n".join(shape.text_frame.text for shape in shapes if shape.has_text_frame)

    return read


def _openpyxl() -> Read:
    load = importlib.import_module("openpyxl").load_workbook

    def read(path: Path) -> str:
        rows = [row for sheet in load(path, data_only=True) for row in sheet.iter_rows(values_only=True)]
        return "\n".join(" | ".join(str(cell) for cell in row if cell is not None) for row in rows)

    return read


def _soup() -> Read:
    soup = importlib.import_module("bs4").BeautifulSoup
    return lambda path: str(soup(path.read_bytes(), "html.parser").get_text())


def _packages(wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    """The distributions and all that they require here, with licence and size."""
    requirement = importlib.import_module("packaging.requirements").Requirement
    found: dict[str, Distribution] = {}
    waiting = [requirement(one) for one in wanted]
    while waiting:
        one = waiting.pop()
        extras = ["", *one.extras]
        try:
            installed = distribution(one.name)
        except PackageNotFoundError:
            continue  # wanted on another system
        if one.name in found and not one.extras:
            continue
        found[one.name] = installed
        needs = [requirement(text) for text in installed.requires or []]
        waiting += [
            need for need in needs if not need.marker or any(need.marker.evaluate({"extra": e}) for e in extras)
        ]
    return [
        {"name": name, "version": one.version, "licence": _licence(one), "mb": _size_mb(one)}
        for name, one in sorted(found.items())
    ]


def _licence(one: Distribution) -> str:
    keys = ("License-Expression", "License")
    classifiers = [line.rpartition(" :: ")[2] for line in one.metadata.get_all("Classifier") or [] if "License" in line]
    told = next((one.metadata[key] for key in keys if key in one.metadata), None) or ", ".join(classifiers) or "?"
    return told.splitlines()[0][:60]


def _size_mb(one: Distribution) -> float:
    paths = [Path(str(file.locate())) for file in one.files or [] if not str(file).endswith(".pyc")]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


if __name__ == "__main__":
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
