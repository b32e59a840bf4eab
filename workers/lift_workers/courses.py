"""A claim's work: stage after stage trained and published, and courses put aside for jobs that go before them.

In: a claim. Out: a version, or more, and the claim ended; how long each took goes to the server's estimates. A course
put aside is resumed where it stopped when its job is claimed again; losing it costs a training from the start.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import obstore
from obstore.store import ObjectStore
from redis.asyncio import Redis

from lift_config.contract import JobRecord, Speed, text_path
from lift_config.recipe import Recipe, load_recipes
from lift_config.settings import Settings
from lift_workers.generator import Generator
from lift_workers.jobs import Claim, JobFailed, Queue, Report
from lift_workers.publish import publish
from lift_workers.race import first
from lift_workers.trainer import Trainer

if TYPE_CHECKING:
    from lift_workers.tracing import Traces

KEPT_COURSES = 8  # as many as the child keeps sessions

logger = logging.getLogger(__name__)


class Course(Protocol):
    """`pipeline.Course`: one document's training, a stage at a time."""

    @property
    def done(self) -> bool: ...
    async def stage(self, job: JobRecord, folder: Path, report: Report) -> Recipe: ...
    async def put_aside(self) -> None: ...


MakeCourse = Callable[[str, Recipe, Generator, Trainer], Course]


class Outranked(Exception):
    """Another job goes before the one at hand."""


@dataclass
class _Begun:
    """A course, and how it has gone so far."""

    course: Course
    recipe: Recipe
    text_bytes: int
    stages: list[str] = field(default_factory=list)  # trained, by name
    spent_s: float = 0.0  # in earlier claims, each from its beginning to its version
    interrupted: bool = False  # within a stage

    def goes_on(self, job: JobRecord) -> bool:
        """Whether it is what `job` wants now: it may have been deleted and uploaded again, or want another recipe."""
        return self.recipe.name == job.recipe and all(job.version_of(stage) for stage in self.stages)


class Courses:
    """What one worker trains; `name` is the worker's. The child is killed here only where it does not come to rest."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        queue: Queue,
        *,
        blobs: Redis,
        store: ObjectStore,
        generator: Generator,
        trainer: Trainer,
        traces: Traces | None,
        make_course: MakeCourse,
    ) -> None:
        self._settings = settings
        self._name = name
        self._queue = queue
        self._blobs = blobs
        self._store = store
        self._generator = generator
        self._trainer = trainer
        self._traces = traces
        self._make_course = make_course
        self._put_aside: dict[str, _Begun] = {}  # by job key, the oldest first

    async def work(self, claim: Claim, outranked: Callable[[], Coroutine[Any, Any, NoReturn]]) -> None:
        """Train until a version is published, or until `outranked` raises Outranked within the stage of a job that
        others go before."""
        began_s, key = time.monotonic(), claim.job.key
        begun = await self._begun(claim.job)
        try:
            while not claim.has_ended:
                await self._stage(claim, begun, outranked, began_s)
        except Outranked:
            logger.info("job %s: put aside for one that goes before it", key)
            begun.interrupted = True
        begun.spent_s += time.monotonic() - began_s
        if not begun.course.done:
            await self._keep(key, begun)
        await claim.release(is_attempt=False)  # nothing happens where a version ended it

    async def _begun(self, job: JobRecord) -> _Begun:
        """The job's course: the one put aside, or a new one."""
        kept = self._put_aside.pop(job.key, None)
        if kept and kept.goes_on(job):
            return kept
        recipe = load_recipes().get(job.recipe)
        if recipe is None:
            raise JobFailed("unknown_recipe", f"This worker knows no recipe {job.recipe!r}.", retry=True)
        text = await self._text(job)
        course = self._make_course(text, recipe, self._generator, self._trainer)
        return _Begun(course, recipe, len(text.encode()))

    async def _stage(
        self, claim: Claim, begun: _Begun, outranked: Callable[[], Coroutine[Any, Any, NoReturn]], began_s: float
    ) -> None:
        """Train the course's next stage, and publish it where it is no version yet. Only training is broken off."""
        with self._fresh_folder() as folder:
            training = begun.course.stage(claim.job, folder, claim.report)
            stage = await first(training, *([outranked()] if claim.outranked_by else []))
            begun.interrupted |= stage.name in begun.stages  # the child lost it, so it was trained again
            begun.stages.append(stage.name)
            if claim.job.version_of(stage.name) and not begun.course.done:
                return
            job = await self._publish(claim, stage, folder)
        logger.info("job %s: ready as %s, recipe %s", job.key, job.adapters[-1].id, stage.name)
        if self._traces:
            self._traces.published(job)
        if not begun.interrupted:
            seconds = round(begun.spent_s + time.monotonic() - began_s, 3)
            await self._queue.note_speed(stage.name, Speed(begun.text_bytes, seconds))

    async def _publish(self, claim: Claim, stage: Recipe, folder: Path) -> JobRecord:
        secrets = self._settings.adapter_secrets
        return await publish(
            claim,
            claim.job,
            stage,
            folder,
            blobs=self._blobs,
            store=self._store,
            blob_ttl_s=self._settings.redis.blob_ttl_s,
            secret=secrets[0].get_secret_value() if secrets else "",
        )

    async def _keep(self, key: str, begun: _Begun) -> None:
        """Put the course aside; a child that does not come to rest is killed, before a waiting claim's lease ends."""
        try:
            async with asyncio.timeout(self._settings.worker.lease_s / 2):
                await begun.course.put_aside()
        except (JobFailed, TimeoutError) as error:
            logger.warning("job %s: its course is lost: %r", key, error)
            await self._trainer.kill()
            return
        self._put_aside[key] = begun
        if len(self._put_aside) > KEPT_COURSES:
            del self._put_aside[next(iter(self._put_aside))]

    async def _text(self, job: JobRecord) -> str:
        try:
            found = await obstore.get_async(self._store, text_path(job.key))
        except FileNotFoundError as error:
            raise JobFailed("text_missing", "The document's text is not in the store.", retry=True) from error
        return bytes(await found.bytes_async()).decode()

    @contextmanager
    def _fresh_folder(self) -> Iterator[Path]:
        """Empty, below `home` (adapters may be larger than /tmp); what a killed worker left there goes."""
        parent = training_folder(self._settings, self._name)
        shutil.rmtree(parent, ignore_errors=True)
        parent.mkdir(parents=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def training_folder(settings: Settings, name: str) -> Path:
    """Where the worker of that name has its child put what it trained."""
    return settings.home.resolve() / "training" / name
