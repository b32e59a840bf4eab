"""The store → Redis: what Redis lost is written again, and what should be in the queue is put there.

Runs before the server answers, and again whenever Redis was away. Run twice, it changes nothing. Until all is added,
what is missing in Redis is not known to be missing (Records.document); then it goes that was deleted (rollback.py).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import suppress

from redis.exceptions import WatchError

from lift_config.contract import (
    DOCUMENTS_KEY,
    STREAMS,
    TURN_STREAMS,
    WHOLE_KEY,
    DocumentRecord,
    JobRecord,
    document_path,
    document_redis_key,
    job_documents_redis_key,
    job_path,
    job_redis_key,
    turns_redis_key,
)
from lift_server.bulk import turn_of
from lift_server.keys import Keys
from lift_server.records import Records
from lift_server.rollback import catch_up
from lift_server.store import stored_names, unreadable_is_left_alone
from lift_server.writes import enqueue, write_document, write_job

log = logging.getLogger(__name__)


async def recover(records: Records, keys: Keys) -> None:
    await keys.copy()  # first: until then nobody is let in
    is_whole = False
    while not is_whole:
        with suppress(WatchError):  # another server was done first, or Redis was lost again meanwhile
            async with records.transaction(WHOLE_KEY) as pipe:
                await _fill(records)
                pipe.multi()  # type: ignore[no-untyped-call]
                pipe.set(WHOLE_KEY, "1")
                await pipe.execute()
                is_whole = True
    await catch_up(records)


async def _fill(records: Records) -> None:
    counts: Counter[str] = Counter()
    async for ids in stored_names(records.store, "documents"):
        counts["documents"] += await _restore_documents(records, ids)
    async for job_keys in stored_names(records.store, "jobs"):
        counts["jobs"] += await _restore_jobs(records, job_keys)
        counts["queued"] += await _enqueue_lost(records, job_keys)
    log.info("recovered from the store: %s", dict(counts))


async def _restore_documents(records: Records, ids: list[str]) -> int:
    known = await records.documents(ids)
    listed = await records.redis.zmscore(DOCUMENTS_KEY, ids)
    lost = [one for one, *found in zip(ids, known, listed, strict=True) if None in found]
    for document_id in lost:
        with unreadable_is_left_alone(document_path(document_id)):
            content = await records.read(document_path(document_id))
            if content is None:
                continue  # deleted this moment
            document = DocumentRecord.from_json(content)
            is_seen_to = False
            while not is_seen_to:
                with suppress(WatchError):  # it, or one that it is made of, changed this moment: look again
                    await _restore_document(records, document)
                    is_seen_to = True
    return len(lost)


async def _restore_document(records: Records, document: DocumentRecord) -> None:
    async with records.transaction(*map(document_redis_key, (document.id, *document.document_ids))) as pipe:
        if await is_sound(records, document):
            pipe.multi()  # type: ignore[no-untyped-call]
            write_document(pipe, document)
            await pipe.execute()


async def is_sound(records: Records, document: DocumentRecord) -> bool:
    """Without a job its upload was cut off, and never answered; a set must not outlive one of its documents. What is
    not sound the janitor deletes."""
    known = await records.redis.exists(job_redis_key(document.job_key))
    if not known and await records.size_bytes(job_path(document.job_key)) is None:
        return False
    return all([await _is_there(records, member_id) for member_id in document.document_ids])


async def _is_there(records: Records, document_id: str) -> bool:
    """In the store too: Redis has what is being deleted until the end."""
    (known,) = await records.documents([document_id])
    is_stored = await records.size_bytes(document_path(document_id)) is not None
    return is_stored and (known is None or not known.is_expired(time.time()))


async def _restore_jobs(records: Records, keys: list[str]) -> int:
    known = await records.jobs(keys)
    restored = 0
    for key in (key for key, job in zip(keys, known, strict=True) if job is None):
        with unreadable_is_left_alone(job_path(key)):
            job = await records.stored_job(key)
            if job is None or not await records.redis.exists(job_documents_redis_key(key)):
                continue  # no document uses it: an upload or a deletion was cut off
            with suppress(WatchError):  # another server restored it this moment
                restored += await _restore_job(records, job)
    return restored


async def _restore_job(records: Records, job: JobRecord) -> bool:
    async with records.transaction(job_redis_key(job.key)) as pipe:
        if await records.redis.exists(job_redis_key(job.key)):
            return False
        turn = await turn_of(records.redis, job)
        pipe.multi()  # type: ignore[no-untyped-call]
        # A worker that outlived Redis still holds a claim of old: start above any count it can know.
        write_job(pipe, job.changed(fence=int(time.time() * 1000)), turn)
        await pipe.execute()
    return True


async def _enqueue_lost(records: Records, keys: list[str]) -> int:
    """Unfinished jobs without an entry in either stream: nobody would ever claim them."""
    unfinished = {job.key for job in await records.jobs(keys) if job is not None and job.unfinished}
    lost = unfinished - await _queued(records) if unfinished else set()
    for key in lost:
        is_seen_to = False
        while not is_seen_to:
            with suppress(WatchError):  # it, or a stream, changed this moment: look again
                await _enqueue(records, key)
                is_seen_to = True
    return len(lost)


async def _enqueue(records: Records, key: str) -> None:
    async with records.transaction(job_redis_key(key), *map(turns_redis_key, TURN_STREAMS), *STREAMS) as pipe:
        (job,) = await records.jobs([key])
        if job is None or not job.unfinished or key in await _queued(records):
            return
        turn = await turn_of(records.redis, job)
        pipe.multi()  # type: ignore[no-untyped-call]
        enqueue(pipe, job, turn)
        await pipe.execute()


async def _queued(records: Records) -> set[str]:
    return set(await records.queued(*STREAMS))
