"""Our converter against markitdown and libraries for one format: text found, seconds, memory, installed size, licence.

    .venv/bin/python scripts/bench_convert.py

In: tests/lift_server/corpus and files made here, each with what a person reads in it. The others are installed into
.lift/convert, an environment of their own. Out: docs/benchmarks/convert.md and .json. Two minutes, most of them pip's.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench_common import ROOT, given, stated, table, where, write
from bench_convert_reader import READERS
from install import InstallError, Step, run

sys.path.insert(0, str(ROOT))  # the tests' makers of files

OTHERS = ROOT / ".lift" / "convert"
WANTED = ("markitdown[docx,pptx,xlsx,pdf]==0.1.9", "pypdf==6.*", "python-docx==1.2.*", "packaging")
OURS = "LIFT Serve"
CORPUS = ROOT / "tests" / "lift_server" / "corpus"
GUIDE = (
    "Varn Point",
    "The lighthouse at Varn Point was built in 1874 by Edda Holm, who had come from the mainland with two masons and a "
    "boat full of stones",
    "The horn",
    "Ships are warned by three long blasts",
    "in fog",
    "in snow",
    "The lamp",
    "It burns rapeseed oil",
)
KEEPERS = ("1874 … Holm", "1902 … Brandt")
NOTE = ("Varn stone is grey",)
LEFT = (
    "The lighthouse at Varn Point was built",
    "in 1874 by Edda Holm, who had come",
    "from the mainland with two good ma-",
    "sons and a boat full of stones; and its",
    "lamp burns rapeseed oil, and ships are",
    "warned by three long blasts of a horn.",
)
RIGHT = (
    "Nobody has heard more than three of",
    "them since the horn was put there. The",
    "keeper has eleven bees, and each one of",
    "them has a name of her own, which is",
    "written above the door of the hive and",
    "renewed in spring.",
)
# What a person reads in a file: words in a row; "…" between words of one line with others between them.
EXPECTED: dict[str, tuple[str, ...]] = {
    "guide.odt": GUIDE + KEEPERS + NOTE,
    "guide.html": GUIDE + KEEPERS + NOTE,
    "guide.docx": GUIDE + KEEPERS,
    "guide.epub": GUIDE + KEEPERS,
    "guide.pptx": (*GUIDE[:-1], *KEEPERS, "Say it loudly", "What it burns", "1902 … 25 … 75"),
    "guide.pdf": GUIDE + KEEPERS + NOTE,
    "guide.xlsx": ("Keepers", "1874 … Holm … 1902", "1902 … Brandt", "Ships", "Arvenna … salt … 112"),
    "guide.eml": ("Варн the lamp", "Edda Holm … edda varn example", GUIDE[1], GUIDE[-1]),
    "libffi.html": (
        "1 What is libffi",
        "The libffi library provides a portable, high level programming interface to various calling conventions. This "
        "allows a programmer to call any function specified by a call interface description at run time",
    ),
    "zlib.html": (
        "zlib Usage Example",
        "We hope this helps explain some of the intricacies of zlib",
        "Without further adieu, here is the program zpipe c",
        "Not copyrighted provided to the public domain",
        "Last modified 11 December 2005",
    ),
    "fontconfig.pdf": (
        "Functional Overview",
        "Fontconfig is a library designed to provide system-wide font configuration, customization and application "
        "access",
        "The hyphen and country code may be elided",
        "test qual any name family string mono string test",
    ),
    "formula.docx": ("The roots of it are", "b … 4ac … 2a", "i … 1 … n"),
    "columns.pdf": (
        "The lighthouse at Varn Point was built in 1874 by Edda Holm, who had come from the mainland with two good "
        "masons and a boat full of stones; and its lamp burns rapeseed oil, and ships are warned by three long blasts "
        "of a horn",
        "Nobody has heard more than three of them since the horn was put there. The keeper has eleven bees, and each "
        "one of them has a name of her own, which is written above the door of the hive and renewed in spring",
    ),
    "log.tar.gz": ("Der Fluß ist lang", "Arvenna … salt"),
    "cyrillic.txt": ("Смотритель маяка держит одиннадцать пчёл",),
    "paper.tex": ("The Light at Karsund", "The lamp burns a + b c of oil"),
    "horn.srt": ("The lighthouse was built in 1874",),
}
DOCLING = (
    "Not measured: docling 2.143. It brings 99 packages, torch and transformers among them, and reads PDFs by models",
    "that it downloads from elsewhere at the first one.",
)
WORD = re.compile(r"\w+")


def main() -> None:
    arguments = _parser().parse_args()
    measured = where("-")
    try:
        python = _installed()
    except InstallError as error:
        sys.exit(f"bench_convert: {error}")
    with tempfile.TemporaryDirectory() as folder:
        paths = _files(Path(folder))
        readers = {name: _read(python if name != OURS else Path(sys.executable), name, paths) for name in READERS}
    for told in readers.values():
        for name, file in told["files"].items():
            file |= scored(file.pop("text", ""), EXPECTED[name])
    values = {"measured": measured, "readers": readers}
    write(arguments.out, values, list(_report(values, arguments)))


def scored(text: str, expected: tuple[str, ...]) -> dict[str, float]:
    """Shares of what a person reads: found in a row, and that within a line, as a paragraph should be."""
    lines = [" ".join(WORD.findall(line)) for line in text.splitlines()]
    whole = " ".join(filter(None, lines))
    patterns = [_pattern(phrase) for phrase in expected]
    in_line = [any(pattern.search(line) for line in lines) for pattern in patterns]
    found = [is_in or ("…" not in phrase and bool(pattern.search(whole)))
             for is_in, phrase, pattern in zip(in_line, expected, patterns, strict=True)]  # fmt: skip
    return {"words": len(WORD.findall(text)), "found": sum(found) / len(found), "in_line": sum(in_line) / len(found)}


def _pattern(phrase: str) -> re.Pattern[str]:
    parts = (r"\s".join(map(re.escape, WORD.findall(part))) for part in phrase.split("…"))
    return re.compile(r"\b" + r"\b.*\b".join(parts) + r"\b")


def _installed() -> Path:
    """The Python of the others' environment; a second run finds it as it is."""
    python, stamp, log = (
        OTHERS / "bin" / "python",
        OTHERS / "installed",
        ROOT / ".lift" / "logs" / "install-convert.log",
    )
    if not stamp.exists() or stamp.read_text("utf-8") != repr(WANTED):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", "utf-8")
        run(Step(f"a new {OTHERS.relative_to(ROOT)}", [("venv", "--clear", str(OTHERS))]), sys.executable, log)
        run(Step("markitdown and the others", [("pip", "install", *WANTED)]), str(python), log)
        stamp.write_text(repr(WANTED), "utf-8")
    return python


