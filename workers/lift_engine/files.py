"""The local folder's file work, off the event loop.

In: chunks as they come, paths. Out: files, their checksums, whole folders in their place or gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from lift_config.contract import CHUNK_BYTES

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """asyncio.to_thread, but a cancelled caller waits for the thread: it must not write into a closed file."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def append(descriptor: int, digest: hashlib._Hash, chunk: bytes) -> None:
    digest.update(chunk)
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_chunk(path: Path, number: int) -> bytes:
    with path.open("rb") as file:
        file.seek(number * CHUNK_BYTES)
        return file.read(CHUNK_BYTES)


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """sha256 of each, as it is read from there."""
    sums = {}
    for name in names:
        with (folder / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def move(fresh: Path, final: Path) -> Path:
    """No fsync: after a power cut the checksums tell, and the store has it all."""
    remove_tree(final)  # an incomplete one, else it had been used
    return fresh.rename(final)


def remove_tree(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
