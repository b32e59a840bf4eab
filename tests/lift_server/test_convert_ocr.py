"""Scans: read where tesseract is installed, a clear message where it is not, and never without bounds."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.lift_server.made_files import lines, pdf, scan

from lift_server.convert import ocr
from lift_server.convert.converter import Converter
from lift_server.convert.kinds import Kind
from lift_server.convert.refusal import Refused

PAGES = [lines(["The horn is heard far out at sea."], size=14), lines(["The lamp burns oil."], size=14)]
FAKE_TESSERACT = """#!/bin/sh
if [ "$1" = --list-langs ]; then echo List; echo osd; echo deu; echo eng; exit; fi
/usr/bin/head -c 2
echo " $*"
echo "$(/usr/bin/wc -c) bytes, limit $(ulimit -f)"
"""


async def read(content: bytes) -> tuple[str, object]:
    return await Converter().read(content, Kind.PDF, owner="a", limit_bytes=2**20)


@pytest.fixture
def fake_tesseract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tells what it was given instead of reading it."""
    script = tmp_path / "tesseract"
    script.write_text(FAKE_TESSERACT)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return script


@pytest.mark.skipif(
    shutil.which("tesseract") is None, reason="tesseract is not installed (apt-get install tesseract-ocr)"
)
async def test_a_scan_is_read_by_the_real_tesseract() -> None:
    text, places = await read(scan(PAGES))
    assert text == "The horn is heard far out at sea.\n\nThe lamp burns oil."
    assert places == {"headings": [], "pages": [[0, 1], [35, 2]]}


async def test_without_tesseract_the_message_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="Install tesseract") as refused:
        await read(scan(PAGES))
    assert refused.value.code == "no_text_layer"


async def test_a_tesseract_that_fails_costs_the_scans_between_pages_of_text_only(fake_tesseract: Path) -> None:
    fake_tesseract.write_text("#!/bin/sh\nexit 1\n")
    text, _ = await read(
        pdf([[], lines(["The keeper has eleven bees, and each has a name of her own."])], pictured=[0])
    )
    assert text == "The keeper has eleven bees, and each has a name of her own."


async def test_it_gets_a_bounded_picture_and_the_childs_limits(fake_tesseract: Path) -> None:
    """A page as large as PDFs may have; every language that is installed; no file may be written."""
    huge = pdf([[]]).replace(b"/MediaBox[0 0 595 842]", b"/MediaBox[0 0 14400 14400]")
    text, _ = await read(huge)
    said, size = text.split(" bytes")[0].rsplit(" ", 1)
    assert said == "P5 stdin stdout -l deu+eng"
    assert ocr.MAX_DOTS * 0.99 < int(size) < ocr.MAX_DOTS * 1.01
    assert text.endswith("limit 0")


async def test_scans_between_pages_of_text(fake_tesseract: Path) -> None:
    pages = [PAGES[0], [(72.0, 20.0, 9.0, "Scanned with CamScanner")], PAGES[1]]
    text, places = await read(pdf(pages, pictured=[1]))
    first, second, third = text.split("\n\n")
    assert (first, third) == (PAGES[0][0][3], PAGES[1][0][3])
    assert second.startswith("P5 stdin stdout -l deu+eng")
    assert places["pages"] == [[0, 1], [text.index(second), 2], [text.index(third), 3]]  # type: ignore[index]


async def test_too_many_pages(fake_tesseract: Path) -> None:
    with pytest.raises(Refused, match=f"at most {ocr.MAX_PAGES}") as refused:
        await read(pdf([[]] * (ocr.MAX_PAGES + 1)))
    assert refused.value.code == "no_text_layer"


@pytest.mark.parametrize(
    ("ends", "code"), [("exec /bin/sleep 61.37", "conversion_timeout"), ("exit 1", "conversion_failed")]
)
async def test_one_that_hangs_or_fails(fake_tesseract: Path, ends: str, code: str) -> None:
    """It is ended together with the child that started it."""
    fake_tesseract.write_text(f"#!/bin/sh\nif [ $1 = stdin ]; then {ends}; fi; echo List; echo eng\n")
    with pytest.raises(Refused) as refused:
        await Converter(timeout_s=3).read(pdf([[]]), Kind.PDF, owner="a", limit_bytes=2**20)
    assert refused.value.code == code
    async with asyncio.timeout(5):
        while "61.37" in list(arguments()):  # it was killed, and may take a moment to go
            await asyncio.sleep(0.01)


def arguments() -> Iterator[str]:
    """Of every process there is."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            yield from path.read_bytes().decode(errors="replace").split("\0")
