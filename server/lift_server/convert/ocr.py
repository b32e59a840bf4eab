"""Pages as pictures → the text on them, by the command `tesseract` where it is installed.

It is a child of this child, so it inherits the limits (memory, a processor time of its own for each page, no files
written), and reads the picture from standard input. The languages are those that are installed with it.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator

import pypdfium2

from lift_server.convert.clean import PAGE
from lift_server.convert.refusal import Refused

COMMAND = "tesseract"
MAX_PAGES = 30  # some 3 s each, and all must be done within the converter's 120 s
DOTS_PER_POINT = 300 / 72
MAX_DOTS = 12_000_000  # A4 at 300 dots an inch has 8.7 million
ADVICE = "Install tesseract on the server's machine to have it read here, or recognize its text (OCR) first."


def is_installed() -> bool:
    return shutil.which(COMMAND) is not None


def text_of(document: pypdfium2.PdfDocument) -> str:
    """Empty where nothing could be recognized."""
    if len(document) > MAX_PAGES:
        message = f"The PDF has no text layer and {len(document)} pages; the text of at most {MAX_PAGES} is recognized."
        raise Refused(f"{message} Recognize its text (OCR) first.", code="no_text_layer")
    pages = of_pages(document, range(len(document)))
    return "\n\n".join(PAGE.format(index + 1) + text for index, text in pages if text)


def of_pages(
    document: pypdfium2.PdfDocument, indexes: Iterable[int], within_s: float = math.inf
) -> Iterator[tuple[int, str]]:
    """At most MAX_PAGES of them; none is begun after `within_s`."""
    languages, until_s = _languages(), time.monotonic() + within_s
    for index in indexes:
        if time.monotonic() < until_s:
            yield index, _recognized(_picture(document[index]), languages)


def _picture(page: pypdfium2.PdfPage) -> bytes:
    """A PGM, grey. A huge page is drawn with fewer dots."""
    width, height = page.get_size()
    scale = min(DOTS_PER_POINT, (MAX_DOTS / max(width * height, 1)) ** 0.5)
    bitmap = page.render(scale=scale, grayscale=True)
    page.close()
    dots, stride = bytes(bitmap.buffer), bitmap.stride
    rows = (dots[start : start + bitmap.width] for start in range(0, stride * bitmap.height, stride))
    return b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + b"".join(rows)


def _recognized(picture: bytes, languages: str) -> str:
    """Lines of a paragraph as one, as it wraps them."""
    text = _run("stdin", "stdout", "-l", languages, content=picture).decode(errors="replace")
    paragraphs = [one for one in text.replace("\f", "\n").split("\n\n") if one.strip()]
    return "\n\n".join(" ".join(one.split()) for one in paragraphs)


def _languages() -> str:
    found = _run("--list-langs").decode().splitlines()[1:]  # below a heading
    return "+".join(one for one in found if one != "osd")


def _run(*arguments: str, content: bytes = b"") -> bytes:
    """CalledProcessError, which ends this child, where it fails."""
    return subprocess.run(  # one thread: the machine has others to serve
        [COMMAND, *arguments],
        input=content,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        env={"PATH": _path(), "OMP_THREAD_LIMIT": "1"},
    ).stdout


def _path() -> str:
    return os.environ.get("PATH", os.defpath)
