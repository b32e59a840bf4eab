"""Documents after their upload: find, page through, cancel, delete, expire. A document's status is its job's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

from lift_config.contract import DOCUMENT_ID, DocumentRecord, JobRecord, Status, original_path
from lift_server import parts
from lift_server.errors import NO_RETRY, ApiError, DocumentNotFound, InvalidRequest
from lift_server.job_states import JobState, job_states
from lift_server.state import State

log = logging.getLogger(__name__)

Found = tuple[DocumentRecord, JobRecord]
Listed = tuple[DocumentRecord, JobState]
BATCH = 100
SWEEP_S = 60.0  # expired documents are refused at once, and deleted at the next sweep


async def find(state: State, owner: str, document_id: str) -> Found:
    """The owner's document and its job; DocumentNotFound, also for another's and for an id that can be none."""
    if not DOCUMENT_ID.fullmatch(document_id):
        raise DocumentNotFound
    document = await state.records.document(document_id)
    if document is None or document.owner != owner or document.is_expired(time.time()):
        raise DocumentNotFound
    job = await state.records.job(document.job_key)
    if job is None:
        raise DocumentNotFound
    return document, job


async def in_order(
    state: State, owner: str | None, *, start: int = 0, newest_first: bool = True, batch: int = BATCH
) -> AsyncIterator[Listed]:
    """The owner's documents, None: everybody's, from rank `start` on, in order of upload; `batch` at a time."""
    while ids := await state.records.ids(owner, start=start, count=batch, newest_first=newest_first):
        documents = [d for d in await state.records.documents(ids) if d is not None and not d.is_expired(time.time())]
        jobs = await job_states(state.records.redis, (document.job_key for document in documents))
        for document, job in zip(documents, jobs, strict=True):
            if job is not None:
                yield document, job
        start += len(ids)


async def page(
    state: State, owner: str, *, after: str | None, limit: int, newest_first: bool, purpose: str | None = None
) -> tuple[list[Listed], bool]:
    """The owner's next `limit` documents behind `after`, and whether more follow."""
    start = 0
    if after is not None:
        rank = await state.records.rank(owner, after, newest_first=newest_first)
        if rank is None:
            raise InvalidRequest("after: no such document.", param="after")
        start = rank + 1
    found: list[Listed] = []
    batch = min(BATCH, limit + 1)
    async for document, job in in_order(state, owner, start=start, newest_first=newest_first, batch=batch):
        if purpose not in (None, document.purpose):
            continue
        if len(found) == limit:
            return found, True
        found.append((document, job))
    return found, False


async def with_jobs(state: State, listed: list[Listed]) -> list[Found]:
    """Each with its job's whole record; without those that were deleted meanwhile."""
    jobs = await state.records.jobs(document.job_key for document, _ in listed)
    return [(document, job) for (document, _), job in zip(listed, jobs, strict=True) if job is not None]


async def original(state: State, owner: str, document_id: str) -> tuple[DocumentRecord, bytes]:
    """The upload as it came."""
    document, _ = await find(state, owner, document_id)
    content = await state.records.read(original_path(document.id))
    if content is None:
        raise DocumentNotFound
    return document, content


async def cancel(state: State, owner: str, document_id: str) -> Found:
    """Stop what is still being trained of the document; it keeps the versions it has."""
    document, job = await find(state, owner, document_id)
    if not job.unfinished and job.status is not Status.CANCELLED:
        message = f"The document is {job.status.value}: there is no training to cancel."
        raise ApiError(409, message, code="document_not_active", headers=NO_RETRY)
    cancelled = await state.records.cancel(document)
    if cancelled is None:
        raise DocumentNotFound
    log.info("%s cancelled", document.id)
    return document, cancelled


async def delete(state: State, owner: str, document_id: str) -> None:
    document, _ = await find(state, owner, document_id)
    await _remove(state, document)


async def sweep_for_ever(state: State) -> None:
    """Delete what has expired, every SWEEP_S; parts of uploads too. A store that took no writes is tried again."""
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await sweep(state)
            await parts.sweep(state)
            await state.records.try_to_write()
        except Exception:  # the sweep's edge: Redis or the store may be away; the next one tries again
            log.exception("sweep failed")


async def sweep(state: State) -> None:
    """One that cannot be deleted now keeps no other from it. By this machine's clock and by Redis's: one of them may
    have jumped, and a deletion cannot be taken back."""
    start, now_s = 0, min(time.time(), await state.records.now_s())
    while ids := await state.records.ids(None, start=start, count=BATCH, newest_first=False):
        expired = [d for d in await state.records.documents(ids) if d is not None and d.is_expired(now_s)]
        removed = [await _removed(state, document) for document in expired]
        start += len(ids) - sum(removed)


async def _removed(state: State, document: DocumentRecord) -> bool:
    try:
        await _remove(state, document)
    except Exception:  # one document's edge: an object of the store, say; the next sweep tries again
        log.exception("%s has expired and was not deleted", document.id)
        return False
    return True


async def _remove(state: State, document: DocumentRecord) -> None:
    """With the sets that hold its text, which go first: none may outlive it."""
    await state.records.expire(document)
    for one in await state.records.sets_of(document.id):
        await _remove(state, one)
    job = await state.records.remove(document)
    log.info("%s deleted", document.id)
    if job is not None:
        await state.passages.forget(job.key)
        await state.hotload.remove(job)
