"""Brings an adapter into a local folder: from the folder itself, else Redis, else the store; verified before use.

In: an adapter id. Out: a folder with PEFT's two files and manifest.json, written last, so its presence means
"complete" (architecture.md 4, 7). Files outlive requests: only `remove` deletes a folder (hotload.py says which).

AdapterError
├── AdapterUnknown    nobody has it, or the id is none
├── AdapterCorrupt    the store's copy fails its checksums
├── AdapterUnsigned   no worker with one of our secrets published the store's copy
└── AdapterMismatch   it was trained for another base model
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from weakref import WeakValueDictionary

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lift_config.contract import (
    ADAPTER_ID,
    CHUNK_BYTES,
    MANIFEST_FIELD,
    MANIFEST_FILE,
    Manifest,
    adapter_path,
    adapter_redis_key,
    chunk_field,
)
from lift_config.settings import Settings
from lift_engine.files import append, checksums, in_thread, move, read_chunk, remove_tree

logger = logging.getLogger(__name__)
REDIS_TIMEOUT_S = 10  # then the store is asked


class AdapterError(Exception):
    """Why an adapter cannot be used here, as the HTTP route says it."""

    status = 500
    code = "adapter_error"


class AdapterUnknown(AdapterError):
    status = 404
    code = "adapter_not_found"


class AdapterCorrupt(AdapterError):
    code = "adapter_corrupt"


class AdapterUnsigned(AdapterError):
    code = "adapter_unsigned"


class AdapterMismatch(AdapterError):
    status = 409
    code = "adapter_mismatch"


class AdapterInUse(AdapterError):
    status = 409
    code = "adapter_in_use"


class AdapterFolder:
    """One engine's local adapters. Connections are opened at first use: vLLM loads plug-ins in processes that
    never fetch anything."""

    def __init__(self, settings: Settings, index: int) -> None:
        self.root = settings.home.resolve() / f"engine-{index}" / "adapters"
        self._settings = settings
        self._secrets = [secret.get_secret_value() for secret in settings.adapter_secrets]
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._verified: set[str] = set()  # whose files had their checksums since this process began
        self._refills: set[asyncio.Task[None]] = set()

    def complete(self, adapter_id: str) -> Path | None:
        """The adapter's folder where it is whole, by its files' sizes. A few stats, so no thread."""
        folder = self.root / adapter_id
        if not ADAPTER_ID.fullmatch(adapter_id):
            return None
        try:
            manifest = self._parse(adapter_id, (folder / MANIFEST_FILE).read_bytes())
            sizes = {name: (folder / name).stat().st_size for name in manifest.files}
        except (FileNotFoundError, AdapterError):
            return None
        return folder if sizes == {name: file.size_bytes for name, file in manifest.files.items()} else None

    def names(self) -> list[str]:
        """The ids of the adapters in it."""
        return [path.name for path in self.root.glob("*") if ADAPTER_ID.fullmatch(path.name)]

    @property
    def max_bytes(self) -> int:
        """What may lie in it; 0: no limit."""
        return self._settings.engine.max_folder_bytes

    async def fetch(self, adapter_id: str) -> Path:
        """The adapter's folder, fetched where need be; once at a time per id. AdapterError where that fails."""
        if not ADAPTER_ID.fullmatch(adapter_id):
            raise AdapterUnknown("not an adapter id")
        async with self._lock(adapter_id):
            return await self._find(adapter_id) or await self._fetch(adapter_id)

    async def find(self, adapter_id: str) -> Path | None:
        """The adapter's folder where it is whole, by its files' checksums, as `fetch` would return it; no fetch."""
        async with self._lock(adapter_id):
            return await self._find(adapter_id)

    async def remove(self, adapter_id: str) -> None:
        """Delete the folder. Only for an adapter that no request will name again: vLLM dies of a missing one."""
        if not ADAPTER_ID.fullmatch(adapter_id):
            raise AdapterUnknown("not an adapter id")
        async with self._lock(adapter_id):
            self._verified.discard(adapter_id)
            await in_thread(remove_tree, self.root / adapter_id)

    async def clear_leftovers(self) -> None:
        """Remove what a killed engine left half-written, and what was deleted while none ran. Only before the first
        fetch. Where the store does not answer, whole adapters stay."""
        folders = list(self.root.glob("*"))
        are_stored = await asyncio.gather(*(self._is_stored(folder.name) for folder in folders))
        for folder, is_stored in zip(folders, are_stored, strict=True):
            if not is_stored:
                await in_thread(remove_tree, folder)

    async def aclose(self) -> None:
        """Finish the refills, close Redis."""
        await asyncio.gather(*self._refills)
        await self._redis.aclose()

    # ---- one fetch ----------------------------------------------------------------------------------------

    async def _find(self, adapter_id: str) -> Path | None:
        """Sizes alone would let through what a power cut left: zeros, as many as there were to be bytes. Computed once,
        since nobody but this process writes there."""
        folder = self.complete(adapter_id)
        if folder is None or adapter_id in self._verified:
            return folder
        try:
            manifest = self._parse(adapter_id, (folder / MANIFEST_FILE).read_bytes())
            found = await in_thread(checksums, folder, manifest.files)
        except OSError as error:
            logger.warning("adapter %s: to be fetched anew, not readable here: %s", adapter_id, error)
            return None
        if found != {name: file.sha256 for name, file in manifest.files.items()}:
            logger.warning("adapter %s: to be fetched anew, its files here are not what was published", adapter_id)
            return None
        self._verified.add(adapter_id)
        return folder

    async def _fetch(self, adapter_id: str) -> Path:
        async with self._fresh_folder(adapter_id) as fresh:
            if await self._from_redis(adapter_id, fresh):
                return await self._take(adapter_id, fresh)
        async with self._fresh_folder(adapter_id) as fresh:
            await self._from_store(adapter_id, fresh)
            folder = await self._take(adapter_id, fresh)
        refill = asyncio.create_task(self._refill(adapter_id, folder))  # nobody waits for it
        self._refills.add(refill)
        refill.add_done_callback(self._refills.discard)
        return folder

    async def _take(self, adapter_id: str, fresh: Path) -> Path:
        folder = await in_thread(move, fresh, self.root / adapter_id)
        self._verified.add(adapter_id)  # as it was written
        return folder

    async def _from_redis(self, adapter_id: str, folder: Path) -> bool:
        """False where Redis lacks it, holds a damaged copy or does not answer: the store is the record."""
        key = adapter_redis_key(adapter_id)
        try:
            raw = await self._redis.hget(key, MANIFEST_FIELD)
            if raw is None:
                return False
            manifest = self._parse(adapter_id, raw)
            for name, file in manifest.files.items():
                await _save(manifest, name, self._redis_chunks(key, name, file.size_bytes), folder)
        except (RedisError, AdapterError) as error:
            logger.warning("adapter %s: not usable from Redis: %s", adapter_id, error)
            return False
        (folder / MANIFEST_FILE).write_text(manifest.to_json())
        return True

    async def _redis_chunks(self, key: str, name: str, size_bytes: int) -> AsyncIterator[bytes]:
        for number in range(math.ceil(size_bytes / CHUNK_BYTES)):
            chunk = await self._redis.hget(key, chunk_field(name, number))
            if not isinstance(chunk, bytes):
                raise AdapterCorrupt(f"{name} lacks chunk {number}")  # evicted meanwhile, or half-written
            yield chunk

    async def _from_store(self, adapter_id: str, folder: Path) -> None:
        try:
            found = await obstore.get_async(self._store, adapter_path(adapter_id, MANIFEST_FILE))
        except FileNotFoundError:
            raise AdapterUnknown(f"adapter {adapter_id} does not exist") from None
        try:
            manifest = self._parse(adapter_id, bytes(await found.bytes_async()))
        except AdapterUnsigned as error:
            logger.error("not loaded: %s", error)
            raise
        for name in manifest.files:
            await _save(manifest, name, self._store_chunks(adapter_id, name), folder)
        (folder / MANIFEST_FILE).write_text(manifest.to_json())

    async def _store_chunks(self, adapter_id: str, name: str) -> AsyncIterator[bytes]:
        try:
            found = await obstore.get_async(self._store, adapter_path(adapter_id, name))
        except FileNotFoundError:
            raise AdapterCorrupt(f"{name} is missing in the store") from None
        async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)

    async def _is_stored(self, adapter_id: str) -> bool:
        try:
            await obstore.head_async(self._store, adapter_path(adapter_id, MANIFEST_FILE))
        except FileNotFoundError:
            return False
        except BaseError as error:
            logger.warning("adapter %s: kept, the store does not answer: %s", adapter_id, error)
        return True

    async def _refill(self, adapter_id: str, folder: Path) -> None:
        """Put the adapter back into Redis for the other engines; under its name only when whole, and only while it is
        here: a deletion waits for the lock in `remove`, and takes it out of Redis after that."""
        key = adapter_redis_key(adapter_id)
        draft = f"{key}:{uuid.uuid4().hex}"
        try:
            try:
                await self._fill(draft, folder)
                async with self._lock(adapter_id):
                    if self.complete(adapter_id):
                        await self._redis.rename(draft, key)
            finally:
                await self._redis.unlink(draft)  # gone already where it was renamed
        except (RedisError, OSError) as error:
            logger.warning("adapter %s: not put back into Redis: %s", adapter_id, error)

    async def _fill(self, draft: str, folder: Path) -> None:
        manifest = Manifest.from_json((folder / MANIFEST_FILE).read_bytes())
        for name in manifest.files:
            number = 0
            while chunk := await asyncio.to_thread(read_chunk, folder / name, number):
                await self._redis.hset(draft, chunk_field(name, number), chunk)
                await self._redis.expire(draft, self._settings.redis.blob_ttl_s)
                number += 1
        await self._redis.hset(draft, MANIFEST_FIELD, manifest.to_json())

    # ---- parts --------------------------------------------------------------------------------------------

    @cached_property
    def _redis(self) -> Redis:
        url = self._settings.redis.blobs_url or self._settings.redis_url
        return Redis.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)

    @cached_property
    def _store(self) -> ObjectStore:
        return from_url(self._settings.resolved_store_url)

    def _lock(self, adapter_id: str) -> asyncio.Lock:
        """Forgotten when nobody holds or awaits it, so unknown ids leave nothing behind."""
        return self._locks.setdefault(adapter_id, asyncio.Lock())

    def _parse(self, adapter_id: str, raw: str | bytes) -> Manifest:
        try:
            manifest = Manifest.from_json(raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise AdapterCorrupt(f"adapter {adapter_id}: unreadable manifest: {error}") from error
        if manifest.adapter_id != adapter_id:
            raise AdapterCorrupt(f"adapter {adapter_id}: the manifest is that of {manifest.adapter_id}")
        if self._secrets and not manifest.is_signed_with(self._secrets):
            which = "has another signature" if manifest.signature else "is not signed"
            raise AdapterUnsigned(f"adapter {adapter_id}: its manifest {which}; adapter_secrets wants one of theirs")
        trained_on = (manifest.base_model, manifest.base_revision)
        serving = (self._settings.model_name, self._settings.base_revision)
        if trained_on != serving:
            raise AdapterMismatch(f"adapter {adapter_id} is for {trained_on}, this engine serves {serving}")
        return manifest

    @asynccontextmanager
    async def _fresh_folder(self, adapter_id: str) -> AsyncIterator[Path]:
        """A folder beside the final one; whatever still lies in it at the end goes."""
        self.root.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=self.root, prefix=f".{adapter_id}."))
        try:
            yield fresh
        finally:
            await in_thread(remove_tree, fresh)


async def _save(manifest: Manifest, name: str, chunks: AsyncIterator[bytes], folder: Path) -> None:
    """Write `chunks` to the file, hashing as they come; AdapterCorrupt where they are not what was published."""
    expected, digest, size_bytes = manifest.files[name], hashlib.sha256(), 0
    with (folder / name).open("wb", buffering=0) as file:
        async for chunk in chunks:
            await in_thread(append, file.fileno(), digest, chunk)
            size_bytes += len(chunk)
    if (size_bytes, digest.hexdigest()) != (expected.size_bytes, expected.sha256):
        raise AdapterCorrupt(f"{name} of {manifest.adapter_id} has another checksum than its manifest says")
