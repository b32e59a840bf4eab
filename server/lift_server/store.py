"""The store by its URL: a folder or an S3-like service (obstore); what time it is there; whether a folder's disk has
room for more."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import ObjectStore, from_url

from lift_config.contract import CLOCK_PATH
from lift_config.settings import Settings
from lift_server.errors import StoreFull


def open_store(url: str) -> ObjectStore:
    """A folder is made where there is none, and folders within it go with the last object in them; other kinds of
    stores refuse these two options."""
    return from_url(url, mkdir=True, automatic_cleanup=True) if url.startswith("file:") else from_url(url)


async def store_now_s(store: ObjectStore) -> float:
    """By the clock that dates its objects, whatever this machine's says. Writes an object to read its date."""
    await obstore.put_async(store, CLOCK_PATH, b"")
    return (await obstore.head_async(store, CLOCK_PATH))["last_modified"].timestamp()


async def refuse_if_full(settings: Settings) -> None:
    """StoreFull where less is free than uploads are to leave: what is under way has to be published yet."""
    if not await has_room(settings):
        raise StoreFull


async def has_room(settings: Settings) -> bool:
    free = await free_bytes(settings)
    return free is None or free >= settings.server.min_free_bytes


async def free_bytes(settings: Settings) -> int | None:
    """Of the disk that the store's folder lies on; None for a service, which has none that we know of. In a thread:
    a file system that is away can hang."""
    url = settings.resolved_store_url
    if not url.startswith("file:"):
        return None
    path = Path(unquote(urlsplit(url).path))
    return await asyncio.to_thread(_free_bytes, path)


def _free_bytes(path: Path) -> int:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free
