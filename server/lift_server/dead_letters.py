"""`lift-serve dead-letters list | retry`: in: settings and arguments; out: what to print. The worker writes the letters
(lift:jobs:dead): jobs that failed after every attempt, of which another one might succeed.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from lift_config.contract import DEAD_STREAM, JOB_FIELD, Status, job_redis_key
from lift_config.phases import Phase, Timeline
from lift_config.settings import Settings
from lift_server.launcher.embedded import embedded_url
from lift_server.records import Records
from lift_server.store import open_store
from lift_server.writes import wanted, write_job


@dataclass(frozen=True)
class Letter:
    """`entry` is the stream's; it begins with the time in milliseconds."""

    entry: str
    job: str
    code: str
    attempts: str

    @property
    def at_s(self) -> float:
        return int(self.entry.split("-")[0]) / 1000


async def run(settings: Settings, args: Namespace) -> str:
    """LookupError for a job without a letter, or where there is no Redis; WatchError where one just changed."""
    url = settings.redis_url or embedded_url(settings.home.resolve())
    if url is None:
        raise LookupError("no Redis: nothing is running here")
    async with Redis.from_url(url, decode_responses=True) as redis:
        records = Records(redis, open_store(settings.resolved_store_url))
        found = await letters(redis)
        if args.action == "list":
            shown = [await _shown(records, letter) for letter in found]
            return (
                json.dumps({"object": "list", "data": shown}, indent=2) if args.json else "\n".join(map(_line, shown))
            )
        return "\n".join(
            [await _retried(records, found, job) for job in args.job or sorted({one.job for one in found})]
        )


async def letters(redis: Redis) -> list[Letter]:
    """The oldest first."""
    entries: Any = await redis.xrange(DEAD_STREAM)
    return [Letter(entry, fields[JOB_FIELD], fields["code"], fields["attempts"]) for entry, fields in entries]


async def _shown(records: Records, letter: Letter) -> dict[str, Any]:
    """With what its owner reads and the documents that wait for it. `message` is null where that is over."""
    job = await records.job(letter.job)
    return {
        "job": letter.job,
        "at_s": letter.at_s,
        "code": letter.code,
        "attempts": int(letter.attempts),
        "documents": sorted(await records.users(letter.job)),
        "message": job.error.message if job and job.error else None,
    }


def _line(shown: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(shown["at_s"]))
    said = shown["message"] or "since then trained, cancelled or deleted"
    documents = " ".join(shown["documents"]) or "no document"
    return f"{shown['job']}  {when}  {shown['code']}, {shown['attempts']} attempts  {documents}  {said}"


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
        await records.store_job(job)
        pipe.multi()  # type: ignore[no-untyped-call]
        write_job(pipe, job)
        await pipe.execute()
    return True


async def _retried(records: Records, found: list[Letter], job_key: str) -> str:
    entries = [letter.entry for letter in found if letter.job == job_key]
    if not entries:
        raise LookupError(f"no such dead letter: {job_key}")
    is_queued = await _retry(records, job_key)
    await records.redis.xdel(DEAD_STREAM, *entries)
    return f"{job_key}  {'is in the queue again' if is_queued else 'there is nothing left to train'}"
