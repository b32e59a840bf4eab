"""Whose a job is: the decisions behind a claim and behind every write of one, on what a job's HASH says.

In: fields of a job's HASH, and its lease. Out: the job as its claim begins it, or the exception that ends a claim.
"""

from __future__ import annotations

import json
import logging

from lift_config.contract import JOBS_STREAM, REFINE_STREAM, JobRecord, Progress, Status
from lift_config.phases import Phase

logger = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The job is no longer this claim's: another worker has it, it was queued anew or is to have another recipe."""


class JobCancelled(Exception):
    """The job's training was cancelled, or it was deleted with its last document."""


def check(job: JobRecord, found: list[bytes | None]) -> None:
    """`found` is the HASH's fence, recipe, status and unfinished, as JSON; the record is gone where they are None."""
    fence, recipe, status, unfinished = (None if value is None else json.loads(value) for value in found)
    if fence is None or (fence == job.fence and not unfinished):
        raise JobCancelled(job.key)
    if fence != job.fence or recipe != job.recipe or status not in (Status.TRAINING, Status.READY):
        raise LeaseLost(f"job {job.key}: {status}, fence {fence}, recipe {recipe}; this claim's fence is {job.fence}")


def claimable(fields: dict[bytes, bytes], *, is_held: bool) -> JobRecord | None:
    """The job, where it waits for a worker or its worker is gone."""
    if not fields:
        return None
    try:
        job = JobRecord.from_redis({name.decode(): value.decode() for name, value in fields.items()})
    except (TypeError, ValueError, KeyError):
        logger.exception("a job's record is unreadable")
        return None
    waits = job.status is Status.QUEUED or (job.status in (Status.TRAINING, Status.READY) and not is_held)
    return job if job.unfinished and waits else None


def begun(job: JobRecord) -> JobRecord:
    """As its claim writes it. A job that can be asked stays so."""
    if job.timeline.seconds(Phase.QUEUE) is None:  # a later attempt leaves the first one's end alone
        job.timeline.start(Phase.QUEUE, job.received_s)
        job.timeline.end(Phase.QUEUE)
    if job.status is Status.READY:
        job.timeline.start(Phase.REFINE)
    status = Status.READY if job.status is Status.READY else Status.TRAINING
    return job.changed(status=status, fence=job.fence + 1, progress=Progress(), error=None)


def lease_of(stream: str, entry: str) -> str:
    """What a job's lease says of the entry at work."""
    return f"{stream} {entry}"


def gives_way(lease: str, stream: str, entry: str) -> bool:
    """Whether a job under `lease` may be taken for this entry: it is the same entry, and its worker gone; or it is a
    refinement, and the entry stands in JOBS_STREAM: somebody waits for another recipe."""
    is_awaited = stream == JOBS_STREAM and lease.startswith(lease_of(REFINE_STREAM, ""))
    return is_awaited or lease == lease_of(stream, entry)
