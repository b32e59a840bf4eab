"""Documents and jobs as they lie in Redis and in the store; every write that must be atomic is here.

In: records. Out: records. The store is written before Redis, so Redis can always be rebuilt from it; what a deletion
leaves undone when it is cut off has expired.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import obstore
from obstore.exceptions import BaseError as StoreError
from obstore.store import ObjectStore
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError, WatchError

from lift_config.contract import (
    CHANGED_CHANNEL,
    DEAD_LETTERS_KEY,
    DOCUMENTS_KEY,
    JOB_FIELD,
    JOBS_STREAM,
    MANIFEST_FILE,
    PROBE_PATH,
    STORE_KEY,
    WHOLE_KEY,
    DocumentRecord,
    JobRecord,
    LearningRecord,
    Status,
    adapter_path,
    document_path,
    document_redis_key,
    job_documents_redis_key,
    job_learning_redis_key,
    job_lease_redis_key,
    job_path,
    job_redis_key,
    original_path,
    owner_redis_key,
    places_path,
    sets_redis_key,
    text_path,
    turns_redis_key,
)
from lift_server import registry
from lift_server.bulk import in_line, leave_turns, take_out, turn_of, turns_of, waiting
from lift_server.convert.clean import Places
from lift_server.convert.converter import Converted
from lift_server.errors import ApiError, DocumentNotFound, StorageUnavailable, StoreUnavailable, refusal
from lift_server.locks import LocalLocks, Locks
from lift_server.pool import Transactions
from lift_server.quota import Quota
from lift_server.store import WritesInOrder, in_time, store_id
from lift_server.writes import taken_up, wanted, write_document, write_job

PROBE_BYTES = 2**20
CANCELLED = ("status", "unfinished", "timeline")  # what a cancel writes


class Records:
    """`redis` is the control instance, with decoded responses."""

    def __init__(self, redis: Redis, store: ObjectStore) -> None:
        self.redis = redis
        self.store = store
        self.transaction = Transactions(redis)
        # Of a job's key: over an upload's and a removal's several writes, so that neither undoes the other's.
        self.lock = Locks(redis)
        self._local = LocalLocks()
        self._write_in_order = WritesInOrder()
        # The connection to Redis was lost: until recover.py has compared, this may be an older copy, which lacks users.
        self.is_behind = False
        # Whether the store took the last write: a read-only one answers questions, and takes no uploads.
        self.are_stored = True

    # ---- reading ----

    async def document(self, document_id: str) -> DocumentRecord | None:
        """StorageUnavailable where Redis has lost its data and is not filled again yet: nothing is missing for sure."""
        fields = await self._whole(lambda pipe: pipe.hgetall(document_redis_key(document_id)))
        return DocumentRecord.from_redis(fields) if fields else None

    async def documents(self, document_ids: Iterable[str]) -> list[DocumentRecord | None]:
        hashes = await self._hashes(document_redis_key(document_id) for document_id in document_ids)
        return [DocumentRecord.from_redis(fields) if fields else None for fields in hashes]

    async def job(self, job_key: str) -> JobRecord | None:
        """StorageUnavailable as in `document`."""
        fields = await self._whole(lambda pipe: pipe.hgetall(job_redis_key(job_key)))
        return JobRecord.from_redis(fields) if fields else None

    async def jobs(self, job_keys: Iterable[str]) -> list[JobRecord | None]:
        hashes = await self._hashes(job_redis_key(job_key) for job_key in job_keys)
        return [JobRecord.from_redis(fields) if fields else None for fields in hashes]

    async def ids(self, owner: str | None, *, start: int, count: int, newest_first: bool) -> list[str]:
        """Ids of the owner's documents, None: everybody's, by time of upload. StorageUnavailable as in `document`."""
        key = DOCUMENTS_KEY if owner is None else owner_redis_key(owner)
        found = await self._whole(lambda pipe: pipe.zrange(key, start, start + count - 1, desc=newest_first))
        return [str(member) for member in found]

    async def rank(self, owner: str, document_id: str, *, newest_first: bool) -> int | None:
        ask = self.redis.zrevrank if newest_first else self.redis.zrank
        found: Any = await ask(owner_redis_key(owner), document_id)
        return None if found is None else int(found)

    async def stored_job(self, job_key: str) -> JobRecord | None:
        return None if (content := await self.read(job_path(job_key))) is None else JobRecord.from_json(content)

    async def are_whole(self) -> bool:
        """Whether Redis has all that the store has (recover.py)."""
        return bool(await self.redis.exists(WHOLE_KEY))

    async def are_of_this_store(self) -> bool:
        """Whether Redis was filled from this store, and not from another, of which this one knows nothing."""
        own = await store_id(self.store)
        if not await self.redis.exists(STORE_KEY):
            await self.redis.set(STORE_KEY, own, nx=True)
        return bool(await self.redis.get(STORE_KEY) == own)

    async def learning(self, job_key: str) -> LearningRecord:
        """Empty where a worker has told nothing yet, or Redis was lost: the store does not have it."""
        found = await self.redis.get(job_learning_redis_key(job_key))
        return LearningRecord.from_json(found) if found else LearningRecord()

    async def text(self, job_key: str) -> str | None:
        return None if (content := await self.read(text_path(job_key))) is None else content.decode()

    async def places(self, job_key: str) -> Places:
        found: Places = json.loads(await self.read(places_path(job_key)) or b"{}")
        return found

    async def users(self, job_key: str) -> set[str]:
        """The ids of the documents that share this job."""
        return {str(one) for one in await self.redis.smembers(job_documents_redis_key(job_key))}

    async def sets_of(self, *document_ids: str) -> list[DocumentRecord]:
        """The sets that have all of these in them. StorageUnavailable as in `document`."""
        found = await self._whole(lambda pipe: pipe.sinter([sets_redis_key(one) for one in document_ids]))
        return [one for one in await self.documents(sorted(found)) if one is not None]

    async def queued(self, *streams: str, most: int | None = None) -> list[str]:
        """The keys of the jobs in these streams, or with a turn there, in order, the first `most` of each; a claimed
        entry stays until it is done."""
        return [key for stream in streams for key in (await self._queued(stream, most))[:most]]

    async def _queued(self, stream: str, most: int | None) -> list[str]:
        # Turns first: what a worker takes meanwhile is there twice, and never missing.
        turns: Any = await self.redis.zrange(turns_redis_key(stream), 0, most - 1 if most else -1)
        entries = await self.redis.xrange(stream, count=most) or []
        return [str(fields.get(JOB_FIELD)) for _, fields in entries if fields] + [str(key) for key in turns]

    async def now_s(self) -> float:
        """By Redis's clock."""
        seconds, microseconds = await self.redis.time()
        return float(seconds + microseconds / 1e6)

    async def workers(self) -> int:
        """How many hold a lease."""
        return len(await registry.workers(self.redis))

    async def read(self, path: str) -> bytes | None:
        """An object of the store; None where there is none."""
        try:
            async with in_time():
                return bytes(await (await obstore.get_async(self.store, path)).bytes_async())
        except FileNotFoundError:
            return None

    async def size_bytes(self, path: str) -> int | None:
        """Of an object of the store; None where there is none."""
        try:
            async with in_time():
                return (await obstore.head_async(self.store, path))["size"]
        except FileNotFoundError:
            return None

    async def has_weights(self, adapter_id: str) -> bool:
        """Whether the store has them, complete."""
        return await self.size_bytes(adapter_path(adapter_id, MANIFEST_FILE)) is not None

    async def _whole(self, command: Callable[[Pipeline], object]) -> Any:
        """The command's reply. That Redis is whole is asked first: what is missing in the reply is nowhere then."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.exists(WHOLE_KEY)
            command(pipe)
            is_whole, found = await pipe.execute()
        if not is_whole:
            raise StorageUnavailable
        return found

    async def _hashes(self, keys: Iterable[str]) -> list[dict[str, str]]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            hashes: list[dict[str, str]] = await pipe.execute()
        return hashes

    # ---- writing ----

    async def put(self, path: str, content: bytes) -> None:
        """Write an object of the store."""
        try:
            await self._write_in_order(path, lambda: obstore.put_async(self.store, path, content))
        except (StoreError, StoreUnavailable):
            self.are_stored = False
            raise
        self.are_stored = True

    async def try_to_write(self) -> None:
        """Where the last write failed: whether another does. Not with an empty object: a full disk takes those."""
        if not self.are_stored:
            await self.put(PROBE_PATH, bytes(PROBE_BYTES))
            await self.discard(PROBE_PATH)

    async def store_job(self, job: JobRecord) -> None:
        await self.put(job_path(job.key), job.to_json().encode())

    async def add(
        self, document: DocumentRecord, fresh: JobRecord, content: bytes, converted: Converted, quota: Quota
    ) -> JobRecord:
        """Take in a document. Its job is `fresh` where its content is new, else the one there is, which is
        put into the queue again where its training, or the refinement after it, had failed or been cancelled."""
        async with self.lock(fresh.key):
            try:
                await self.put(original_path(document.id), content)
                await self.put(text_path(fresh.key), converted.text.encode())
                if converted.places:
                    await self.put(places_path(fresh.key), json.dumps(converted.places).encode())
                await self.put(document_path(document.id), document.to_json().encode())
                while True:
                    with suppress(WatchError):  # the job, or what the owner has, changed meanwhile: look again
                        return await self._add_to_redis(document, fresh, quota)
            except StoreUnavailable:
                raise  # it did not answer: what of a new document it took after all is the janitor's
            except (ApiError, ResponseError, StoreError) as error:  # quota, a set without its document, Redis, a disk
                if not isinstance(error, ResponseError) or refusal(error):  # else some of it may have been written
                    await self._take_back(document)
                raise

    async def _take_back(self, document: DocumentRecord) -> None:
        """What `add` stored, refused. StorageUnavailable where Redis cannot tell whether other documents share the job,
        which then stays."""
        await self._discard_all(document, is_last=False)
        job = await self.job(document.job_key)
        if job is None:
            await self._discard_all(document, is_last=True)
        elif not job.unfinished:
            await self.store_job(job)  # it may have been stored as taken up again

    async def add_again(self, fresh: JobRecord, quota: Quota) -> JobRecord:
        """As another upload of a document that is there, which stays the one there is."""
        async with self.lock(fresh.key):
            while True:
                with suppress(WatchError):
                    return await self._add_to_redis(None, fresh, quota)

    async def _add_to_redis(self, document: DocumentRecord | None, fresh: JobRecord, quota: Quota) -> JobRecord:
        members = map(document_redis_key, document.document_ids if document else ())
        watched = (job_redis_key(fresh.key), quota.watched, *turns_of(fresh.owner), *members)
        async with self._one_of(fresh.owner), self.transaction(*watched) as pipe:
            known = await self.job(fresh.key)
            if document:
                await self._check_members(document)
                if not await self.redis.exists(document_redis_key(document.id)):  # else it was written, unheard
                    await quota.keep(document.size_bytes)
            elif not known:
                raise DocumentNotFound  # deleted this moment
            job = taken_up(await self._sound(known or await self.stored_job(fresh.key)) or fresh, fresh)
            if job.unfinished and not (known and known.unfinished):
                await quota.train()
                job = await in_line(self.redis, job)
            turn = await turn_of(self.redis, job)
            if job is not known:
                await self.store_job(job)
            pipe.multi()  # type: ignore[no-untyped-call]
            if document:
                write_document(pipe, document)
            if job is not known:
                write_job(pipe, job, turn)
            await pipe.execute()
        return job

    async def _check_members(self, document: DocumentRecord) -> None:
        """DocumentNotFound where a set would outlive one of its documents."""
        for member_id in document.document_ids:
            member = await self.document(member_id)
            if member is None or member.is_expired(time.time()):
                raise DocumentNotFound("document_ids")

    async def _sound(self, job: JobRecord | None) -> JobRecord | None:
        """The job, but not without its weights: a worker's late write may outlive a deletion, or weights be lost."""
        if job is None or job.status is not Status.READY:
            return job
        best = job.best()
        return job if best and await self.has_weights(best.id) else None

    async def want(self, job_key: str, recipe: str, received_s: float) -> JobRecord | None:
        """The job, taken up again for a version of `recipe`; as urgent as a first version, since somebody waits.
        One that is at work is left alone; a refinement that waits is done first."""
        async with self.lock(job_key):
            while True:
                with suppress(WatchError):
                    return await self._want_in_redis(job_key, recipe, received_s)

    async def _want_in_redis(self, job_key: str, recipe: str, received_s: float) -> JobRecord | None:
        async with self.transaction(job_redis_key(job_key), job_lease_redis_key(job_key)) as pipe:
            job = await self.job(job_key)
            if job is None or job.status is not Status.READY or job.version_of(recipe):
                return job
            if not job.unfinished:
                job = wanted(job, job.changed(recipe=recipe, received_s=received_s))
                await self.store_job(job)
            elif await self.redis.exists(job_lease_redis_key(job_key)) or job_key in await self.queued(JOBS_STREAM):
                return job  # a worker has it, or will soon
            pipe.multi()  # type: ignore[no-untyped-call]
            leave_turns(pipe, job)
            write_job(pipe, job, stream=JOBS_STREAM)
            await pipe.execute()
        return job

    async def cancel(self, document: DocumentRecord) -> JobRecord | None:
        """The document's job, its training ended where there was any; the worker reads of it on lift:changed.

        With a version it stays ready: only what was to come is cancelled.
        """
        job_key = document.job_key
        async with self.lock(job_key):
            has_lost = False
            while True:
                try:
                    job = await self._cancel_in_redis(job_key, document.owner)
                    break
                except WatchError:  # a worker was quicker
                    has_lost = True
                except ResponseError:  # Redis takes no writes
                    await self._take_cancel_back(job_key)
                    raise
            if has_lost:
                await self._take_cancel_back(job_key)
        return job

    async def _take_cancel_back(self, job_key: str) -> None:
        """Out of the store, which had it before Redis: there the job is as it is."""
        if job := await self.job(job_key):
            await self.store_job(job)

    async def _cancel_in_redis(self, job_key: str, owner: str) -> JobRecord | None:
        watched = (job_redis_key(job_key), *turns_of(owner))
        async with self._one_of(owner), self.transaction(*watched) as pipe:
            job = await self.job(job_key)
            if job is None or not job.unfinished:
                return job
            place = await waiting(self.redis, job)
            for phase in job.timeline.spans:
                if job.timeline.seconds(phase) is None:
                    job.timeline.end(phase)
            job = job.changed(status=Status.READY if job.adapters else Status.CANCELLED, unfinished=False)
            await self.store_job(job)
            pipe.multi()  # type: ignore[no-untyped-call]
            take_out(pipe, job, place)
            values = job.to_redis()
            pipe.hset(job_redis_key(job_key), mapping={name: values[name] for name in CANCELLED})
            pipe.delete(job_lease_redis_key(job_key))  # a claim not let go yet must not keep the next one off
            pipe.publish(CHANGED_CHANNEL, job_key)
            await pipe.execute()
        return job

    @asynccontextmanager
    async def _one_of(self, owner: str) -> AsyncIterator[None]:
        """One at a time of what changes an owner's lists: each change makes those that look at them look again.
        StoreUnavailable where what goes before waits for the store too long."""
        lock = self._local(owner)
        async with in_time():
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()

    async def expire(self, document: DocumentRecord) -> None:
        """Before anything of it is removed: the sweep ends what is cut off from here on, and no set is made of it."""
        async with self.redis.pipeline() as pipe:
            write_document(pipe, replace(document, expires_s=0.0))
            await pipe.execute()

    async def remove(self, document: DocumentRecord) -> JobRecord | None:
        """Forget a document that is expired; its job, text and record too where no other document uses them.

        Returns the job that went. Its adapters are left: they may still be answering (hotload.py).
        """
        async with self.lock(document.job_key):
            await self.discard(document_path(document.id))
            while True:
                with suppress(WatchError):
                    job = await self._remove_from_redis(document)
                    break
            await self._discard_all(document, is_last=job is not None)
        return job

    async def _remove_from_redis(self, document: DocumentRecord) -> JobRecord | None:
        job_key, users_key = document.job_key, job_documents_redis_key(document.job_key)
        watched = (users_key, job_redis_key(job_key), *turns_of(document.owner))
        async with self._one_of(document.owner), self.transaction(*watched) as pipe:
            is_last = not await self.users(job_key) - {document.id}
            job = await self.job(job_key) if is_last else None
            place = await waiting(self.redis, job) if job else None
            pipe.multi()  # type: ignore[no-untyped-call]
            if job and place:
                take_out(pipe, job, place)
            pipe.delete(document_redis_key(document.id))
            pipe.zrem(DOCUMENTS_KEY, document.id)
            pipe.zrem(owner_redis_key(document.owner), document.id)
            pipe.srem(users_key, document.id)
            pipe.delete(sets_redis_key(document.id))
            for member_id in document.document_ids:
                pipe.srem(sets_redis_key(member_id), document.id)
            if is_last:
                pipe.delete(job_redis_key(job_key), job_learning_redis_key(job_key))
                pipe.zrem(DEAD_LETTERS_KEY, job_key)
            pipe.publish(CHANGED_CHANNEL, job_key)  # a worker on it finds no record, and stops
            await pipe.execute()
        return job

    async def _discard_all(self, document: DocumentRecord, *, is_last: bool) -> None:
        """`is_last`: no other document uses its job; what is left where that is not sure is the janitor's."""
        is_last = is_last and not self.is_behind
        of_job = [path(document.job_key) for path in (text_path, places_path, job_path)] if is_last else []
        for path in (document_path(document.id), original_path(document.id), *of_job):
            await self.discard(path)

    async def discard(self, path: str) -> None:
        """Delete from the store; nothing happens where it is gone already."""
        with suppress(FileNotFoundError):
            await self._write_in_order(path, lambda: obstore.delete_async(self.store, path))
