"""One process, one GPU: claims a job, has it trained and published, and sees to it that every claim comes to an end.

In: the queue. Out: jobs that are ready, failed, or back in the queue. The lease is renewed and a cancel noticed
beside the work, so nothing the training child does, hanging included, can keep a job.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import obstore
from obstore.store import ObjectStore
from redis.asyncio import Redis

from lift_config.contract import JobRecord, Status, text_path
from lift_config.recipe import Recipe, load_recipes
from lift_config.settings import Settings
from lift_workers import pipeline
from lift_workers.jobs import Claim, JobCancelled, JobFailed, LeaseLost, Queue, Report
from lift_workers.publish import publish, record_end
from lift_workers.synthesize import Generator
from lift_workers.trainer import Trainer

POLL_S = 1.0  # between two looks for a job, and between two looks whether the job at hand was cancelled
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # after an error that no job is to blame for
RETRY_AFTER_S = 5.0  # times the attempt; an engine that restarts needs a while
CANCEL_AGAIN_S = 5.0  # more than an orderly end of a cancelled task takes
RELEASE_S = 5.0  # a shutdown waits no longer for Redis

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Pipeline(Protocol):
    """`pipeline.run`: trains `job` on `text` and leaves ADAPTER_FILES in `folder`."""

    async def __call__(
        self,
        job: JobRecord,
        text: str,
        *,
        recipe: Recipe,
        generator: Generator,
        trainer: Trainer,
        folder: Path,
        report: Report,
    ) -> None: ...


class Stopping(Exception):
    """This worker is to end."""


class Worker:
    """`redis` is the control instance, `blobs` the adapters' cache. `run_pipeline` differs in tests only."""

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
        run_pipeline: Pipeline = pipeline.run,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        self._settings = settings
        self._name = name
        self._queue = Queue(redis, name, settings.worker.lease_s)
        self._blobs = blobs
        self._store = store
        self._generator = generator
        self._trainer = trainer
        self._run_pipeline = run_pipeline
        self._retry_after_s = retry_after_s
        self._beat_s = min(POLL_S, settings.worker.lease_s / 3)

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

    async def run_until_idle(self) -> None:
        """Work off what can be claimed now."""
        while await self._turn(asyncio.Event(), block_s=None):
            pass
        await self._trainer.kill()

    async def _turn(self, stop: asyncio.Event, block_s: float | None) -> bool:
        """Claim a job and see it through; False where there was none. Engine and child are up before, so that one
        that cannot start costs no job an attempt; the engine first, which measures the GPU's free memory."""
        await _first(self._generator.until_up(), _stopped(stop))
        if not self._trainer.running:
            await _first(self._trainer.start(), _stopped(stop))
        claim = await _first(self._queue.claim(block_s), _stopped(stop))
        if claim is None:
            return False
        await self._see_through(claim, stop)
        return True

    async def _see_through(self, claim: Claim, stop: asyncio.Event) -> None:
        """One job's whole life in this worker: ready, failed, to be tried again, or let go."""
        key = claim.job.key
        logger.info("job %s: claimed, attempt %d", key, claim.attempt)
        try:
            await self._attempt(claim, stop)
        except JobCancelled:
            logger.info("job %s: cancelled", key)
            await claim.drop()
        except LeaseLost as lost:
            logger.warning("%s", lost)  # its entry is another worker's business now
        except Stopping:
            logger.info("job %s: back to the queue, this worker ends", key)
            async with asyncio.timeout(RELEASE_S):
                await claim.release(is_attempt=False)
            raise

    async def _attempt(self, claim: Claim, stop: asyncio.Event) -> None:
        """Train and publish; whatever goes wrong with it, the job's owner gets an answer."""
        try:
            if claim.attempt > self._settings.worker.max_attempts:  # its workers died with it, none could say why
                raise JobFailed("too_many_attempts", "Every attempt at training it ended a worker.", retry=True)
            await self._work(claim, stop)
        except JobFailed as failed:
            await self._retry_or_fail(claim, failed)
        except (JobCancelled, LeaseLost, Stopping):
            raise
        except Exception:  # the worker loop's edge
            logger.exception("job %s: internal error", claim.job.key)
            reason = "Training failed for an internal reason; the worker's log has it."
            await self._retry_or_fail(claim, JobFailed("internal_error", reason, retry=True))

    async def _work(self, claim: Claim, stop: asyncio.Event) -> None:
        """The work, with the lease kept beside it. The child is used again only after a success; else it is
        killed, whatever it is doing, before anything is said about the job."""
        try:
            await _first(self._train_and_publish(claim), self._keep_lease(claim), _stopped(stop))
        except BaseException:
            await self._trainer.kill()
            raise
        logger.info("job %s: ready as %s", claim.job.key, claim.job.adapters[-1].id)

    async def _train_and_publish(self, claim: Claim) -> None:
        job, settings = claim.job, self._settings
        recipe = load_recipes().get(job.recipe)
        if recipe is None:
            raise JobFailed("unknown_recipe", f"This worker knows no recipe {job.recipe!r}.")
        folder = self._fresh_folder()
        try:
            await self._run_pipeline(
                job,
                await self._text(job),
                recipe=recipe,
                generator=self._generator,
                trainer=self._trainer,
                folder=folder,
                report=claim.report,
            )
            ttl_s = settings.redis.blob_ttl_s
            await publish(claim, claim.job, recipe, folder, blobs=self._blobs, store=self._store, blob_ttl_s=ttl_s)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _text(self, job: JobRecord) -> str:
        try:
            found = await obstore.get_async(self._store, text_path(job.key))
        except FileNotFoundError as error:
            raise JobFailed("text_missing", "The document's text is no longer stored.") from error
        return bytes(await found.bytes_async()).decode()

    def _fresh_folder(self) -> Path:
        """Empty, below `home` (adapters may be larger than /tmp); what a killed worker left there goes."""
        parent = self._settings.home.resolve() / "training" / self._name
        shutil.rmtree(parent, ignore_errors=True)
        parent.mkdir(parents=True)
        return Path(tempfile.mkdtemp(dir=parent))

    async def _keep_lease(self, claim: Claim) -> NoReturn:
        """Renew the lease until the job is lost, cancelled or has not moved for `stall_s`. Ends only by raising."""
        stall_s = self._settings.worker.stall_s
        while claim.silent_s < stall_s:
            await asyncio.sleep(self._beat_s)
            await claim.heartbeat()
        raise JobFailed("stalled", f"Training made no progress for {stall_s:g} s.", retry=True)

    async def _retry_or_fail(self, claim: Claim, failed: JobFailed) -> None:
        logger.warning("job %s: attempt %d failed, %s", claim.job.key, claim.attempt, failed)
        if failed.retry and claim.attempt < self._settings.worker.max_attempts:
            await claim.release(after_s=self._retry_after_s * claim.attempt)
        else:
            job = claim.job.changed(status=Status.FAILED, error=failed.failure)
            await record_end(claim, job, self._store, dead_letter=failed.retry)


async def _first(*works: Coroutine[Any, Any, T]) -> T:
    """Run all until one ends, and cancel the others; its result, or its exception.

    Cancels again what has not ended: redis-py waits with `wait_for`, which in Python 3.11 may swallow a cancellation.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        while unfinished := [task for task in tasks if not task.done()]:
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished, timeout=CANCEL_AGAIN_S)
        await asyncio.gather(*tasks, return_exceptions=True)


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
