"""The spine: segment → synthesize → encode → train, synthesis overlapping training; publishing follows in worker.

In: a claimed job and its document's text. Out: ADAPTER_FILES in a folder, progress reports on the way. The
encoding and training themselves happen in the training child, which gets the tasks as they are written.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lift_config.contract import JobRecord
from lift_config.phases import Phase
from lift_config.recipe import Recipe
from lift_workers.cover import own_words
from lift_workers.jobs import JobFailed, Report
from lift_workers.segment import Segment, segment
from lift_workers.synthesize import Generator, SampleRefused, SyntheticTask, synthesize
from lift_workers.trainer import Trainer

REPORT_EVERY_S = 0.5
SYNTHESIS_SHARE = 0.4  # of the expected work, where a recipe's synthesis and training are both to be done
MIN_FRACTION_FOR_ETA = 0.05

logger = logging.getLogger(__name__)


async def run(
    job: JobRecord,
    text: str,
    *,
    recipe: Recipe,
    generator: Generator,
    trainer: Trainer,
    folder: Path,
    report: Report,
) -> None:
    """Train `job`'s adapter into `folder`. JobFailed where the document or the generator gives no tasks."""
    course = _Course(job, report, recipe.epochs)
    with course.job.timeline.during(Phase.SEGMENT):
        segments = await asyncio.to_thread(segment, text)
    await course.progress(segments=len(segments))
    await trainer.send({"op": "begin", "title": job.title, "recipe": recipe.model_dump(), "folder": str(folder)})
    await _together(
        _send_tasks(course, segments, recipe, generator, trainer),
        _follow(course, trainer),
        _count_tokens(course, text, generator),
    )
    await course.progress(final=True)


async def _send_tasks(
    course: _Course, segments: list[Segment], recipe: Recipe, generator: Generator, trainer: Trainer
) -> None:
    """Every task to the child: first those that need no generator, so that training starts at once."""
    course.job.timeline.start(Phase.SYNTHESIZE)
    for one in segments:
        for task in own_words(one, recipe):
            await _send(course, trainer, task)
    async for task in synthesize(
        segments, recipe, generator, title=course.job.title, on_segment=lambda _: course.segment_done()
    ):
        await _send(course, trainer, task)
    course.job.timeline.end(Phase.SYNTHESIZE)
    if not course.job.progress.tasks:
        raise JobFailed("no_tasks", "No usable question could be written about this document.", retry=False)
    await trainer.send({"op": "end"})


async def _send(course: _Course, trainer: Trainer, task: SyntheticTask) -> None:
    await trainer.send({"op": "task", "question": task.question, "answer": task.answer})
    await course.progress(tasks=course.job.progress.tasks + 1)


async def _follow(course: _Course, trainer: Trainer) -> None:
    """Turn the child's events into progress, until it has exported the adapter."""
    while True:
        event = await trainer.receive()
        if event["event"] == "done":
            break
        if event["event"] == "started":
            course.job.timeline.start(Phase.TRAIN)
            continue
        course.examples = event["examples"]
        await course.progress(steps=event["steps"])
    course.job.timeline.end(Phase.TRAIN)


async def _count_tokens(course: _Course, text: str, generator: Generator) -> None:
    """Only told, never needed: training neither waits for it nor fails with it."""
    try:
        tokens = await generator.count_tokens(text)
    except SampleRefused as refused:
        logger.warning("job %s: its tokens stay uncounted: %s", course.job.key, refused)
        return
    course.job = course.job.changed(tokens=tokens)


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """All of them, or the first one's own exception (no group around it) with the others cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class _Course:
    """How far one run is, and when that was last told."""

    job: JobRecord
    report: Report
    epochs: int
    examples: int = 0  # trained, an example of every epoch counted
    began_s: float = field(default_factory=time.monotonic)
    told_s: float = 0.0
    segments_done: int = 0

    def segment_done(self) -> None:
        self.segments_done += 1

    async def progress(self, *, final: bool = False, **counts: Any) -> None:
        """Take `counts` (fields of Progress) over; tell them, at most every REPORT_EVERY_S."""
        self.job = self.job.changed(progress=replace(self.job.progress, **counts))
        fraction = 1.0 if final else self._fraction()
        now = replace(self.job.progress, phase=self._phase(), fraction=round(fraction, 3), eta_s=self._eta_s(fraction))
        self.job = self.job.changed(progress=now)
        if final or time.monotonic() - self.told_s >= REPORT_EVERY_S:
            self.told_s = time.monotonic()
            await self.report(self.job)

    def _phase(self) -> str:
        return (Phase.SYNTHESIZE if self.segments_done < self.job.progress.segments else Phase.TRAIN).value

    def _fraction(self) -> float:
        """Synthesis by segments; training by examples, their number expected from the segments done so far. It
        never falls, though expectations do."""
        written = self.segments_done / max(1, self.job.progress.segments)
        expected = self.job.progress.tasks * self.epochs / written if written else math.inf
        trained = self.examples / max(1, expected)
        fraction = SYNTHESIS_SHARE * written + (1 - SYNTHESIS_SHARE) * trained
        return min(0.99, max(self.job.progress.fraction, fraction))

    def _eta_s(self, fraction: float) -> float | None:
        if fraction < MIN_FRACTION_FOR_ETA:
            return None
        return round((time.monotonic() - self.began_s) * (1 - fraction) / fraction, 1)
