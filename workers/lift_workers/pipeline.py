"""The spine: segment → synthesize → encode → train, stage by stage, synthesis overlapping training.

In: a document's text and its recipe. Out: for each of the recipe's stages ADAPTER_FILES in a folder, progress reports
on the way; publishing follows in worker. Encoding and training happen in the training child, which gets the tasks
as they are written and keeps the document's session while it is put aside for another.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from lift_config.contract import JobRecord, SynthesisUsage
from lift_config.phases import Phase
from lift_config.recipe import Recipe
from lift_config.segment import Segment, Span, segment
from lift_workers.cover import own_words
from lift_workers.generator import Generator, SampleRefused
from lift_workers.jobs import JobFailed, Report
from lift_workers.learning import Learning
from lift_workers.synthesize import Synthesis, SyntheticTask
from lift_workers.trainer import Event, Trainer

REPORT_EVERY_S = 0.5
SYNTHESIS_SHARE = 0.4  # of the expected work, where a recipe's synthesis and training are both to be done
MIN_FRACTION_FOR_ETA = 0.05  # with a generator, whose first answers come together

logger = logging.getLogger(__name__)


class Course:
    """One document's training, a stage at a time; may be put aside between and within stages."""

    def __init__(self, text: str, recipe: Recipe, generator: Generator, trainer: Trainer) -> None:
        self._text, self._recipe = text, recipe
        self._generator, self._trainer = generator, trainer
        self._session = secrets.token_hex(8)  # of its own: another course of the job is not to go on with this one's
        self._is_with_child = False
        self._reset()

    def _reset(self) -> None:
        """Nothing done yet."""
        self._stages_done = self._tasks = self._steps = self._examples = 0
        self._learning = Learning()
        self._segments: list[Segment] | None = None
        self._stage: _Stage | None = None

    @property
    def done(self) -> bool:
        """The recipe's own stage, the last, is trained."""
        return self._stages_done == len(self._recipe.stages())

    async def stage(self, job: JobRecord, folder: Path, report: Report) -> Recipe:
        """Train the next stage of `job`, ADAPTER_FILES into `folder`; the stage's recipe.

        JobFailed where the document or the generator gives no tasks. Where the child lost a session put aside, all
        begins anew, with the first stage. May be cancelled: then put_aside(), or kill the trainer.
        """
        await self._begin(job)
        telling = _Telling(job, report, self._learning)
        stage = self._stage = self._stage or await self._next_stage(telling)
        telling.stage = stage
        await telling.progress(segments=stage.segments, tasks=self._tasks, steps=self._steps)
        if not stage.is_trained:
            await self._train(stage, telling)
        await self._export(folder)
        telling.end(Phase.TRAIN)
        await telling.progress(is_last=True, synthesis=self._synthesis.usage)
        self._stage, self._stages_done = None, self._stages_done + 1
        if self.done:
            await self._trainer.send({"op": "finish"})
            self._is_with_child = False
        return stage.recipe

    async def put_aside(self) -> None:
        """Bring the child to rest; it keeps the session. JobFailed where it cannot."""
        await self._trainer.send({"op": "suspend"})
        while (event := await self._trainer.receive())["event"] != "suspended":
            if event["event"] == "begun" and not event["resumed"]:  # cancelled before it heard that
                self._reset()
            self._hear(event)
        self._is_with_child = False

    async def _begin(self, job: JobRecord) -> None:
        """The child's session, a new one or that put aside."""
        if self._is_with_child:
            return
        await self._trainer.send({"op": "begin", "session": self._session, "title": job.title})
        begun = await self._trainer.receive()
        if not begun["resumed"]:
            self._reset()
        self._is_with_child = True

    async def _next_stage(self, telling: _Telling) -> _Stage:
        if self._segments is None:
            telling.start(Phase.SEGMENT)
            self._segments = await asyncio.to_thread(segment, self._text)
            telling.end(Phase.SEGMENT)
            self._synthesis = Synthesis(
                self._segments,
                self._generator,
                owner=telling.job.owner,
                title=telling.job.title,
                seed=self._recipe.seed,
            )
        stages = self._recipe.stages()
        recipe, before = stages[self._stages_done], stages[: self._stages_done]
        recipe = recipe.model_copy(update={"seed": self._recipe.seed})
        stage = _Stage(recipe, before, self._segments, examples_before=self._examples, tasks_before=self._tasks)
        await self._trainer.send({"op": "stage", "recipe": recipe.model_dump(), "examples": stage.expected_examples})
        return stage

    async def _train(self, stage: _Stage, telling: _Telling) -> None:
        counting = asyncio.ensure_future(self._count_tokens(telling))
        try:
            # The child first: where it fails, it says why, and whoever still sends to it hears only that it is gone.
            await _together(self._follow(stage, telling), self._send_tasks(stage, telling))
        finally:
            counting.cancel()
            (error,) = await asyncio.gather(counting, return_exceptions=True)
            if isinstance(error, Exception):
                logger.error("job %s: its tokens stay uncounted", telling.job.key, exc_info=error)

    async def _send_tasks(self, stage: _Stage, telling: _Telling) -> None:
        """Every task to the child: first those that need no generator, so that training starts at once."""
        if stage.is_sent:
            return
        telling.start(Phase.SYNTHESIZE)
        for task in stage.cover:
            await self._send(task, stage, telling)
        async with aclosing(self._synthesis.tasks(stage.recipe, stage.written.add)) as tasks:
            async for task in tasks:
                await self._send(task, stage, telling)
        telling.end(Phase.SYNTHESIZE)
        if not self._tasks:
            raise JobFailed("no_tasks", "No usable question could be written about this document.", retry=False)
        stage.is_sent = True
        await self._trainer.send({"op": "end"})

    async def _send(self, task: SyntheticTask, stage: _Stage, telling: _Telling) -> None:
        self._tasks += 1
        stage.tasks += 1
        self._learning.sent(task.question, task.answer, stage.span_of(task))
        message = {"op": "task", "question": task.question, "answer": task.answer, "stand_in": task.stand_in}
        await self._trainer.send(message)
        await telling.progress(synthesis=self._synthesis.usage, tasks=self._tasks)

    async def _follow(self, stage: _Stage, telling: _Telling) -> None:
        """Turn the child's events into progress, until the stage is trained."""
        while not stage.is_trained:
            event = await self._trainer.receive()
            if event["event"] == "started":
                telling.start(Phase.TRAIN)
            self._hear(event)
            await telling.progress(steps=self._steps)

    def _hear(self, event: Event) -> None:
        stage = self._stage
        if "loss" in event:
            self._learning.trained(event["steps"], event["loss"])
        if stage and event["event"] == "trained":
            stage.is_trained = True
        if stage and "examples" in event:
            self._steps, self._examples = event["steps"], event["examples"]
            stage.examples = self._examples - stage.examples_before

    async def _export(self, folder: Path) -> None:
        await self._trainer.send({"op": "export", "folder": str(folder)})
        event = await self._trainer.receive()
        if event["event"] != "exported":
            raise ValueError(f"the trainer answers {event['event']!r} to an export")

    async def _count_tokens(self, telling: _Telling) -> None:
        """Only told, never needed: training neither waits for it nor fails with it."""
        if telling.job.tokens:
            return
        try:
            tokens = await self._generator.count_tokens(self._text)
        except (SampleRefused, JobFailed) as refused:
            logger.warning("job %s: its tokens stay uncounted: %s", telling.job.key, refused)
            return
        telling.job = telling.job.changed(tokens=tokens)


