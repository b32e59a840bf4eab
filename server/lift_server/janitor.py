"""What no record names any more, in the store, at the engines, in Redis's cache of adapters: left there by an upload,
a deletion or a publication that was cut off.

In: records; Redis must have all of them. Out: objects and adapters deleted. Young objects stay: what names them may be
on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import obstore
from redis.asyncio import Redis

from lift_config.contract import (
    ADAPTER_FILES,
    MANIFEST_FILE,
    DocumentRecord,
    adapter_path,
    adapter_redis_key,
    document_path,
    job_path,
    original_path,
    places_path,
    text_path,
)
from lift_config.settings import Settings
from lift_server.engine import Engine
from lift_server.errors import ApiError, StorageUnavailable
from lift_server.records import Records
from lift_server.recover import is_sound
from lift_server.store import clear_half_written, store_now_s, unreadable_is_left_alone

log = logging.getLogger(__name__)

FIRST_S = 60.0
EVERY_S = YOUNG_S = 3600.0
Unnamed = Callable[[Records, str], Awaitable[bool]]


async def clean_for_ever(
    settings: Settings, records: Records, engine: Engine, blobs: Redis, is_in_use: Callable[[str], bool]
) -> None:
    """FIRST_S after the start, when an engine that was started too is up, and every EVERY_S."""
    await asyncio.sleep(FIRST_S)
    while True:
        await _tried("the store was", clean(records))
        await _tried("half-written objects were", clean_half_written(settings, records))
        await _tried("engines were", clean_engines(records, engine, is_in_use))
        await _tried("cached adapters were", clean_blobs(records, blobs))
        await asyncio.sleep(EVERY_S)


async def _tried(what: str, cleaning: Awaitable[object]) -> None:
    try:
        await cleaning
    except Exception:  # the janitor's edge: Redis or the store may be away; the next round tries again
        log.exception("%s not cleaned", what)


async def clean(records: Records, young_s: float = YOUNG_S) -> Counter[str]:
    """How many were deleted, by folder. StorageUnavailable where Redis does not have all records."""
    deleted: Counter[str] = Counter()
    if not await records.are_of_this_store():
        log.error("Redis was filled from another store, so nobody knows what of this one is named: nothing is deleted")
        return deleted
    before_s = await store_now_s(records.store) - young_s
    for folder, unnamed in FOLDERS.items():
        async for name in _old(records, folder, before_s):
            if await unnamed(records, name) and await _deleted(records, folder, name, unnamed):
                deleted[folder] += 1
                log.info("%s/%s is named by nothing: deleted", folder, name)
    return deleted


async def _deleted(records: Records, folder: str, name: str, unnamed: Unnamed) -> bool:
    """Not where its content was uploaded again meanwhile: asked once more under the job's lock."""
    async with records.lock(name.partition("-")[0]):
        if not await unnamed(records, name):
            return False
        if records.is_behind:
            raise StorageUnavailable
        for path in _paths(folder, name):
            await records.discard(path)
    return True


async def clean_half_written(settings: Settings, records: Records, young_s: float = YOUNG_S) -> int:
    """How many objects went that were never whole. By the store's own clock."""
    before_s = await store_now_s(records.store) - young_s
    if deleted := await asyncio.to_thread(clear_half_written, settings, before_s):
        log.info("%d half-written objects deleted", deleted)
    return deleted


async def clean_engines(records: Records, engine: Engine, is_in_use: Callable[[str], bool]) -> int:
    """How many adapters were taken out. An engine loads what a record names, so what none names was deleted since."""
    deleted = 0
    async for adapter_id in engine.adapters():
        if await _no_version(records, adapter_id) and not is_in_use(adapter_id):
            try:
                await engine.remove(adapter_id)
            except ApiError as error:  # another server is answering from it, say: the next round tries again
                log.warning("adapter %s is named by nothing and stays: %s", adapter_id, error.message)
                continue
            deleted += 1
            log.info("adapter %s is named by nothing: taken out of the engines", adapter_id)
    return deleted


async def clean_blobs(records: Records, blobs: Redis, young_s: float = YOUNG_S) -> int:
    """How many cached adapters, and drafts of such, were deleted that nobody touched for `young_s`. `blobs` is the
    Redis that holds them. Without a lock: one that is wanted again is taken from the store."""
    deleted = 0
    async for key in blobs.scan_iter(adapter_redis_key("*"), count=1000):
        adapter_id = key.decode().removeprefix(adapter_redis_key("")).partition(":")[0]
        idle_s = await blobs.object("IDLETIME", key)  # None: gone meanwhile
        if idle_s is not None and idle_s >= young_s and await _no_version(records, adapter_id):
            await blobs.unlink(key)
            deleted += 1
            log.info("cached adapter %s is named by nothing: deleted", adapter_id)
    return deleted


async def _not_sound(records: Records, document_id: str) -> bool:
    if await records.document(document_id) is not None:
        return False
    content = await records.read(document_path(document_id))
    with unreadable_is_left_alone(document_path(document_id)):
        return content is not None and not await is_sound(records, DocumentRecord.from_json(content))
    return False


async def _no_document(records: Records, document_id: str) -> bool:
    """What only the store names is yet to be taken up (recover.py)."""
    return await records.document(document_id) is None and await records.read(document_path(document_id)) is None


async def _no_users(records: Records, job_key: str) -> bool:
    if not await records.are_whole():
        raise StorageUnavailable
    return not await records.users(job_key)


async def _no_version(records: Records, adapter_id: str) -> bool:
    job = await records.job(adapter_id.partition("-")[0])
    return job is None or adapter_id not in {adapter.id for adapter in job.adapters}


FOLDERS: dict[str, Unnamed] = {
    "documents": _not_sound,  # before its original, which it names
    "originals": _no_document,
    "texts": _no_users,
    "places": _no_users,
    "jobs": _no_users,
    "adapters": _no_version,
}


def _paths(folder: str, name: str) -> list[str]:
    """Of an adapter the manifest first: without it there is none."""
    if folder == "adapters":
        return [adapter_path(name, file) for file in (MANIFEST_FILE, *ADAPTER_FILES)]
    path = {
        "documents": document_path,
        "originals": original_path,
        "texts": text_path,
        "places": places_path,
        "jobs": job_path,
    }
    return [path[folder](name)]


async def _old(records: Records, folder: str, before_s: float) -> AsyncIterator[str]:
    """The names in a folder of the store, an adapter's once, where all of it was written before `before_s`."""
    async for batch in obstore.list(records.store, folder):
        written_s: dict[str, float] = {}
        for entry in batch:
            name = entry["path"].split("/")[1].removesuffix(".json")
            written_s[name] = max(written_s.get(name, 0.0), entry["last_modified"].timestamp())
        for name, at_s in written_s.items():
            if at_s < before_s:
                yield name
