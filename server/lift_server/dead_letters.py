"""`lift-serve dead-letters list | retry`: in: settings and arguments; out: what to print. A dead letter (its key in
lift:dead-letters) is a job that failed after every attempt, of which another one might succeed.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from typing import Any

from redis.asyncio import Redis

from lift_config.contract import DEAD_LETTERS_KEY, JobRecord, Status, job_redis_key
from lift_config.phases import Phase, Timeline
from lift_config.settings import Settings
from lift_server.bulk import turn_of
from lift_server.errors import StorageUnavailable
from lift_server.launcher.embedded import embedded_url
from lift_server.records import Records
from lift_server.store import open_store
from lift_server.writes import wanted, write_job


async def run(settings: Settings, args: Namespace) -> str:
    """LookupError for a job without a letter, or where there is no Redis; WatchError where one just changed."""
    url = settings.redis_url or embedded_url(settings.home.resolve())
    if url is None:
        raise LookupError("no Redis: nothing is running here")
    async with Redis.from_url(url, decode_responses=True) as redis:
        records = Records(redis, open_store(settings.resolved_store_url))
        found = await letters(records)
        if args.action == "list":
            shown, line = [await _shown(records, letter) for letter in found], _line
        else:
            jobs = args.job or [letter.key for letter in found]
            shown, line = [await _retried(records, found, job) for job in jobs], _retried_line
        return json.dumps({"object": "list", "data": shown}, indent=2) if args.json else "\n".join(map(line, shown))


async def letters(records: Records) -> list[JobRecord]:
    """The oldest first. StorageUnavailable where Redis has lost its data: there may be others."""
    if not await records.are_whole():
        raise StorageUnavailable
    job_keys: Any = await records.redis.zrange(DEAD_LETTERS_KEY, 0, -1)
    return [job for job in await records.jobs(job_keys) if job and job.error]


async def _shown(records: Records, job: JobRecord) -> dict[str, Any]:
    """With what its owner reads and the documents that wait for it."""
    assert job.error
    return {
        "job": job.key,
        "at_s": job.error.failed_s,
        "code": job.error.code,
        "attempts": job.error.attempts,
        "documents": sorted(await records.users(job.key)),
        "message": job.error.message,
    }


def _line(shown: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(shown["at_s"]))
    documents = " ".join(shown["documents"])
    return f"{shown['job']}  {when}  {shown['code']}, {shown['attempts']} attempts  {documents}  {shown['message']}"


async def _retry(records: Records, job_key: str) -> bool:
    """Whether there was something to train: it may have been uploaded again, trained or deleted meanwhile."""
    async with records.transaction(job_redis_key(job_key)) as pipe:
        job = await records.job(job_key)
        if job is None or job.unfinished or job.error is None:
            return False
        job = wanted(job, job.changed(received_s=time.time()))
        if not job.adapters:
            timeline = Timeline()
            timeline.start(Phase.QUEUE, job.received_s)
            job = job.changed(status=Status.QUEUED, timeline=timeline)
        turn = await turn_of(records.redis, job)
        await records.store_job(job)
        pipe.multi()  # type: ignore[no-untyped-call]
        write_job(pipe, job, turn)
        await pipe.execute()
    return True


async def _retried(records: Records, found: list[JobRecord], job_key: str) -> dict[str, Any]:
    if job_key not in {job.key for job in found}:
        raise LookupError(f"no such dead letter: {job_key}")
    return {"job": job_key, "is_queued": await _retry(records, job_key)}


def _retried_line(shown: dict[str, Any]) -> str:
    return f"{shown['job']}  {'is in the queue again' if shown['is_queued'] else 'there is nothing left to train'}"
