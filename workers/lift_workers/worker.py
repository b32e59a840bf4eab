"""One process, one GPU: claims a job, has it trained and published, and sees to it that every claim comes to an end.

In: the queue. Out: jobs that are ready, failed, or back in the queue. The lease is renewed and a cancel noticed
beside the work, so nothing the training child does, hanging included, can keep a job. Streams go before one another:
while a job of a later one is at work, the worker keeps looking for one that goes before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import obstore
from obstore.exceptions import BaseError as StoreError
from obstore.store import ObjectStore
from redis.asyncio import Redis

from lift_config.contract import BULK_STREAM, JOBS_STREAM, REFINE_STREAM, STREAMS, Status
from lift_config.phases import Phase
from lift_config.settings import Settings
from lift_workers import pipeline
from lift_workers.courses import Courses, MakeCourse, Outranked, training_folder
from lift_workers.fence import JobCancelled, LeaseLost
from lift_workers.generator import Generator
from lift_workers.jobs import Claim, JobFailed, Queue
from lift_workers.publish import record_end
from lift_workers.race import first
from lift_workers.trainer import Trainer

if TYPE_CHECKING:
    from lift_workers.tracing import Traces

POLL_S = 1.0  # between two looks for an abandoned job, and between two looks whether the one at hand was cancelled
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # after an error that no job is to blame for
RETRY_AFTER_S = 5.0  # times the attempt; an engine that restarts needs a while
TURN_S = 10.0  # bulk that gave way works so long before it does again, so that it comes to an end
BULK_FIRST = (BULK_STREAM, JOBS_STREAM, REFINE_STREAM)
PROBE = bytes(2**20)  # a full disk still takes an empty object
RELEASE_S = 5.0  # a shutdown waits no longer for Redis

logger = logging.getLogger(__name__)


class Stopping(Exception):
    """This worker is to end."""


class StoreIsOut(Exception):
    """The store takes no object, or the disk no adapter on its way there, whatever job it is of."""


class Worker:
    """`redis` is the control instance, `blobs` the adapters' cache. `make_course` differs in tests and
    benchmarks only."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        redis: Redis,
        blobs: Redis,
        store: ObjectStore,
        generator: Generator,
        trainer: Trainer,
        traces: Traces | None = None,
        make_course: MakeCourse = pipeline.Course,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        self._settings = settings
        self._name = name
        self._queue = Queue(redis, name, settings.worker.lease_s)
        self._store = store
        self._generator = generator
        self._trainer = trainer
        self._traces = traces
        self._courses = Courses(
            settings,
            name,
            self._queue,
            blobs=blobs,
            store=store,
            generator=generator,
            trainer=trainer,
            traces=traces,
            make_course=make_course,
        )
        self._retry_after_s = retry_after_s
        self._beat_s = min(POLL_S, settings.worker.lease_s / 3)
        self._next: Claim | None = None  # claimed, to be seen through once the work at hand has ended
        self._is_store_out = False  # when it was last seen
        self._gave_way: str | None = None  # bulk that did: its job's key, until it has its turn

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then hand back the job at hand. Nothing else ends this."""
        pause_s = FIRST_PAUSE_S
        while not stop.is_set():
            try:
                await self._turn(stop, POLL_S)
                pause_s = FIRST_PAUSE_S
            except Stopping:
                break
            except Exception:
                logger.exception("worker %s: pausing for %g s", self._name, pause_s)
                await _pause(stop, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        await self._trainer.kill()
        await self._queue.close()
        if self._next:
            await self._hand_back(self._next)

    async def run_until_idle(self) -> None:
        """Work off what can be claimed now."""
        while await self._turn(asyncio.Event(), block_s=None):
            pass
        await self._trainer.kill()
        await self._queue.close()

    async def _turn(self, stop: asyncio.Event, block_s: float | None) -> bool:
        """Claim a job and see it through; False where there was none within `block_s`."""
        if self._next is None:
            await self._look_when_able(stop, block_s)
        claim, self._next = self._next, None
        if claim is None:
            return False
        if self._trainer.running:
            await self._see_through(claim, stop)
        else:  # what it outranked took the child with it: whoever has one is to go on, here not with that job again
            self._gave_way = None
            await self._hand_back(claim)
        return True

    async def _look_when_able(self, stop: asyncio.Event, block_s: float | None) -> None:
        """Store, engine and child are up before a job is claimed, so that one that is away costs no job an attempt;
        the engine before the child, which measures the GPU's free memory."""
        if self._is_store_out:
            await first(self._check_store(), _stopped(stop))
        await first(self._generator.until_up(), _stopped(stop))
        if not self._trainer.running:
            await first(self._trainer.start(), _stopped(stop))
        await first(self._look(BULK_FIRST if self._gave_way else STREAMS), _stopped(stop))
        if self._next is None and block_s is not None:
            await first(self._queue.wait(block_s), _stopped(stop))
            await first(self._look(STREAMS), _stopped(stop))

    async def _look(self, streams: Sequence[str]) -> None:
        """`_next`, where the queue has one. A cancellation waits for the answer: a claim made is never lost."""
        looking = asyncio.ensure_future(self._queue.claim(streams))
        cancelled: asyncio.CancelledError | None = None
        while not looking.done():
            try:
                await asyncio.shield(looking)
            except asyncio.CancelledError as error:
                cancelled = error
        self._next = looking.result()
        if cancelled:
            raise cancelled

    async def _see_through(self, claim: Claim, stop: asyncio.Event) -> None:
        """One claim's whole life in this worker: a version, a failure, to be tried again, or let go."""
        key = claim.job.key
        logger.info("job %s: claimed, attempt %d", key, claim.attempt)
        try:
            await self._attempt(claim, stop)
        except JobCancelled:
            logger.info("job %s: cancelled", key)
            await claim.drop()
        except LeaseLost as lost:
            logger.warning("%s", lost)  # its entry is another worker's business now
        except (Stopping, StoreIsOut) as reason:
            logger.info("job %s: back to the queue: %r", key, reason)
            await self._hand_back(claim)
            raise

    async def _hand_back(self, claim: Claim) -> None:
        """To the queue, at no cost to the job."""
        try:
            async with asyncio.timeout(RELEASE_S):
                await claim.release(is_attempt=False)
        except (TimeoutError, JobCancelled, LeaseLost) as error:
            logger.warning("job %s: not handed back: %r", claim.job.key, error)

    async def _attempt(self, claim: Claim, stop: asyncio.Event) -> None:
        """Train and publish; whatever goes wrong with it, the job's owner gets an answer."""
        try:
            if claim.attempt > self._settings.worker.max_attempts:  # its workers died with it, none could say why
                raise JobFailed("too_many_attempts", "Every attempt at training it ended a worker.", retry=True)
            await self._work(claim, stop)
        except JobFailed as failed:
            if failed.retry:  # a child that died of a full disk, say, or a job that stalled with the store
                await self._check_store()
            await self._retry_or_fail(claim, failed)
        except (JobCancelled, LeaseLost, Stopping):
            raise
        except Exception as error:  # the worker loop's edge
            logger.exception("job %s: internal error", claim.job.key)
            if isinstance(error, StoreError | OSError):  # TimeoutError is one of these
                await self._check_store()
            reason = "Training failed for an internal reason; the worker's log has it."
            await self._retry_or_fail(claim, JobFailed("internal_error", reason, retry=True))

    async def _check_store(self) -> None:
        """StoreIsOut where it is; returns where only one job's objects can be to blame. Well within a lease."""
        path = f"workers/{self._name}"
        try:
            async with asyncio.timeout(self._settings.worker.lease_s / 2):
                await obstore.put_async(self._store, path, PROBE)
                await obstore.delete_async(self._store, path)
                await asyncio.to_thread(self._check_disk)
        except (StoreError, OSError) as error:  # TimeoutError is one of these
            self._is_store_out = True
            raise StoreIsOut from error
        self._is_store_out = False

    def _check_disk(self) -> None:
        folder = training_folder(self._settings, self._name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "probe").write_bytes(PROBE)
        (folder / "probe").unlink()

    async def _work(self, claim: Claim, stop: asyncio.Event) -> None:
        """The work, with the lease kept beside it. The child is used again only where the work came to rest; else it
        is killed, whatever it is doing, before anything is said about the job."""
        try:
            await first(
                self._courses.work(claim, partial(self._outranked, claim)), self._keep_lease(claim), _stopped(stop)
            )
        except BaseException:
            await self._trainer.kill()
            raise

    async def _outranked(self, claim: Claim) -> NoReturn:
        """Wait until a job that goes before `claim` is in this worker's hands."""
        is_its_turn, self._gave_way = claim.job.key == self._gave_way, None
        if is_its_turn:
            await asyncio.sleep(TURN_S)
        while self._next is None:
            await self._look(claim.outranked_by)
            if self._next is None:
                await self._queue.wait(POLL_S)
        if claim.stream == BULK_STREAM:
            self._gave_way = claim.job.key
        raise Outranked

    async def _keep_lease(self, claim: Claim) -> NoReturn:
        """Renew the lease until the job is lost, cancelled or has not moved for `stall_s`. Ends only by raising."""
        stall_s = self._settings.worker.stall_s
        while claim.silent_s < stall_s:
            await asyncio.sleep(self._beat_s)
            await claim.heartbeat()
        raise JobFailed("stalled", f"Training made no progress for {stall_s:g} s.", retry=True)

    async def _retry_or_fail(self, claim: Claim, failed: JobFailed) -> None:
        """A job that has a version stays ready, whatever became of its refinement."""
        job = claim.job
        logger.warning("job %s: attempt %d failed, %s", job.key, claim.attempt, failed)
        if claim.has_ended:  # its version is there; what failed came after it
            return
        if failed.retry and claim.attempt < self._settings.worker.max_attempts:
            await claim.release(after_s=self._retry_after_s * claim.attempt)
            return
        if Phase.REFINE in job.timeline.spans:
            job.timeline.end(Phase.REFINE)
        status = Status.READY if job.status is Status.READY else Status.FAILED
        attempts = min(claim.attempt, self._settings.worker.max_attempts) if failed.retry else 0
        error = replace(failed.failure, attempts=attempts, failed_s=time.time())
        job = job.changed(status=status, unfinished=False, error=error)
        await record_end(claim, job, self._store)
        if self._traces:
            self._traces.failed(job)


async def _stopped(stop: asyncio.Event) -> NoReturn:
    await stop.wait()
    raise Stopping


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, unless `stop` comes."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
