"""One subscription to lift:changed for the whole process: questions and events wait here for their document's job.

In: job keys on the channel. Out: `until`, and a callback for every change. A lost message costs RECHECK_S.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from lift_config.contract import CHANGED_CHANNEL, JobRecord
from lift_server.errors import DocumentNotFound, ServerStopping
from lift_server.records import Records

log = logging.getLogger(__name__)

RECHECK_S = 5.0
POLL_S = 1.0
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)

OnChange = Callable[[str], Awaitable[None]]
OnLoss = Callable[[], Awaitable[None]]


class JobWatcher:
    """Run `run` as a task. `on_loss` runs whenever Redis is back after it was away, or was emptied.

    `redis` must not reconnect by itself, or the loss would go unnoticed.
    """

    def __init__(self, redis: Redis, records: Records, on_change: OnChange, on_loss: OnLoss) -> None:
        self._redis = redis
        self._records = records
        self._on_change = on_change
        self._on_loss = on_loss
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._is_stopping = False
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Listen for ever; reconnects with growing pauses."""
        failures = 0
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANGED_CHANNEL)
                    if failures:
                        await self._on_loss()
                    failures = 0
                    self._records.is_behind = False
                    self.subscribed.set()
                    await self._listen(pubsub)
            except Exception as error:  # this loop's edge: whatever broke, the next round begins afresh
                self.subscribed.clear()
                self._records.is_behind = True
                log.warning("lift:changed lost: %s", error, exc_info=not isinstance(error, RedisError))
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1

    async def until(self, job_key: str, done: Callable[[JobRecord], bool], within_s: float) -> JobRecord:
        """The job once it is `done`; DocumentNotFound where it is deleted meanwhile.

        TimeoutError after `within_s`. A deadline of its own, since a timeout around this would be lost where it
        falls into a Redis command: Python 3.11's wait_for, used by redis-py, may swallow the cancellation.
        """
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + within_s
        with self.changes(job_key) as changed:
            while True:
                self.refuse_stopping()
                changed.clear()
                job = await self._records.job(job_key)
                if job is None:
                    raise DocumentNotFound
                if done(job):
                    return job
                if (left_s := deadline_s - clock()) <= 0:
                    raise TimeoutError
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(RECHECK_S, left_s)):
                        await changed.wait()

    @contextmanager
    def changes(self, job_key: str) -> Iterator[asyncio.Event]:
        """Set at every change of the job, or of one of its documents; whoever waits clears it."""
        changed = asyncio.Event()
        self._waiting[job_key].add(changed)
        try:
            yield changed
        finally:
            self._waiting[job_key].discard(changed)
            if not self._waiting[job_key]:
                del self._waiting[job_key]

    def stop(self) -> None:
        """From now on nobody waits: trainings may take hours."""
        self._is_stopping = True
        for waiting in self._waiting.values():
            for changed in waiting:
                changed.set()

    def refuse_stopping(self) -> None:
        if self._is_stopping:
            raise ServerStopping

    async def _listen(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=POLL_S)
            if message is None:
                if not await self._records.are_whole():
                    await self._on_loss()  # emptied without a connection lost. Whoever sends messages needs records
                continue
            job_key = str(message["data"])
            for changed in self._waiting.get(job_key, ()):
                changed.set()
            await self._on_change(job_key)
