"""Make a version visible: its weights first, the record last, so that whoever reads the record finds the weights.

In: a folder with ADAPTER_FILES and the recipe they were trained with. Out: objects in the store and a chunked HASH
in Redis (a cache: failing to fill it costs a later question some time and nothing else), then the job's record:
`ready`, and unfinished where this is not its own recipe's version yet. Doing it twice is harmless.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import obstore
from obstore.store import ObjectStore
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lift_config.contract import (
    ADAPTER_FILES,
    CHUNK_BYTES,
    MANIFEST_FIELD,
    MANIFEST_FILE,
    AdapterRecord,
    JobRecord,
    Manifest,
    ManifestFile,
    Status,
    adapter_id,
    adapter_path,
    adapter_redis_key,
    chunk_field,
    job_path,
)
from lift_config.phases import Phase
from lift_config.recipe import Recipe
from lift_workers.fence import JobCancelled
from lift_workers.jobs import Claim

RECORD_S = 30.0  # a store that hangs has so long for a job's record
ASIDE_S = 600  # what a worker that dies while it fills the cache leaves behind goes after so long

logger = logging.getLogger(__name__)


async def publish(
    claim: Claim,
    job: JobRecord,
    recipe: Recipe,
    folder: Path,
    *,
    blobs: Redis,
    store: ObjectStore,
    blob_ttl_s: int,
    secret: str = "",
) -> JobRecord:
    """The job as recorded, with its new version, signed where there is a secret. LeaseLost or JobCancelled leave the
    record alone."""
    phase = Phase.REFINE if job.adapters else Phase.PUBLISH
    job.timeline.start(phase)
    await claim.report(job.changed(progress=replace(job.progress, phase=phase.value, eta_s=None)))
    manifest = await asyncio.to_thread(_manifest, job, recipe, folder)
    if secret:
        manifest = manifest.signed(secret)
    await _upload(manifest, folder, blobs, store, blob_ttl_s)
    unfinished = recipe.name != job.recipe
    if unfinished:
        job.timeline.start(Phase.REFINE)
    if not (unfinished and phase is Phase.REFINE):
        job.timeline.end(phase)
    job = claim.job.changed(
        status=Status.READY,
        unfinished=unfinished,
        progress=replace(claim.job.progress, fraction=1.0, eta_s=0.0),
        adapters=_with_adapter(job, manifest, recipe),
        error=None,
    )
    try:
        await record_end(claim, job, store)
    except JobCancelled:  # cancelled or deleted while its adapter was being stored: nobody is to find it
        if manifest.adapter_id not in {adapter.id for adapter in claim.job.adapters}:
            await _withdraw(manifest.adapter_id, blobs, store)
        raise
    return job


async def record_end(claim: Claim, job: JobRecord, store: ObjectStore) -> None:
    """Write a version or a failure: to Redis, which checks that the job is still ours, then to the store.

    Should the store's copy get lost in between, a Redis that is lost too costs a second training, no document.
    """
    await claim.finish(job)
    async with asyncio.timeout(RECORD_S):  # nothing keeps watch over it: the claim has ended
        await obstore.put_async(store, job_path(job.key), job.to_json().encode())


async def _withdraw(identity: str, blobs: Redis, store: ObjectStore) -> None:
    """The manifest first: without it there is no adapter."""
    for name in (MANIFEST_FILE, *ADAPTER_FILES):
        with suppress(FileNotFoundError):
            await obstore.delete_async(store, adapter_path(identity, name))
    await blobs.unlink(adapter_redis_key(identity))


def _manifest(job: JobRecord, recipe: Recipe, folder: Path) -> Manifest:
    files = {name: _measured(folder / name) for name in ADAPTER_FILES}
    identity = adapter_id(job.key, files[ADAPTER_FILES[0]].sha256)
    return Manifest(identity, job.base_model, job.base_revision, recipe.rank, files)


def _measured(path: Path) -> ManifestFile:
    with path.open("rb") as file:
        return ManifestFile(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


async def _upload(manifest: Manifest, folder: Path, blobs: Redis, store: ObjectStore, blob_ttl_s: int) -> None:
    """To the store and into Redis at once. Nobody knows the adapter's id yet, so their order is nobody's concern."""
    caching = asyncio.ensure_future(_try_to_cache(blobs, manifest, folder, blob_ttl_s))
    try:
        await _store_adapter(store, manifest, folder)
        await caching
    finally:
        caching.cancel()
        await asyncio.gather(caching, return_exceptions=True)


async def _store_adapter(store: ObjectStore, manifest: Manifest, folder: Path) -> None:
    """The manifest last: it means "complete"."""
    for name in ADAPTER_FILES:
        await obstore.put_async(store, adapter_path(manifest.adapter_id, name), folder / name)
    await obstore.put_async(store, adapter_path(manifest.adapter_id, MANIFEST_FILE), manifest.to_json().encode())


async def _try_to_cache(blobs: Redis, manifest: Manifest, folder: Path, ttl_s: int) -> None:
    try:
        await _cache_adapter(blobs, manifest, folder, ttl_s)
    except RedisError as error:
        logger.warning("adapter %s: not in Redis, engines take it from the store: %s", manifest.adapter_id, error)


async def _cache_adapter(blobs: Redis, manifest: Manifest, folder: Path, ttl_s: int) -> None:
    """Fill a HASH aside and rename it, so that a reader never sees half an adapter."""
    key = adapter_redis_key(manifest.adapter_id)
    aside = f"{key}:{time.time_ns():x}"
    try:
        for name in ADAPTER_FILES:
            await _cache_file(blobs, aside, folder / name)
        async with blobs.pipeline() as pipe:
            pipe.hset(aside, MANIFEST_FIELD, manifest.to_json())
            pipe.rename(aside, key)
            pipe.expire(key, ttl_s)
            await pipe.execute()
    except RedisError:
        await blobs.unlink(aside)
        raise


async def _cache_file(blobs: Redis, key: str, path: Path) -> None:
    number = 0
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            async with blobs.pipeline() as pipe:
                pipe.hset(key, chunk_field(path.name, number), chunk)
                pipe.expire(key, ASIDE_S)
                await pipe.execute()
            number += 1


def _with_adapter(job: JobRecord, manifest: Manifest, recipe: Recipe) -> tuple[AdapterRecord, ...]:
    """A job's adapters with this one as the newest; one that is there already keeps its place."""
    if any(adapter.id == manifest.adapter_id for adapter in job.adapters):
        return job.adapters
    newest = AdapterRecord(
        id=manifest.adapter_id,
        version=len(job.adapters) + 1,
        base_model=job.base_model,
        recipe=recipe.name,
        rank=recipe.rank,
        size_bytes=sum(file.size_bytes for file in manifest.files.values()),
        ready_s=time.time(),
        tasks=job.progress.tasks,
        steps=job.progress.steps,
    )
    return (*job.adapters, newest)
