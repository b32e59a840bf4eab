"""The queue's consuming half, on Redis Streams: claim one job, keep its lease, write what becomes of it.

In: entries of STREAMS, each naming a job's HASH. Out: changed HASHes, each change announced on CHANGED_CHANNEL. The
HASH is the truth and an entry only wakes a worker, so a duplicate entry is harmless. Every write is fenced: it happens
only while this claim's own `fence` stands and the job is `unfinished`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from lift_config.contract import (
    BELL_STREAM,
    CHANGED_CHANNEL,
    DEAD_LETTERS_KEY,
    JOB_FIELD,
    JOBS_GROUP,
    JOBS_STREAM,
    REFINE_STREAM,
    SPEEDS_KEPT,
    STREAMS,
    TURN_STREAMS,
    WORKER_PREFIX,
    Failure,
    JobRecord,
    LearningRecord,
    Progress,
    Speed,
    Status,
    job_learning_redis_key,
    job_lease_redis_key,
    job_redis_key,
    line_redis_key,
    speeds_redis_key,
)
from lift_config.turns import turn_in, wait_for_turn
from lift_workers.fence import JobCancelled, begun, check, claimable, gives_way, lease_of
from lift_workers.race import ended
from lift_workers.turns import admit

Report = Callable[[JobRecord, LearningRecord], Awaitable[None]]
"""Takes a job with newer values of REPORTED; whatever else it carries is not written."""

AWAITED = (JOBS_STREAM, BELL_STREAM)  # a worker without work begins at once what these tell of
REPORTED = ("progress", "timeline", "tokens", "synthesis")
FINISHED = (*REPORTED, "status", "unfinished", "adapters", "error")

logger = logging.getLogger(__name__)


class JobFailed(Exception):
    """Training failed; `code` and `message` are for the document's owner. `retry`: another attempt may help."""

    def __init__(self, code: str, message: str, *, retry: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.failure = Failure(code, message)
        self.retry = retry


class Queue:
    """The streams of jobs as one worker sees them. `name` must be this worker's alone."""

    def __init__(self, redis: Redis, name: str, lease_s: float) -> None:
        self.redis = redis
        self.name = name
        self.lease_ms = int(lease_s * 1000)
        self._newest: dict[Any, Any] = dict.fromkeys(
            AWAITED, "0-0"
        )  # entry of each of AWAITED, when they were last looked at
        self._reading: asyncio.Future[Any] | None = None

    async def claim(self, streams: Sequence[str] = STREAMS) -> Claim | None:
        """The next job of the first of `streams` that has one, an abandoned one first; None where none waits."""
        if REFINE_STREAM in streams:  # else a refinement is at work, whose heartbeat says so
            await self.redis.set(WORKER_PREFIX + self.name, "", px=self.lease_ms)
        try:
            while found := await self._entry(streams):
                if claim := await self._begin(*found):
                    return claim
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_groups()
            return await self.claim(streams)
        return None

    async def wait(self, block_s: float) -> None:
        """Until AWAITED get an entry that the last claim() did not see, or `block_s` are over, or a little sooner.

        It takes nothing: an entry read on behalf of nobody would wait for a whole lease. Where it is cancelled its
        read goes on, for the next wait(): a read that is broken off costs its connection, and redis-py, in Python
        3.11, may swallow the cancellation.
        """
        if self._reading is None or self._reading.done():
            read = self.redis.xread(dict(self._newest), count=1, block=max(1, int(block_s * 1000)))
            self._reading = asyncio.ensure_future(read)
        await asyncio.shield(self._reading)

    async def close(self) -> None:
        if self._reading is not None:
            await ended(self._reading)

    async def note_speed(self, recipe: str, speed: Speed) -> None:
        """For the server, which estimates from the newest ones how long a document takes."""
        async with self.redis.pipeline() as pipe:
            pipe.lpush(speeds_redis_key(recipe), speed.to_json())
            pipe.ltrim(speeds_redis_key(recipe), 0, SPEEDS_KEPT - 1)
            await pipe.execute()

    async def _entry(self, streams: Sequence[str]) -> tuple[str, str, str] | None:
        """A stream, its entry and the job it names."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in AWAITED:
                pipe.xrevrange(stream, count=1)
            newest: list[Any] = await pipe.execute()
        self._newest = {name: found[0][0] if found else "0-0" for name, found in zip(AWAITED, newest, strict=True)}
        for stream in streams:
            if found := await self._abandoned(stream) or await self._next(stream):
                return stream, *found
        return None

    async def _abandoned(self, stream: str) -> tuple[str, str] | None:
        """An entry whose worker has been silent for a lease, or let go of it."""
        cursor = "0-0"
        while True:
            cursor, entries, *_ = await self.redis.xautoclaim(
                stream, JOBS_GROUP, self.name, self.lease_ms, start_id=cursor, count=1
            )
            if entries and entries[0][0]:  # Redis 6.2 answers nil for an entry that was deleted
                return _decoded(*entries[0])
            if cursor == b"0-0":
                return None

    async def _next(self, stream: str) -> tuple[str, str] | None:
        """An entry nobody has had yet."""
        while True:
            streams: Any = await self.redis.xreadgroup(JOBS_GROUP, self.name, {stream: ">"}, count=1)
            if streams:
                return _decoded(*streams[0][1][0])
            if stream not in TURN_STREAMS or not await admit(self.redis, stream):
                return None

    async def _create_groups(self) -> None:
        for stream in STREAMS:
            try:
                await self.redis.xgroup_create(stream, JOBS_GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):  # it is there
                    raise

    async def _begin(self, stream: str, entry: str, key: str) -> Claim | None:
        """Take the job `entry` names; drop the entry where there is nothing to train."""

        async def take(pipe: Pipeline) -> JobRecord | None:
            fields: Any = await pipe.hgetall(job_redis_key(key))
            lease: Any = await pipe.get(job_lease_redis_key(key))
            is_there = await pipe.xrange(stream, entry, entry)  # else the server took it out: what is queued is another
            pipe.multi()  # type: ignore[no-untyped-call]
            is_held = lease is not None and not gives_way(lease.decode(), stream, entry)
            job = claimable(fields, is_held=is_held) if is_there else None
            if job is None:
                pipe.xack(stream, JOBS_GROUP, entry)
                pipe.xdel(stream, entry)
                return None
            job = begun(job)
            pipe.hset(job_redis_key(key), mapping=dict(job.to_redis().items()))
            pipe.set(job_lease_redis_key(key), lease_of(stream, entry), px=self.lease_ms)
            pipe.set(WORKER_PREFIX + self.name, key, px=self.lease_ms)
            pipe.publish(CHANGED_CHANNEL, key)
            return job

        watched = (job_redis_key(key), job_lease_redis_key(key))
        job: JobRecord | None = await self.redis.transaction(take, *watched, value_from_callable=True)
        if job is None:
            logger.info("job %s: nothing to train, entry %s of %s dropped", key, entry, stream)
            return None
        return Claim(self, stream, entry, job, attempt=await self._deliveries(stream, entry))

    async def _deliveries(self, stream: str, entry: str) -> int:
        pending = await self.redis.xpending_range(stream, JOBS_GROUP, entry, entry, 1)
        return int(pending[0]["times_delivered"]) if pending else 1


class Claim:
    """One job in this worker's hands. Its methods raise LeaseLost or JobCancelled once it no longer is."""

    def __init__(self, queue: Queue, stream: str, entry: str, job: JobRecord, attempt: int) -> None:
        self.job = job  # as last written
        self.attempt = attempt  # 1 for the first; counts deliveries, so a worker that died counts too
        self.has_ended = False
        self._moved_s = time.monotonic()
        self._queue = queue
        self.stream = stream
        self._entry = entry
        self._lock = asyncio.Lock()  # so that a heartbeat cannot mistake this claim's own end for a lost lease

    @property
    def outranked_by(self) -> tuple[str, ...]:
        """The streams whose jobs go before it."""
        return STREAMS[: STREAMS.index(self.stream)]

    @property
    def silent_s(self) -> float:
        """How long ago the job last reported."""
        return time.monotonic() - self._moved_s

    async def heartbeat(self) -> None:
        """Renew the lease."""
        queue, key = self._queue, self.job.key

        def renew(pipe: Pipeline) -> None:
            pipe.xclaim(self.stream, JOBS_GROUP, queue.name, 0, (self._entry,), justid=True)  # idle time back to 0
            pipe.set(job_lease_redis_key(key), lease_of(self.stream, self._entry), px=queue.lease_ms)
            pipe.set(WORKER_PREFIX + queue.name, key, px=queue.lease_ms)

        await self._write(renew)

    async def report(self, job: JobRecord, learning: LearningRecord | None = None) -> None:
        """Write what REPORTED names, and `learning` where there is news of it. A Report."""
        self._moved_s = time.monotonic()

        def tell(pipe: Pipeline) -> None:
            if learning:
                pipe.set(job_learning_redis_key(job.key), learning.to_json())
            _put(pipe, job, REPORTED)

        await self._write(tell, job)

    async def finish(self, job: JobRecord) -> None:
        """Write a version or the job's end, and let go of it; the operator hears of one that was given up.

        What is still unfinished after its first version waits for its turn as a refinement, behind every job without
        one. After a later version the claim goes on: the next worker would have to train all of it again.
        """
        goes_on = job.unfinished and bool(self.job.adapters)
        turn = await turn_in(self._queue.redis, REFINE_STREAM, job.owner) if job.unfinished else 0.0

        def end(pipe: Pipeline) -> None:
            _put(pipe, job, FINISHED)
            if goes_on:
                return
            self._drop(pipe)
            pipe.delete(job_lease_redis_key(job.key))
            pipe.srem(line_redis_key(job.owner), job.key)
            if job.unfinished:
                wait_for_turn(pipe, REFINE_STREAM, job.key, job.owner, turn)
            if job.error and job.error.attempts:
                pipe.zadd(DEAD_LETTERS_KEY, {job.key: job.error.failed_s})

        try:
            await self._write(end, job, is_end=not goes_on)
        except JobCancelled:
            if goes_on or not await self._is_written(job):
                raise
            self.job, self.has_ended = job, True

    async def _is_written(self, job: JobRecord) -> bool:
        """Whether `job` stands in Redis after all: a reply lost on its way makes redis-py try again, which finds the
        claim ended by its own hand."""
        names = ("fence", "status", "unfinished", "adapters", "error")
        found: Any = await self._queue.redis.hmget(job_redis_key(job.key), *names)
        values = job.to_redis()
        return [value and value.decode() for value in found] == [values[name] for name in names]

    async def release(self, *, after_s: float = 0.0, is_attempt: bool = True) -> None:
        """Hand the job back, for any worker to take in `after_s`, at most a lease from now.

        The entry stays pending and is made to look abandoned, so its delivery count lives on. `is_attempt`
        False takes back the count of this delivery (a worker that shuts down is no fault of the job).
        """
        waiting = Status.READY if self.job.status is Status.READY else Status.QUEUED
        job = self.job.changed(status=waiting, progress=Progress())
        idle_ms = max(0, self._queue.lease_ms - int(after_s * 1000))
        count = self.attempt if is_attempt else self.attempt - 1

        def hand_back(pipe: Pipeline) -> None:
            _put(pipe, job, FINISHED)
            pipe.delete(job_lease_redis_key(job.key))
            name, entries = self._queue.name, (self._entry,)
            pipe.xclaim(self.stream, JOBS_GROUP, name, 0, entries, idle=idle_ms, retrycount=count, justid=True)

        await self._write(hand_back, job, is_end=True)

    async def drop(self) -> None:
        """Forget the entry of a cancelled job, and its lease: the job may be asked for again at once."""
        lease_key = job_lease_redis_key(self.job.key)

        async def forget(pipe: Pipeline) -> None:
            lease: Any = await pipe.get(lease_key)
            pipe.multi()  # type: ignore[no-untyped-call]
            self._drop(pipe)
            if lease is not None and lease.decode() == lease_of(self.stream, self._entry):
                pipe.delete(lease_key)

        await self._queue.redis.transaction(forget, lease_key)

    def _drop(self, pipe: Pipeline) -> None:
        pipe.xack(self.stream, JOBS_GROUP, self._entry)
        pipe.xdel(self.stream, self._entry)

    async def _write(
        self, commands: Callable[[Pipeline], None], job: JobRecord | None = None, *, is_end: bool = False
    ) -> None:
        """Run `commands`, which write `job`, as one transaction, provided the job is still this claim's."""
        redis_key = job_redis_key(self.job.key)

        async def fenced(pipe: Pipeline) -> None:
            found: Any = await pipe.hmget(redis_key, "fence", "recipe", "status", "unfinished")
            check(self.job, found)
            pipe.multi()  # type: ignore[no-untyped-call]
            commands(pipe)

        async with self._lock:
            if self.has_ended:
                return
            await self._queue.redis.transaction(fenced, redis_key)
            self.job = job or self.job
            self.has_ended = is_end


def _put(pipe: Pipeline, job: JobRecord, fields: tuple[str, ...]) -> None:
    values = job.to_redis()
    pipe.hset(job_redis_key(job.key), mapping={name: values[name] for name in fields})
    pipe.publish(CHANGED_CHANNEL, job.key)


def _decoded(entry: bytes, fields: dict[bytes, bytes]) -> tuple[str, str]:
    return entry.decode(), fields.get(JOB_FIELD.encode(), b"").decode()
