"""Adapters kept where they are for as long as questions need them, loaded before the first, removed once none does.

A missing adapter folder kills vLLM (engine-facts.md, 0.1), hence the order of a removal: routing stops, the
questions in flight end, the engine drops it, then the durable and the cached copy go.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager

from redis.asyncio import Redis

from lift_config.contract import (
    ADAPTER_FILES,
    MANIFEST_FILE,
    AdapterState,
    JobRecord,
    adapter_path,
    adapter_redis_key,
)
from lift_server.engine import Engine
from lift_server.errors import ApiError, DocumentNotFound
from lift_server.metrics import Metrics
from lift_server.records import Records

log = logging.getLogger(__name__)

REMOVAL_S = 10.0  # a deletion answers after so long at most; the removal itself waits for the last question


class Hotload:
    """`blobs` is the Redis that holds adapters. Questions in flight are counted per server process."""

    def __init__(self, engine: Engine, records: Records, blobs: Redis, metrics: Metrics) -> None:
        self._engine = engine
        self._records = records
        self._blobs = blobs
        self._metrics = metrics
        self._published: dict[str, int] = {}  # of jobs seen at work: how many versions they had
        self._in_flight: Counter[str] = Counter()
        self._ended = asyncio.Event()  # set, and replaced, when an adapter is no longer in flight
        self._removing: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def in_use(self, adapter_id: str) -> Iterator[None]:
        """The adapter is not removed while the block lasts."""
        if adapter_id in self._removing:
            raise DocumentNotFound
        self._in_flight[adapter_id] += 1
        try:
            yield
        finally:
            self._in_flight[adapter_id] -= 1
            if not self._in_flight[adapter_id]:
                del self._in_flight[adapter_id]
                self._ended.set()
                self._ended = asyncio.Event()

    def is_in_use(self, adapter_id: str) -> bool:
        """Whether a question is being answered from it here, or it is being removed."""
        return adapter_id in self._in_flight or adapter_id in self._removing

    async def job_changed(self, job_key: str) -> JobRecord | None:
        """Load a just published version before it is asked for; that goes on in the background. Returns the job."""
        job = await self._records.job(job_key)
        known = self._published.pop(job_key, None)
        if job is not None:
            for adapter in job.adapters[len(job.adapters) if known is None else known :]:
                self._metrics.published(job, adapter)
                self._start(self._prefetch(adapter.id))
        if job is not None and job.unfinished:
            self._published[job_key] = len(job.adapters)
        else:
            self._metrics.forget(job_key)
        return job

    async def remove(self, job: JobRecord) -> None:
        """Remove a deleted job's adapters. Waits REMOVAL_S at most; goes on in the background."""
        removals = [self._start(self._remove(job.key, adapter.id)) for adapter in job.adapters]
        if removals:
            await asyncio.wait(removals, timeout=REMOVAL_S)

    async def reach_blobs(self) -> bool:
        """RedisError where the Redis of adapters is away, which is another one than that of records, or the same."""
        await self._blobs.ping()
        return True

    async def close(self) -> None:
        """Drop what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("background work failed", exc_info=error)

    async def _prefetch(self, adapter_id: str) -> None:
        """Not before a slot is free of questions: it would take the place of an adapter that answers."""

        async def load(url: str) -> AdapterState:
            slots = await self._engine.slots(url)
            while len([one for one in self._in_flight if self._engine.home(one) == url]) >= slots:
                await self._ended.wait()
            with self.in_use(adapter_id):
                return await self._engine.load(url, adapter_id)

        try:
            state = await self._engine.somewhere(adapter_id, load)
            log.info("adapter %s prefetched (%s)", adapter_id, state.value)
        except ApiError as error:
            log.warning("adapter %s was not prefetched: %s", adapter_id, error.message)

    async def _remove(self, job_key: str, adapter_id: str) -> None:
        self._removing.add(adapter_id)
        try:
            while self._in_flight[adapter_id]:
                await self._ended.wait()
            await self._erase(job_key, adapter_id)
        finally:
            self._removing.discard(adapter_id)

    async def _erase(self, job_key: str, adapter_id: str) -> None:
        async with self._records.lock(job_key):
            if await self._records.job(job_key) is not None:
                return  # the same content was uploaded again meanwhile, and may publish under this very id
            try:
                await self._engine.remove(adapter_id)
            except ApiError as error:
                log.warning("adapter %s was not removed from every engine: %s", adapter_id, error.message)
            for name in (MANIFEST_FILE, *ADAPTER_FILES):
                await self._records.discard(adapter_path(adapter_id, name))
            await self._blobs.unlink(adapter_redis_key(adapter_id))  # last: it may be away, and is the janitor's then
        log.info("adapter %s removed", adapter_id)
