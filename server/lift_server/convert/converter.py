"""A file's bytes → its text, by a child that limits itself (__main__.py) and is killed where it takes too long.

Few run at once, one for each owner; others wait, as long as what an owner has waiting in memory is not too much. A
child gets no environment but `PATH`: a file that takes it over finds no secret there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from lift_server.convert.clean import Places
from lift_server.convert.kinds import Kind
from lift_server.convert.refusal import Refused
from lift_server.errors import RateLimited
from lift_server.locks import LocalLocks

log = logging.getLogger(__name__)

AT_ONCE = 2
TIMEOUT_S = 120.0  # of the wall clock, on a machine that may be busy; the child limits its processor time
CHILD = (sys.executable, "-P", "-m", "lift_server.convert")
OUTPUT_EXTRA_BYTES = 512 * 1024  # for places, and JSON's own
READ_BYTES = 2**20
WAITING_BYTES = 64 * 2**20  # of an owner's files, the one that is being read with them; a single one may be larger
RETRY_S = 5
NAMES = {
    Kind.PDF: "a PDF",
    Kind.ARCHIVE: "an Office document, EPUB or ZIP archive",
    Kind.TAR: "a tar archive",
    Kind.GZIP: "a gzip archive",
    Kind.RTF: "an RTF document",
    Kind.HTML: "HTML",
    Kind.LATEX: "LaTeX",
    Kind.MAIL: "an e-mail",
    Kind.SUBTITLES: "subtitles",
    Kind.NOTEBOOK: "a Jupyter notebook",
    Kind.CSV: "CSV",
    Kind.LEGACY: "text",
}


class Converted(NamedTuple):
    """`places` in the text (clean.py); none for text that was not converted."""

    text: str
    places: Places


class Converter:
    """`argv` is the child's command, without kind and limit."""

    def __init__(self, argv: Sequence[str] = CHILD, timeout_s: float = TIMEOUT_S) -> None:
        self._argv = argv
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._local = LocalLocks()
        self._held_bytes: Counter[str] = Counter()  # by owner

    async def read(self, content: bytes, kind: Kind, *, owner: str, limit_bytes: int) -> Converted:
        """Its text, at most `limit_bytes` of it as UTF-8; Refused with the reason, in words for a client; RateLimited
        where too much of the owner's waits already."""
        with self._held(owner, len(content)):
            async with self._local(owner), self._slots:
                code, output = await self._run(content, kind, limit_bytes)
        told: dict[str, Any] = await asyncio.to_thread(json.loads, output) if code == 0 else {}
        if "text" in told:
            return Converted(str(told["text"]), told.get("places") or {})
        log.info("%s of %d bytes, exit code %s: no text, %s", kind, len(content), code, told.get("code"))
        if "code" in told:
            raise Refused(told["message"], code=told["code"])
        if code in (None, -signal.SIGXCPU):
            message = f"The file looks like {NAMES[kind]}; it takes too long to be read."
            raise Refused(message, code="conversion_timeout")
        message = (
            f"The file looks like {NAMES[kind]}, but cannot be read: it is damaged, cut off, or far too large inside."
        )
        raise Refused(message, code="conversion_failed")

    @contextmanager
    def _held(self, owner: str, size_bytes: int) -> Iterator[None]:
        held_bytes = self._held_bytes[owner]
        if held_bytes and held_bytes + size_bytes > WAITING_BYTES:
            limit = f"{WAITING_BYTES} bytes of files that wait to be read"
            raise RateLimited(limit, kind="conversion", retry_after_s=RETRY_S)
        self._held_bytes[owner] += size_bytes
        try:
            yield
        finally:
            self._held_bytes[owner] -= size_bytes
            if not self._held_bytes[owner]:
                del self._held_bytes[owner]

    async def _run(self, content: bytes, kind: Kind, limit_bytes: int) -> tuple[int | None, bytes]:
        """The child's exit code and what it said; None where it was too slow."""
        process = await asyncio.create_subprocess_exec(
            *self._argv,
            kind.value,
            str(limit_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # a parser's words may quote the file
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.environ.get("PATH", "")},
        )
        writing = asyncio.create_task(_write(process, content))
        try:
            async with asyncio.timeout(self._timeout_s):  # not wait_for: in 3.11 it may swallow a cancellation
                output = await _read(process, 2 * limit_bytes + OUTPUT_EXTRA_BYTES)  # JSON doubles quotes and line ends
                return await process.wait(), output
        except TimeoutError:
            return None, b""
        finally:
            with suppress(ProcessLookupError):  # killed before it led a group of its own (__main__.py)
                process.kill()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await writing
            await process.wait()


async def _write(process: asyncio.subprocess.Process, content: bytes) -> None:
    """Beside the reading: a child may answer before it has read all. One that is gone says why by its exit code."""
    assert process.stdin is not None
    if process.stdin.is_closing():
        return  # gone before it was written to: uvloop refuses, where asyncio only warns
    with suppress(ConnectionError):
        process.stdin.write(content)
        await process.stdin.drain()
    process.stdin.close()


async def _read(process: asyncio.subprocess.Process, limit_bytes: int) -> bytes:
    """To the end, or to where it can be no answer any more: what is cut off is no JSON, and the child is killed."""
    assert process.stdout is not None
    output = bytearray()
    while part := await process.stdout.read(READ_BYTES):
        output += part
        if len(output) > limit_bytes:
            with suppress(ProcessLookupError):  # killed for the part before this one
                process.kill()
    return bytes(output)
