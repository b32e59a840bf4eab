"""A job's place among those that wait: which of them nobody else should have to wait for, whose turn comes when.

In: a job about to be queued, or to be no longer. Out: the job, marked as bulk or not; its turn; what takes it out. Bulk
is a long text, or one of many of its owner's; it gives way to what comes into lift:jobs (lift_workers.worker). Bulk and
refinements wait for their turn (lift_config.turns), and workers take the lowest (lift_workers.turns).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from lift_config.contract import (
    JOB_FIELD,
    JOBS_GROUP,
    TURN_STREAMS,
    JobRecord,
    Status,
    job_redis_key,
    line_redis_key,
    turns_redis_key,
)
from lift_config.turns import turn_in
from lift_server.writes import stream_of

LONG_BYTES = 32_000  # of text: some 8k tokens
MOST_IN_LINE = 4  # of an owner's jobs in lift:jobs


@dataclass(frozen=True)
class Waiting:
    """Where a job waits for a worker: its entries in a stream, and whom of its owner's it leaves its turn to."""

    entries: list[str] = field(default_factory=list)
    heirs: dict[str, float] = field(default_factory=dict)


async def in_line(redis: Redis, job: JobRecord) -> JobRecord:
    """`redis` decodes its responses."""
    is_bulk = job.text_bytes > LONG_BYTES or await _of_owner(redis, job.owner) >= MOST_IN_LINE
    return job.changed(is_bulk=is_bulk)


def turns_of(owner: str) -> list[str]:
    """What to watch where a turn of the owner's is given or taken back."""
    return [turns_redis_key(stream, owner) for stream in TURN_STREAMS]


async def turn_of(redis: Redis, job: JobRecord) -> float:
    """In the stream that it is to wait for; 0 where it waits for no turn."""
    stream = stream_of(job)
    return await turn_in(redis, stream, job.owner) if job.unfinished and stream in TURN_STREAMS else 0.0


async def waiting(redis: Redis, job: JobRecord) -> Waiting:
    """To be asked while the job's record and its owner's turns are watched. An entry that was claimed is its worker's
    to take out."""
    stream = stream_of(job)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.xrange(stream)  # short: an owner has MOST_IN_LINE in lift:jobs, and a worker one of the others
        pipe.zrange(turns_redis_key(stream, job.owner), 0, 1, withscores=True)
        entries, first = await pipe.execute()
    is_first = len(first) == 2 and first[0][0] == job.key
    is_claimed = job.status is not Status.QUEUED
    return Waiting(
        entries=[entry for entry, fields in entries if fields.get(JOB_FIELD) == job.key and not is_claimed],
        heirs={first[1][0]: first[0][1]} if is_first else {},
    )


def take_out(pipe: Pipeline, job: JobRecord, place: Waiting) -> None:
    """A worker that has read an entry and not begun its job yet finds it gone, and lets go of it."""
    pipe.srem(line_redis_key(job.owner), job.key)
    if place.entries:
        pipe.xack(stream_of(job), JOBS_GROUP, *place.entries)
        pipe.xdel(stream_of(job), *place.entries)
    leave_turns(pipe, job, place.heirs)


def leave_turns(pipe: Pipeline, job: JobRecord, heirs: Mapping[str, float] | None = None) -> None:
    stream = stream_of(job)
    for key in (turns_redis_key(stream), turns_redis_key(stream, job.owner)):
        pipe.zrem(key, job.key)
        if heirs:
            pipe.zadd(key, {**heirs}, xx=True)  # unless a worker took it this moment


async def _of_owner(redis: Redis, owner: str) -> int:
    """How many of lift:jobs are the owner's first versions, at work or waiting; looked at, since lift:line may name one
    too many."""
    async with redis.pipeline(transaction=False) as pipe:
        for key in await redis.smembers(line_redis_key(owner)):
            pipe.hmget(job_redis_key(str(key)), ["unfinished", "adapters", "is_bulk"])
        found: list[list[str | None]] = await pipe.execute()
    return found.count([json.dumps(True), json.dumps([]), json.dumps(False)])
