"""Whether a job's first version is bulk: what nobody else should have to wait for.

In: a job about to be queued. Out: the job, marked. Bulk is a long text, or one of many of its owner's; it waits in a
stream of its own, and gives way to what comes into lift:jobs (lift_workers.worker).
"""

from __future__ import annotations

import json

from redis.asyncio import Redis

from lift_config.contract import JOB_FIELD, JOBS_STREAM, JobRecord, job_redis_key

LONG_BYTES = 32_000  # of text: some 8k tokens
MOST_IN_LINE = 4  # of an owner's jobs in lift:jobs


async def in_line(redis: Redis, job: JobRecord) -> JobRecord:
    """`redis` decodes its responses."""
    is_bulk = job.text_bytes > LONG_BYTES or await _of_owner(redis, job.owner) >= MOST_IN_LINE
    return job.changed(is_bulk=is_bulk)


async def _of_owner(redis: Redis, owner: str) -> int:
    """How many of lift:jobs are the owner's, at work or waiting; an entry may outlive its job's end."""
    entries = await redis.xrange(JOBS_STREAM) or []
    keys = [str(fields[JOB_FIELD]) for _, fields in entries if fields]
    async with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hmget(job_redis_key(key), ["owner", "unfinished"])
        found: list[list[str | None]] = await pipe.execute()
    return found.count([json.dumps(owner), json.dumps(True)])
