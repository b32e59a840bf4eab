"""The child that reads files: what it is given, and how hostile files and slow ones end: soon, with a reason."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from tests.lift_server import made_files
from tests.lift_server.made_files import archive, docx, lines, office, paragraph, pdf, pptx, relations, xlsx

from lift_server.convert.archive import MAX_UNPACKED_BYTES
from lift_server.convert.converter import AT_ONCE, WAITING_BYTES, Converter, _read, _write
from lift_server.convert.kinds import Kind, kind_of
from lift_server.convert.refusal import Refused
from lift_server.errors import RateLimited

LIMIT_BYTES = 2**20


async def read(content: bytes, filename: str | None = None, limit_bytes: int = LIMIT_BYTES) -> str:
    converted = await Converter().read(content, kind_of(content, filename), owner="a", limit_bytes=limit_bytes)
    return converted.text


def child(script: str, *arguments: str, timeout_s: float = 30) -> Converter:
    """A stand-in for the child; it also gets kind and limit."""
    return Converter((sys.executable, "-c", script, *arguments), timeout_s)


async def ask(converter: Converter, owner: str = "a") -> str:
    return (await converter.read(b"x", Kind.LEGACY, owner=owner, limit_bytes=LIMIT_BYTES)).text


@pytest.mark.parametrize(
    ("content", "filename", "text"),
    [
        (pdf([lines(["The horn is heard far out."])]), None, "The horn is heard far out."),
        (docx(paragraph("The horn is heard.")), "a.pdf", "The horn is heard."),
        (xlsx({"Ships": [["Ship", "Cargo"], ["Arvenna", "salt"]]}), None, "Ship: Arvenna; Cargo: salt"),
        (b"{\\rtf1 The horn is heard.}", None, "The horn is heard."),
        (b"<html><p>The horn is heard.", None, "The horn is heard."),
        (b"% Draft\n\\documentclass{article}\\begin{document}The \\emph{horn}.\\end{document}", None, "The horn."),
        (b"Ship,Cargo\nArvenna,salt\n", "a.csv", "Ship: Arvenna; Cargo: salt"),
        (b"WEBVTT\n\n00:01.000 --> 00:02.000\nThe horn.\n", None, "The horn."),
        ("Der Fluß ist lang.".encode("latin-1"), None, "Der Fluß ist lang."),
        (b"From: a@b.example\nDate: x\n\nThe horn.", "a.eml", "From: a@b.example\nDate: x\n\nThe horn."),
    ],
)
async def test_each_kind_is_read_by_the_child(content: bytes, filename: str | None, text: str) -> None:
    assert await read(content, filename) == text


ENTITIES = (f'<!ENTITY {chr(98 + depth)} "{f"&{chr(97 + depth)};" * 10}">' for depth in range(9))
LAUGHS = f'<!DOCTYPE l [<!ENTITY a "ha">{"".join(ENTITIES)}]><l>&j;</l>'
OUTSIDE = '<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/hostname">]><p xmlns:r="x"><sldId r:id="rId1"/>&a;</p>'


def presentation(main: str) -> bytes:
    return office("presentationml.presentation", "ppt/presentation.xml", {"ppt/presentation.xml": main})


def announcing(size_bytes: int) -> bytes:
    """An archive whose first member says that it is so large."""
    content = bytearray(docx(""))
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = size_bytes.to_bytes(4, "little")
    return bytes(content)


def open_document(content: str) -> bytes:
    return archive({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


CORNERS = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
SPARSE = office(
    "spreadsheetml.sheet",
    "xl/workbook.xml",
    {
        "xl/workbook.xml": f'<workbook {made_files.S}><sheets><sheet name="A" r:id="a"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations({"a": ("worksheet", "a.xml")}),
        "xl/a.xml": f"<worksheet {made_files.S}><sheetData>{CORNERS}</sheetData></worksheet>",
    },
)
GRID = (
    "<a><body><spreadsheet><table><table-row number-rows-repeated='99999999'>"
    "<table-cell number-columns-repeated='9999999'><p>x</p></table-cell></table-row></table></spreadsheet></body></a>"
)
DEEP = "<g>" * 200_000 + "</g>" * 200_000
NOISE = random.Random(0).randbytes(50_000)

HOSTILE: dict[str, tuple[bytes, str]] = {
    "an archive of programs": (archive({"a.txt": b"\x7fELF", "b.txt": b"\x7fELF"}), "unsupported_format"),
    "laughs in an OpenDocument file": (open_document(LAUGHS), "conversion_failed"),
    "boxes in boxes in an OpenDocument file": (
        open_document(f"<a xmlns='x'><body>{DEEP}</body></a>"),
        "conversion_failed",
    ),
    "a table of 10**14 cells": (open_document(GRID), "too_large"),
    "an archive that packs too well": (archive({"a.txt": bytes(2**26)}), "too_large"),
    "an archive of bombs": (archive({f"{n}.docx": announcing(2**40 - 1 & 0xFFFFFFFE) for n in range(9)}), "too_large"),
    "an archive cut off": (docx(paragraph("The horn."))[:-50], "conversion_failed"),
    "an archive that is none": (b"PK\x03\x04 and so on", "conversion_failed"),
    "a bomb": (announcing(MAX_UNPACKED_BYTES + 1), "too_large"),
    "laughs": (presentation(LAUGHS), "conversion_failed"),
    "an entity from outside": (presentation(OUTSIDE), "conversion_failed"),
    "shapes in shapes": (pptx([DEEP], {}), "conversion_failed"),
    "a sheet of 17 thousand million cells": (SPARSE, "conversion_failed"),
    "a PDF cut off": (pdf([lines(["The horn."])])[:300], "conversion_failed"),
    "a PDF whose pages hold themselves": (pdf([[]]).replace(b"/Kids[4 0 R]", b"/Kids[2 0 R]"), "conversion_failed"),
    "a PDF that says it has 10**9 pages": (pdf([[]]).replace(b"/Count 1/", b"/Count 999999999/"), "no_text_layer"),
    "a PDF of noise": (b"%PDF-1.7\n" + NOISE, "conversion_failed"),
    "a PDF with a password": (pdf([], made_files.ENCRYPTED), "encrypted_document"),
    "a scan": (pdf([[]]), "no_text_layer"),
    "more text than is taken": ("Der Fluß ist lang. ".encode("latin-1") * (LIMIT_BYTES // 19), "too_large"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_files(name: str) -> None:
    content, code = HOSTILE[name]
    with pytest.raises(Refused) as refused:
        await read(content)
    assert refused.value.code == code, refused.value.message
    assert refused.value.message.endswith(".") or "Supported" in refused.value.message


async def test_a_file_finds_no_secret_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFT_ENGINE__API_KEY", "secret")
    script = "import json, os; print(json.dumps({'text': ' '.join(os.environ)}))"
    assert "LIFT" not in await ask(child(script))


LIMITS = """
import json, resource as r
from lift_server.convert.__main__ import _limit
_limit()
names = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE")
print(json.dumps({"text": json.dumps([r.getrlimit(getattr(r, name))[0] for name in names])}))
"""


async def test_the_child_limits_itself() -> None:
    assert await ask(child(LIMITS)) == "[1073741824, 60, 32, 0, 0]"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "conversion_timeout"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "conversion_failed"),
        ("raise SystemExit(1)", "conversion_failed"),
        ("while True: print('x' * 100_000)", "conversion_failed"),
    ],
)
async def test_a_child_that_ends_otherwise(script: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        await ask(child(script))
    assert refused.value.code == code


@pytest.mark.parametrize("end", ["before it is written to", "before it is killed"])
def test_a_child_that_is_gone_already(end: str) -> None:
    """On uvloop, as the server runs; a busy machine comes that late."""
    uvloop = pytest.importorskip("uvloop")

    async def run() -> bytes:
        script = "print('x' * 300_000)" if end == "before it is killed" else ""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        async with asyncio.timeout(30):
            if script:
                output = await _read(process, 0)
                await process.wait()  # a loop does not close over one that still ends
                return output
            await process.wait()
            while not process.stdin.is_closing():
                await asyncio.sleep(0)
            await _write(process, b"x")
        return b""

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()).strip(b"x\n") == b""


HANGS = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w'), flush=True); time.sleep(600)"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        await ask(child(HANGS, str(tmp_path / "pid"), timeout_s=1))
    assert refused.value.code == "conversion_timeout"
    assert not is_alive(int((tmp_path / "pid").read_text()))


async def test_nobody_waits_for_it_any_more_and_it_is_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    asking = asyncio.create_task(ask(child(HANGS, str(tmp_path / "pid"))))
    pid = int(await asyncio.to_thread((tmp_path / "pid").read_text))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not is_alive(pid)


# Writes down how many are at work beside it.
COUNTS = """
import json, os, sys, time
mine = os.path.join(sys.argv[1], str(os.getpid()))
open(mine, "w").close()
time.sleep(0.2)
print(json.dumps({"text": str(len(os.listdir(sys.argv[1])))}))
os.remove(mine)
"""


@pytest.mark.parametrize(("owners", "most"), [("abcd", AT_ONCE), ("aaa", 1)])
async def test_few_run_at_once_and_one_for_an_owner(tmp_path: Path, owners: str, most: int) -> None:
    converter = child(COUNTS, str(tmp_path))
    counts = await asyncio.gather(*(ask(converter, owner) for owner in owners))
    assert max(map(int, counts)) == most


# Says that it has begun, then waits to be told to go on.
GATED = """
import json, sys
open(sys.argv[1], "w").close()
open(sys.argv[2]).close()
print(json.dumps({"text": "The horn."}))
"""


async def test_what_an_owner_has_waiting_is_bounded(tmp_path: Path) -> None:
    """Others are let in meanwhile, and the same owner when it has been read; one that is larger alone is read."""
    begun, go_on = (tmp_path / name for name in ("begun", "go on"))
    os.mkfifo(begun)
    os.mkfifo(go_on)
    converter = child(GATED, str(begun), str(go_on))

    async def large(owner: str) -> str:
        content = bytes(WAITING_BYTES + 1)
        return (await converter.read(content, Kind.LEGACY, owner=owner, limit_bytes=LIMIT_BYTES)).text

    first = asyncio.create_task(large("a"))
    await asyncio.to_thread(begun.read_bytes)
    with pytest.raises(RateLimited) as refused:
        await large("a")
    assert (refused.value.status, refused.value.type) == (429, "conversion")
    assert int(refused.value.headers["Retry-After"]) > 0
    other = asyncio.create_task(ask(converter, "b"))
    await asyncio.to_thread(begun.read_bytes)
    gate = os.open(go_on, os.O_RDWR)  # from now on all go on
    try:
        assert (await first, await other) == ("The horn.", "The horn.")
        again = asyncio.create_task(large("a"))
        await asyncio.to_thread(begun.read_bytes)
        assert await again == "The horn."
    finally:
        os.close(gate)
