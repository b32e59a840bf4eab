"""The queue's consuming half, on Redis Streams: claim one job, keep its lease, write what becomes of it.

In: entries of JOBS_STREAM, each naming a job's HASH. Out: changed HASHes, each change announced on
CHANGED_CHANNEL. The HASH is the truth and the entry only wakes a worker, so a duplicate entry is harmless. Every
write is fenced: it happens only while the job is `training` under this claim's own `fence`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from lift_config.contract import (
    CHANGED_CHANNEL,
    DEAD_STREAM,
    JOB_FIELD,
    JOBS_GROUP,
    JOBS_STREAM,
    WORKER_PREFIX,
    Failure,
    JobRecord,
    Progress,
    Status,
    job_lease_redis_key,
    job_redis_key,
)
from lift_config.phases import Phase

Report = Callable[[JobRecord], Awaitable[None]]
"""Takes a job with newer `progress`, `timeline` or `tokens`; whatever else it carries is not written."""

REPORTED = ("progress", "timeline", "tokens")
FINISHED = (*REPORTED, "status", "adapters", "error")
DEAD_LETTERS = 1000

logger = logging.getLogger(__name__)


class JobFailed(Exception):
    """Training failed; `code` and `message` are for the document's owner. `retry`: another attempt may help."""

    def __init__(self, code: str, message: str, *, retry: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.failure = Failure(code, message)
        self.retry = retry


class LeaseLost(Exception):
    """The job is no longer this claim's: another worker has it, or it was queued anew."""


class JobCancelled(Exception):
    """The job was cancelled, or deleted with its last document."""


class Queue:
    """The stream of jobs as one worker sees it. `name` must be this worker's alone."""

    def __init__(self, redis: Redis, name: str, lease_s: float) -> None:
        self.redis = redis
        self.name = name
        self.lease_ms = int(lease_s * 1000)

    async def claim(self, block_s: float | None = None) -> Claim | None:
        """The next job, an abandoned one first; None where none came within `block_s` or the entry was stale."""
        await self.redis.set(WORKER_PREFIX + self.name, "", px=self.lease_ms)
        try:
            entry = await self._abandoned() or await self._next(block_s)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self.redis.xgroup_create(JOBS_STREAM, JOBS_GROUP, id="0", mkstream=True)
            return await self.claim(block_s)
        return await self._begin(*entry) if entry else None

    async def _abandoned(self) -> tuple[str, str] | None:
        """An entry whose worker has been silent for a lease."""
        cursor = "0-0"
        while True:
            cursor, entries, *_ = await self.redis.xautoclaim(
                JOBS_STREAM, JOBS_GROUP, self.name, self.lease_ms, start_id=cursor, count=1
            )
            if entries and entries[0][0]:  # Redis 6.2 answers nil for an entry that was deleted
                return _decoded(*entries[0])
            if cursor == b"0-0":
                return None

    async def _next(self, block_s: float | None) -> tuple[str, str] | None:
        """An entry nobody has had yet."""
        block_ms = None if block_s is None else max(1, int(block_s * 1000))  # 0 would wait for ever
        streams: Any = await self.redis.xreadgroup(JOBS_GROUP, self.name, {JOBS_STREAM: ">"}, count=1, block=block_ms)
        return _decoded(*streams[0][1][0]) if streams else None

    async def _begin(self, entry: str, key: str) -> Claim | None:
        """Take the job `entry` names; drop the entry where there is nothing to train."""

        async def take(pipe: Pipeline) -> JobRecord | None:
            fields: Any = await pipe.hgetall(job_redis_key(key))
            lease: Any = await pipe.get(job_lease_redis_key(key))
            pipe.multi()  # type: ignore[no-untyped-call]
            job = _claimable(fields, is_held_elsewhere=lease is not None and lease.decode() != entry)
            if job is None:
                pipe.xack(JOBS_STREAM, JOBS_GROUP, entry)
                pipe.xdel(JOBS_STREAM, entry)
                return None
            job = _begun(job)
            pipe.hset(job_redis_key(key), mapping=dict(job.to_redis().items()))
            pipe.set(job_lease_redis_key(key), entry, px=self.lease_ms)
            pipe.set(WORKER_PREFIX + self.name, key, px=self.lease_ms)
            pipe.publish(CHANGED_CHANNEL, key)
            return job

        watched = (job_redis_key(key), job_lease_redis_key(key))
        job: JobRecord | None = await self.redis.transaction(take, *watched, value_from_callable=True)
        if job is None:
            logger.info("job %s: nothing to train, entry %s dropped", key, entry)
            return None
        return Claim(self, entry, job, attempt=await self._deliveries(entry))

    async def _deliveries(self, entry: str) -> int:
        pending = await self.redis.xpending_range(JOBS_STREAM, JOBS_GROUP, entry, entry, 1)
        return int(pending[0]["times_delivered"]) if pending else 1


class Claim:
    """One job in this worker's hands. Its methods raise LeaseLost or JobCancelled once it no longer is."""

    def __init__(self, queue: Queue, entry: str, job: JobRecord, attempt: int) -> None:
        self.job = job  # as last written
        self.attempt = attempt  # 1 for the first; counts deliveries, so a worker that died counts too
        self._moved_s = time.monotonic()
        self._queue = queue
        self._entry = entry
        self._ended = False
        self._lock = asyncio.Lock()  # so that a heartbeat cannot mistake this claim's own end for a lost lease

    @property
    def silent_s(self) -> float:
        """How long ago the job last reported."""
        return time.monotonic() - self._moved_s

    async def heartbeat(self) -> None:
        """Renew the lease."""

        def renew(pipe: Pipeline) -> None:
            queue, key = self._queue, self.job.key
            pipe.xclaim(JOBS_STREAM, JOBS_GROUP, queue.name, 0, (self._entry,), justid=True)  # idle time back to 0
            pipe.set(job_lease_redis_key(key), self._entry, px=queue.lease_ms)
            pipe.set(WORKER_PREFIX + queue.name, key, px=queue.lease_ms)

        await self._write(renew)

    async def report(self, job: JobRecord) -> None:
        """Write progress, timeline and tokens. A Report."""
        self._moved_s = time.monotonic()
        await self._write(lambda pipe: self._put(pipe, job, REPORTED))

    async def finish(self, job: JobRecord, *, dead_letter: bool = False) -> None:
        """Write the job's end, ready or failed, and let go of it; a `dead_letter` goes to the operator."""

        def end(pipe: Pipeline) -> None:
            self._put(pipe, job, FINISHED)
            self._drop(pipe)
            pipe.delete(job_lease_redis_key(job.key))
            if dead_letter and job.error:
                letter: Any = {JOB_FIELD: job.key, "code": job.error.code, "attempts": self.attempt}
                pipe.xadd(DEAD_STREAM, letter, maxlen=DEAD_LETTERS)

        await self._write(end, is_end=True)

    async def release(self, *, after_s: float = 0.0, is_attempt: bool = True) -> None:
        """Hand the job back, for any worker to take in `after_s`, at most a lease from now.

        The entry stays pending and is made to look abandoned, so its delivery count lives on. `is_attempt`
        False takes back the count of this delivery (a worker that shuts down is no fault of the job).
        """
        job = self.job.changed(status=Status.QUEUED, progress=Progress())
        idle_ms = max(0, self._queue.lease_ms - int(after_s * 1000))
        count = self.attempt if is_attempt else self.attempt - 1

        def hand_back(pipe: Pipeline) -> None:
            self._put(pipe, job, FINISHED)
            pipe.delete(job_lease_redis_key(job.key))
            name, entries = self._queue.name, (self._entry,)
            pipe.xclaim(JOBS_STREAM, JOBS_GROUP, name, 0, entries, idle=idle_ms, retrycount=count, justid=True)

        await self._write(hand_back, is_end=True)

    async def drop(self) -> None:
        """Forget the entry of a cancelled job."""
        async with self._queue.redis.pipeline() as pipe:
            self._drop(pipe)
            await pipe.execute()

    def _put(self, pipe: Pipeline, job: JobRecord, fields: tuple[str, ...]) -> None:
        values = job.to_redis()
        pipe.hset(job_redis_key(job.key), mapping={name: values[name] for name in fields})
        pipe.publish(CHANGED_CHANNEL, job.key)
        self.job = job

    def _drop(self, pipe: Pipeline) -> None:
        pipe.xack(JOBS_STREAM, JOBS_GROUP, self._entry)
        pipe.xdel(JOBS_STREAM, self._entry)

    async def _write(self, commands: Callable[[Pipeline], None], *, is_end: bool = False) -> None:
        """Run `commands` as one transaction, provided the job is still this claim's."""
        redis_key, fence = job_redis_key(self.job.key), str(self.job.fence)

        async def fenced(pipe: Pipeline) -> None:
            found: Any = await pipe.hmget(redis_key, "fence", "status")
            _check(self.job.key, found, fence)
            pipe.multi()  # type: ignore[no-untyped-call]
            commands(pipe)

        async with self._lock:
            if self._ended:
                return
            await self._queue.redis.transaction(fenced, redis_key)
            self._ended = is_end


def _check(key: str, found: list[bytes | None], fence: str) -> None:
    """`found` is the HASH's fence and status, as JSON."""
    found_fence, status = (None if value is None else value.decode() for value in found)
    if found_fence is None or (found_fence == fence and status == f'"{Status.CANCELLED}"'):
        raise JobCancelled(key)
    if found_fence != fence or status != f'"{Status.TRAINING}"':
        raise LeaseLost(f"job {key}: status {status}, fence {found_fence}, this claim's is {fence}")


def _claimable(fields: dict[bytes, bytes], *, is_held_elsewhere: bool) -> JobRecord | None:
    """The job, where it waits for a worker or its worker is gone."""
    if not fields:
        return None
    try:
        job = JobRecord.from_redis({name.decode(): value.decode() for name, value in fields.items()})
    except (TypeError, ValueError, KeyError):
        logger.exception("a job's record is unreadable")
        return None
    waits = job.status is Status.QUEUED or (job.status is Status.TRAINING and not is_held_elsewhere)
    return job if waits else None


def _begun(job: JobRecord) -> JobRecord:
    if job.timeline.seconds(Phase.QUEUE) is None:  # a later attempt leaves the first one's end alone
        job.timeline.start(Phase.QUEUE, job.received_s)
        job.timeline.end(Phase.QUEUE)
    return job.changed(status=Status.TRAINING, fence=job.fence + 1, progress=Progress(), error=None)


def _decoded(entry: bytes, fields: dict[bytes, bytes]) -> tuple[str, str]:
    return entry.decode(), fields.get(JOB_FIELD.encode(), b"").decode()