class _Stage:
    """How far one stage is: what was sent to the child, and what it made of it. Outlives being put aside."""

    def __init__(
        self,
        recipe: Recipe,
        before: tuple[Recipe, ...],
        segments: list[Segment],
        *,
        examples_before: int,
        tasks_before: int,
    ) -> None:
        self.recipe, self._before, self._segments = recipe, before, segments
        self.examples_before = examples_before  # trained in earlier stages
        self._tasks_before = tasks_before  # sent in them: later epochs go over these too
        self.examples = 0  # trained in this one, an example of every epoch counted
        self.tasks = 0  # sent
        self.cover = self._cover()  # one iterator for the stage's life: what it gave was sent
        self.written: set[int] = set()  # segments
        self.is_sent = self.is_trained = False

    @property
    def segments(self) -> int:
        return len(self._segments)

    def span_of(self, task: SyntheticTask) -> Span:
        """Of its segment, in the text."""
        return self._segments[task.segment].span

    @property
    def expected_examples(self) -> int:
        """Of one epoch, at most."""
        return self.segments * self.recipe.effort // self.recipe.epochs

    @property
    def is_written(self) -> bool:
        return len(self.written) == self.segments

    def fraction(self) -> float:
        """Synthesis by segments; training by examples, their number expected from the segments done so far."""
        written = len(self.written) / max(1, self.segments)
        tasks = self.tasks / written if written else math.inf  # when all segments are
        expected = tasks * self.recipe.epochs + self._tasks_before * (self.recipe.epochs - 1)
        share = SYNTHESIS_SHARE if self.recipe.tasks_per_segment else 0.0
        return share * written + (1 - share) * self.examples / max(1, expected)

    def _cover(self) -> Iterator[SyntheticTask]:
        """Tasks that need no generator, but for those that an earlier stage has had."""
        for one in self._segments:
            had = {task for recipe in self._before for task in own_words(one, recipe)}
            yield from (task for task in own_words(one, self.recipe) if task not in had)