def _files(folder: Path) -> list[Path]:
    """The corpus, and what it lacks."""
    for name, content in _made().items():
        (folder / name).write_bytes(content)
    return [CORPUS / name if (CORPUS / name).exists() else folder / name for name in EXPECTED]


def _made() -> Mapping[str, bytes]:
    import gzip

    from tests.lift_server.made_files import archive, paragraph, pdf, tar

    pairs = enumerate(zip(LEFT, RIGHT, strict=True))
    columns = [(x, 700 - 13 * row, 10, text) for row, pair in pairs for x, text in zip((72, 264), pair, strict=True)]
    with zipfile.ZipFile(CORPUS / "guide.docx") as file:
        guide = {name: file.read(name) for name in file.namelist()}
    body, formulas = guide["word/document.xml"].decode(), paragraph("The roots of it are") + _formulas()
    files = {"log/10.txt": "Der Fluß ist lang.".encode("latin-1"), "ships.csv": b"Ship,Cargo\nArvenna,salt\n"}
    paper = r"\documentclass{article}\title{The Light at Karsund}\begin{document}\maketitle"
    return {
        "formula.docx": archive(guide | {"word/document.xml": body.replace("<w:sectPr", f"{formulas}<w:sectPr", 1)}),
        "columns.pdf": pdf([columns]),
        "log.tar.gz": gzip.compress(tar(files)),
        "cyrillic.txt": "Смотритель маяка держит одиннадцать пчёл. Дом стоит на холме над морем.".encode("cp1251"),
        "paper.tex": rf"{paper} The lamp burns $\frac{{a+b}}{{c}}$ of oil.\end{{document}}".encode(),
        "horn.srt": b"1\n00:00:01,000 --> 00:00:03,000\n<i>The lighthouse was</i>\nbuilt in 1874.\n",
    }


