"""An older copy of Redis → what happened since, by the store: after a failover to a replica that lagged behind, or a
snapshot restored.

Part of recover.py, which takes in what was added since: what was deleted since goes, and jobs' records are brought
forward. In: records, those of the store all in Redis. Out: the same in both. Run twice, it changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any

import obstore
from redis.exceptions import WatchError

from lift_config.contract import (
    DOCUMENTS_KEY,
    MANIFEST_FILE,
    JobRecord,
    document_path,
    job_lease_redis_key,
    job_path,
    job_redis_key,
)
from lift_server.bulk import turn_of
from lift_server.records import Records
from lift_server.store import stored_names, unreadable_is_left_alone
from lift_server.writes import write_job

log = logging.getLogger(__name__)

MOST_DROPPED = 10  # or that share of all that there are: more were hardly deleted since, but are out of sight here
DROPPED_SHARE = 0.1


async def catch_up(records: Records) -> None:
    if not await records.are_of_this_store():
        log.error("Redis was filled from another store, so they are not compared: is the right one mounted, and named?")
        return
    await _drop_deleted(records)
    await _bring_forward(records)


async def _drop_deleted(records: Records) -> None:
    """Documents that the store has not: an upload writes there first, and a deletion begins there. Their adapters are
    the janitor's. Redis is asked first: what comes meanwhile is not missing."""
    known: Any = await records.redis.zrange(DOCUMENTS_KEY, 0, -1)
    stored = {name async for names in stored_names(records.store, "documents") for name in names}
    deleted = [document_id for document_id in known if document_id not in stored]
    if len(deleted) > max(MOST_DROPPED, DROPPED_SHARE * len(known)):
        log.error("of the %d documents in Redis the store has %d: none is dropped", len(known), len(stored))
        return
    for document in await records.documents(deleted):
        if document is None or document.is_expired(time.time()):
            continue  # the sweep is at it
        if await records.size_bytes(document_path(document.id)) is None:  # a list may be older than what it lists
            await records.remove(document)
            log.info("%s was deleted after this copy of Redis was made: dropped", document.id)


async def _bring_forward(records: Records) -> None:
    """Only jobs that may be behind are read from the store: there may be thousands."""
    weights = await _weights(records)
    async for job_keys in stored_names(records.store, "jobs"):
        for job in await records.jobs(job_keys):
            if job is not None and (job.unfinished or _adapters(job) != weights[job.key]):
                # WatchError: a worker is on it this moment, so Redis has the newest of it.
                with unreadable_is_left_alone(job_path(job.key)), suppress(WatchError):
                    await _bring_job_forward(records, job.key)


async def _bring_job_forward(records: Records, job_key: str) -> None:
    async with records.transaction(job_redis_key(job_key)) as pipe:
        (known,) = await records.jobs([job_key])
        stored = await records.stored_job(job_key)
        if known is None or stored is None or not await _is_behind(records, known, stored):
            return
        turn = await turn_of(records.redis, stored)
        pipe.multi()  # type: ignore[no-untyped-call]
        write_job(pipe, stored.changed(fence=int(time.time() * 1000)), turn)  # above any claim of before
        pipe.delete(job_lease_redis_key(job_key))
        await pipe.execute()
    log.info("job %s went on after this copy of Redis was made: it is %s", job_key, stored.status.value)


async def _is_behind(records: Records, known: JobRecord, stored: JobRecord) -> bool:
    """Whether `known`, of Redis, is older. A worker writes to Redis first, so the store may be the older one."""
    if not await _has_weights(records, stored):
        return False  # a worker's late write outlived a deletion
    if not await _has_weights(records, known):
        return True  # deleted since, and uploaded again
    if _adapters(known) != _adapters(stored):
        return _adapters(known) < _adapters(stored)
    return known.unfinished and not stored.unfinished and stored.received_s >= known.received_s


async def _has_weights(records: Records, job: JobRecord) -> bool:
    return all([await records.has_weights(adapter_id) for adapter_id in _adapters(job)])


async def _weights(records: Records) -> defaultdict[str, set[str]]:
    """By job: the adapters that are complete in the store."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    async for batch in obstore.list(records.store, "adapters"):
        for entry in batch:
            if entry["path"].endswith(f"/{MANIFEST_FILE}"):
                adapter_id = entry["path"].split("/")[1]
                found[adapter_id.partition("-")[0]].add(adapter_id)
    return found


def _adapters(job: JobRecord) -> set[str]:
    return {adapter.id for adapter in job.adapters}