class _Telling:
    """What is told of a stage, and when that was last done. The phases are those of the first version's way."""

    def __init__(self, job: JobRecord, report: Report, learning: Learning) -> None:
        self.job = job
        self._learning = learning
        self.stage: _Stage | None = None
        self._report = report
        self._is_first_version = not job.adapters
        self._began_s = time.monotonic()
        self._told_s = 0.0
        self._fraction = 0.0  # of the stage, which the job's own may be ahead of: that is of the version before

    def start(self, phase: Phase) -> None:
        if self._is_first_version:
            self.job.timeline.start(phase)

    def end(self, phase: Phase) -> None:
        if self._is_first_version:
            self.job.timeline.end(phase)

    def stage_of(self) -> _Stage:
        assert self.stage is not None
        return self.stage

    async def progress(self, *, is_last: bool = False, synthesis: SynthesisUsage | None = None, **counts: int) -> None:
        """Take `counts` (fields of Progress) over; tell them, at most every REPORT_EVERY_S."""
        self._fraction = 1.0 if is_last else min(0.99, max(self._fraction, self.stage_of().fraction()))
        told: dict[str, Any] = {"phase": self._phase(), "fraction": round(self._fraction, 3), **counts}
        now = replace(self.job.progress, eta_s=self._eta_s(self._fraction), **told)
        self.job = self.job.changed(progress=now, synthesis=synthesis or self.job.synthesis)
        if is_last or time.monotonic() - self._told_s >= REPORT_EVERY_S:
            self._told_s = time.monotonic()
            await self._report(self.job, self._learning.record())

    def _phase(self) -> str:
        if not self._is_first_version:
            return Phase.REFINE.value
        return (Phase.TRAIN if self.stage_of().is_written else Phase.SYNTHESIZE).value

    def _eta_s(self, fraction: float) -> float | None:
        """To the end of the stage; told from the first step on where nothing but training is to be done."""
        if fraction <= (MIN_FRACTION_FOR_ETA if self.stage_of().recipe.tasks_per_segment else 0.0):
            return None
        return round((time.monotonic() - self._began_s) * (1 - fraction) / fraction, 1)


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """All of them, or the first one's own exception (no group around it) with the others cancelled; of several that
    failed at once the one named first counts."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