def _formulas() -> str:
    """The roots of a quadratic equation, and a sum, with the properties that Word writes: markitdown wants them."""
    base, two = "<m:e><m:r><m:t>b</m:t></m:r></m:e>", "<m:sup><m:r><m:t>2</m:t></m:r></m:sup>"
    b2 = f"<m:sSup><m:sSupPr><m:ctrlPr/></m:sSupPr>{base}{two}</m:sSup>"
    under = f"{b2}<m:r><m:t>-4ac</m:t></m:r>"
    root = f'<m:rad><m:radPr><m:degHide m:val="1"/></m:radPr><m:deg/><m:e>{under}</m:e></m:rad>'
    above = f"<m:num><m:r><m:t>-b±</m:t></m:r>{root}</m:num>"
    roots = (
        f"<m:r><m:t>x=</m:t></m:r><m:f><m:fPr><m:ctrlPr/></m:fPr>{above}<m:den><m:r><m:t>2a</m:t></m:r></m:den></m:f>"
    )
    limits = "<m:sub><m:r><m:t>i=1</m:t></m:r></m:sub><m:sup><m:r><m:t>n</m:t></m:r></m:sup>"
    total = f'<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr>{limits}<m:e><m:r><m:t>i</m:t></m:r></m:e></m:nary>'
    return "".join(f"<w:p><m:oMath>{one}</m:oMath></w:p>" for one in (roots, total))


def _read(python: Path, reader: str, paths: list[Path]) -> dict[str, Any]:
    script = ROOT / "scripts" / "bench_convert_reader.py"
    done = subprocess.run([python, script, reader, *paths], stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _report(values: dict[str, Any], arguments: argparse.Namespace) -> Iterator[str]:
    yield from (
        f"# {arguments.out}: what is read of files, and by what",
        "",
        f"`{' '.join(('scripts/bench_convert.py', *given(arguments, _parser())))}`; " + stated(values["measured"]),
        "",
        "*Found*: the share of what a person reads in a file (sentences, headings, items, rows, notes; the script",
        "lists them) whose words stand in the text in a row, signs aside; none of a file that is not read. *In a",
        "line*: those that no line's end breaks, as paragraphs and rows of tables want it. Seconds: the fastest of",
        "three, in a process that has begun; start: all that a reader may import (our child imports what its one",
        "file needs). A dash: not read. Sizes are of the library and all that it requires. Files and phrases are our",
        "choice: `formula.docx`, `columns.pdf` and `log.tar.gz` are here because we had just learned to read such",
        "files.",
        "",
    )
    yield from _libraries(values["readers"])
    yield from ("", f"What {OURS} uses: {_licences(values['readers'][OURS]['packages'])}.", "", *DOCLING, "")
    yield from ("## File by file", "")
    yield from _by_file(values["readers"])


def _libraries(readers: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, told in readers.items():
        meant = list(told["files"].values())
        packages = {one["name"]: one for one in told["packages"]}
        first = READERS[name][0][0].partition("[")[0]
        rows.append(
            (
                name if name == OURS else f"{name} {packages[first]['version']}",
                ", ".join(READERS[name][1]) or "all",
                f"{sum('error' not in file for file in meant)} of {len(meant)}",
                _percent(meant, "found"),
                _percent(meant, "in_line"),
                f"{told['start_s']:.2f}",
                f"{told['peak_mb']:.0f}",
                len(packages),
                f"{sum(one['mb'] for one in packages.values()):.0f}",
                "below" if name == OURS else packages[first]["licence"],
            )
        )
    columns = (
        "reader", "for", "files read", "found", "in a line", "start, s", "memory, MB", "packages", "installed, MB",
        "licence",
    )  # fmt: skip
    return table(columns, rows)


def _licences(packages: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one['name']} {one['version']} ({one['licence']})" for one in packages)


def _percent(files: list[dict[str, Any]], what: str) -> str:
    return f"{100 * sum(file[what] for file in files) / len(files):.0f} %"


def _by_file(readers: Mapping[str, Any]) -> list[str]:
    rows: list[tuple[Any, ...]] = []
    for file in EXPECTED:
        for name, told in readers.items():
            one = told["files"].get(file)
            if one and "error" not in one:
                shown = (
                    f"{one['seconds']:.3f}",
                    one["words"],
                    f"{100 * one['found']:.0f} %",
                    f"{100 * one['in_line']:.0f} %",
                )
                rows.append((file, name, *shown))
            elif one:
                rows.append((file, name, None, None, None, None))
    return table(("file", "reader", "seconds", "words", "found", "in a line"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="convert", metavar="NAME", help="docs/benchmarks/NAME.md and .json")
    return parser


if __name__ == "__main__":
    main()
