"""The store by its URL: a folder or an S3-like service (obstore); which records it has, which store it is, what time it
is there, whether a folder's disk has room for more, and how long it is waited for."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore, from_url

from lift_config.contract import CLOCK_PATH, PROBE_PATH, STORE_FOLDERS, STORE_ID_PATH
from lift_config.settings import Settings
from lift_server.errors import StoreFull, StoreUnavailable

log = logging.getLogger(__name__)

ANSWER_S = 30.0  # for one object of what a request may bring
HALF_WRITTEN = re.compile(r".+#\d+")
NO_OBJECT = "ready"  # asked for, and not found, in a store that answers


def open_store(url: str) -> ObjectStore:
    """A folder is made where there is none, and folders within it go with the last object in them; other kinds of
    stores refuse these two options."""
    return from_url(url, mkdir=True, automatic_cleanup=True) if url.startswith("file:") else from_url(url)


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """StoreUnavailable where the block, which asks for one object, takes longer than ANSWER_S. A file system that is
    away never answers, and obstore goes on asking an S3 that hangs for three minutes and more."""
    try:
        async with asyncio.timeout(ANSWER_S):
            yield
    except TimeoutError as error:
        log.error("the store did not answer within %g s", ANSWER_S)
        raise StoreUnavailable from error


class WritesInOrder:
    """Writes to the store: of one path one after the other, also where one was given up on. It may take effect yet, and
    would undo what comes after it: another upload's record, say, by a deletion that hung."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def __call__(self, path: str, write: Callable[[], Awaitable[Any]]) -> None:
        """StoreUnavailable as in `in_time`; the waiting for what was before counts."""
        async with in_time():
            while before := self._running.get(path):
                await asyncio.wait([before])
            running = asyncio.ensure_future(_awaited(write))
            self._running[path] = running
            running.add_done_callback(lambda _: self._running.pop(path))
            await asyncio.shield(running)


async def _awaited(write: Callable[[], Awaitable[Any]]) -> None:
    await write()


async def stored_names(store: ObjectStore, folder: str) -> AsyncIterator[list[str]]:
    """The records of a folder of the store by name, in batches."""
    async for batch in obstore.list(store, folder):
        paths = [entry["path"] for entry in batch]
        yield [path.rsplit("/", 1)[1].removesuffix(".json") for path in paths if path.endswith(".json")]


@contextmanager
def unreadable_is_left_alone(path: str) -> Iterator[None]:
    """One spoilt record must not keep all others from being served."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError):
        log.exception("%s in the store is not a record", path)


async def store_now_s(store: ObjectStore) -> float:
    """By the clock that dates its objects, whatever this machine's says. Writes an object to read its date."""
    await obstore.put_async(store, CLOCK_PATH, b"")
    return (await obstore.head_async(store, CLOCK_PATH))["last_modified"].timestamp()


def clear_half_written(settings: Settings, before_s: float) -> int:
    """How many objects went that a killed process had half-written, of those older than `before_s`. obstore writes a
    folder's objects beside their place, as `NAME#1`, and lists none of them. A service has none."""
    folder, deleted = store_folder(settings), 0
    for path in _half_written(folder) if folder else ():
        try:
            if path.stat().st_mtime < before_s:
                path.unlink()
                deleted += 1
        except FileNotFoundError:  # it is in its place now
            continue
        except OSError as error:
            log.warning("%s is half-written and stays: %s", path, error)
    return deleted


def _half_written(folder: Path) -> Iterator[Path]:
    """Where objects lie, and nowhere else: the folder may hold what is not ours. What goes while it is looked at is
    left out."""
    for path in (CLOCK_PATH, PROBE_PATH, STORE_ID_PATH):
        yield from folder.glob(f"{path}#*")
    for name in STORE_FOLDERS:
        for where, _, files in os.walk(folder / name):
            yield from (Path(where, file) for file in files if HALF_WRITTEN.fullmatch(file))


def store_folder(settings: Settings) -> Path | None:
    """None for a service."""
    url = settings.resolved_store_url
    return Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None


async def store_id(store: ObjectStore) -> str:
    """The same for all who use it, made by the first; another store has another."""
    try:
        found = await obstore.get_async(store, STORE_ID_PATH)
    except FileNotFoundError:
        with suppress(AlreadyExistsError):  # by another server, this moment
            await obstore.put_async(store, STORE_ID_PATH, secrets.token_hex(16).encode(), mode="create")
        found = await obstore.get_async(store, STORE_ID_PATH)
    return bytes(await found.bytes_async()).decode()


async def refuse_if_full(store: ObjectStore, settings: Settings) -> None:
    """StoreFull where less is free than uploads are to leave: what is under way has to be published yet."""
    if not await has_room(store, settings):
        raise StoreFull


async def has_room(store: ObjectStore, settings: Settings) -> bool:
    free = await free_bytes(store, settings)
    return free is None or free >= settings.server.min_free_bytes


async def free_bytes(store: ObjectStore, settings: Settings) -> int | None:
    """Of the disk that the store's folder lies on; None for a service, which has none that we know of. It is asked for
    an object first: where its file system is away, a thread of ours would hang with it, and there are few of them."""
    folder = store_folder(settings)
    if folder is None:
        return None
    async with in_time():
        with suppress(FileNotFoundError):
            await obstore.head_async(store, NO_OBJECT)
    return await asyncio.to_thread(_free_bytes, folder)


def _free_bytes(path: Path) -> int:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free
