"""A store, and jobs put into the queue as the server does it."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore
from redis.asyncio import Redis

from lift_config.contract import JOB_FIELD, JOBS_STREAM, JobRecord, job_redis_key, text_path

Enqueue = Callable[..., Awaitable[JobRecord]]
Find = Callable[[str], Awaitable[JobRecord]]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", mkdir=True)


@pytest.fixture
def enqueue(redis: Redis, store: LocalStore) -> Enqueue:
    """Queue a job for `text`; other arguments are the record's fields."""

    async def put(text: str = "train", *, stream: str = JOBS_STREAM, **fields: object) -> JobRecord:
        known = {"key": "a" * 32, "owner": "default", "title": None, "base_model": "tiny", "base_revision": "main"}
        job = JobRecord(**{**known, "recipe": "fast", "received_s": time.time() - 1, **fields})  # type: ignore[arg-type]
        await obstore.put_async(store, text_path(job.key), text.encode())
        await redis.hset(job_redis_key(job.key), mapping=dict(job.to_redis().items()))
        await redis.xadd(stream, {JOB_FIELD: job.key})
        return job

    return put


@pytest.fixture
def find(redis: Redis) -> Find:
    """A job as it lies in Redis."""

    async def get(key: str) -> JobRecord:
        fields: Any = await redis.hgetall(job_redis_key(key))
        return JobRecord.from_redis({name.decode(): value.decode() for name, value in fields.items()})

    return get
