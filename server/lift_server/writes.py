"""Records → commands in a pipeline; whoever executes it decides what they stand or fall with."""

from __future__ import annotations

from typing import Any

from redis.asyncio.client import Pipeline

from lift_config.contract import (
    BELL_STREAM,
    BULK_STREAM,
    CHANGED_CHANNEL,
    DEAD_LETTERS_KEY,
    DOCUMENTS_KEY,
    JOB_FIELD,
    JOBS_STREAM,
    REFINE_STREAM,
    TURN_STREAMS,
    DocumentRecord,
    JobRecord,
    Progress,
    Status,
    document_redis_key,
    job_documents_redis_key,
    job_redis_key,
    line_redis_key,
    owner_redis_key,
    sets_redis_key,
)
from lift_config.phases import Phase, Timeline
from lift_config.turns import wait_for_turn

STOPPED = frozenset({Status.FAILED, Status.CANCELLED})


def write_document(pipe: Pipeline, document: DocumentRecord) -> None:
    fields: dict[Any, Any] = {**document.to_redis()}  # redis-py's type for a mapping is invariant
    pipe.hset(document_redis_key(document.id), mapping=fields)
    pipe.zadd(DOCUMENTS_KEY, {document.id: document.created_s})
    pipe.zadd(owner_redis_key(document.owner), {document.id: document.created_s})
    pipe.sadd(job_documents_redis_key(document.job_key), document.id)
    for member_id in document.document_ids:
        pipe.sadd(sets_redis_key(member_id), document.id)


def write_job(pipe: Pipeline, job: JobRecord, turn: float = 0.0, stream: str | None = None) -> None:
    """The whole record, and its place: in the queue, or in `stream`, where it is to be trained; among the dead letters
    where it was given up. `turn` is bulk.turn_of's."""
    fields: dict[Any, Any] = {**job.to_redis()}
    pipe.hset(job_redis_key(job.key), mapping=fields)
    if job.unfinished:
        enqueue(pipe, job, turn, stream)
    else:
        pipe.srem(line_redis_key(job.owner), job.key)
    if job.error and job.error.attempts:
        pipe.zadd(DEAD_LETTERS_KEY, {job.key: job.error.failed_s})
    else:
        pipe.zrem(DEAD_LETTERS_KEY, job.key)
    pipe.publish(CHANGED_CHANNEL, job.key)


def enqueue(pipe: Pipeline, job: JobRecord, turn: float, stream: str | None = None) -> None:
    stream = stream or stream_of(job)
    if stream in TURN_STREAMS:
        wait_for_turn(pipe, stream, job.key, job.owner, turn)
        pipe.xadd(BELL_STREAM, {JOB_FIELD: ""}, maxlen=1, approximate=False)  # no job's: it would outlive a deletion
        return
    pipe.xadd(stream, {JOB_FIELD: job.key})
    if not job.adapters:
        pipe.sadd(line_redis_key(job.owner), job.key)


def stream_of(job: JobRecord) -> str:
    """What can be asked already steps back for what cannot, and bulk for all others."""
    if job.adapters:
        return REFINE_STREAM
    return BULK_STREAM if job.is_bulk else JOBS_STREAM


def taken_up(job: JobRecord, fresh: JobRecord) -> JobRecord:
    """`job`, to be trained for an upload that would have `fresh`, unless it is at work or has that version already."""
    if job.status in STOPPED:
        return wanted(job, fresh).changed(status=Status.QUEUED, timeline=fresh.timeline)
    return job if job.unfinished or job.version_of(fresh.recipe) else wanted(job, fresh)


def wanted(job: JobRecord, by: JobRecord) -> JobRecord:
    """`job` to be trained again, as an upload or a question just asked for; its refinement begins anew."""
    return job.changed(
        timeline=Timeline({phase: span for phase, span in job.timeline.spans.items() if phase is not Phase.REFINE}),
        recipe=by.recipe,
        received_s=by.received_s,
        traceparent=by.traceparent,
        unfinished=True,
        progress=Progress(),
        error=None,
    )
