"""How long until a document has a version of each recipe, told from what was measured before.

In: Speeds, the queue, the document's job. Out: seconds by recipe, the one recipe that `lift.ttft_budget_s` allows, or
how long the version that comes next will take; which versions a training comes to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import linear_regression, mean

from lift_config.contract import JobRecord, Speed, Status
from lift_config.phases import Phase
from lift_config.recipe import load_recipes
from lift_server.errors import TtftBudgetUnmet
from lift_server.outlook import Seen, speeds, streams_before
from lift_server.recipes import all_servable
from lift_server.state import State
from lift_server.writes import stream_of

Measured = Mapping[str, Sequence[Speed]]


async def recipe_within(state: State, job: JobRecord, budget_s: float) -> str:
    """The recipe of most effort whose version is there, or will be, within `budget_s`."""
    left_s = await seconds_left(state, job)
    fitting = [name for name, seconds in left_s.items() if seconds is not None and seconds <= budget_s]
    if not fitting:
        told = ", ".join(f"{name} {_shown(seconds)}" for name, seconds in sorted(left_s.items()))
        raise TtftBudgetUnmet(f"No version is there within {budget_s:g} s. Estimates: {told}.")
    return max(fitting, key=lambda name: load_recipes()[name].effort)


async def seconds_left(state: State, job: JobRecord) -> dict[str, float | None]:
    """For each recipe served here, the time until its version is there; None where it was never measured."""
    measured = await speeds(state.records.redis)
    course = _Course(job, measured)
    ahead_s = await _ahead_s(state, job, measured)
    return {name: course.left_s(name, ahead_s) for name in all_servable(state.settings)}


async def next_s(state: State, job: JobRecord, recipe: str | None = None) -> float | None:
    """Until the version of `recipe`, or the one that is trained next: as its worker tells, else from what was
    measured; None where neither knows, or it takes longer than foretold."""
    if recipe is None and job.progress.eta_s:  # 0: of the version before
        return job.progress.eta_s
    seen = await state.outlook.seen()
    ahead = seen.before(job, stream_of(job))
    course = _Course(job, seen.measured)
    ahead_s = None if ahead is None else _shared_s([_first_s(seen, one) for one in ahead], seen.workers)
    return course.left_s(recipe or course.next_recipe(), ahead_s) or None


async def foretold(state: State, job: JobRecord) -> JobRecord:
    """As it is shown: with a time while no worker tells one, in whole seconds, so that it seldom changes."""
    if not job.unfinished or job.progress.eta_s:
        return job
    eta_s = await next_s(state, job)
    return job if eta_s is None else job.changed(progress=replace(job.progress, eta_s=float(math.ceil(eta_s))))


def will_bring(job: JobRecord, recipe: str | None) -> bool:
    """Whether the training wanted or under way comes to such a version; None stands for any."""
    return job.unfinished and (recipe is None or recipe in stages_of(job))


def stages_of(job: JobRecord) -> list[str]:
    """The recipes of the versions that its training comes to, in order."""
    trained = load_recipes().get(job.recipe)
    return [stage.name for stage in trained.stages()] if trained else [job.recipe]


def training_s(text_bytes: int, speeds: Sequence[Speed]) -> float | None:
    """From claim to published, by the line through what was measured; None without any.

    Where all texts were of one length, a longer one takes in proportion, and a shorter one no less: how much of the
    time is fixed is not known then. Never faster than the fastest rate that was seen.
    """
    if not speeds:
        return None
    sizes, seconds = [speed.text_bytes for speed in speeds], [speed.seconds for speed in speeds]
    slope, fixed_s = linear_regression(sizes, seconds) if len(set(sizes)) > 1 else (0.0, 0.0)
    if slope > 0:
        fastest = min(speed.seconds / speed.text_bytes for speed in speeds)
        return max(fixed_s + slope * text_bytes, fastest * text_bytes)
    return mean(seconds) * max(1.0, text_bytes / mean(sizes))


@dataclass(frozen=True)
class _Course:
    """A job's way through its versions, as far as can be foretold."""

    job: JobRecord
    measured: Measured

    def left_s(self, recipe: str, ahead_s: float | None) -> float | None:
        """Until the version of `recipe`, with `ahead_s` of other jobs before this one where no worker has it yet."""
        if self.job.version_of(recipe):
            return 0.0
        needed_s = training_s(self.job.text_bytes, self.measured.get(recipe, ()))
        if not self.job.unfinished:
            return _sum(ahead_s, needed_s)
        if not will_bring(self.job, recipe):
            return _sum(self.left_s(self.job.recipe, ahead_s), needed_s)
        if self.job.status is not Status.TRAINING:  # a refinement may have waited since its last version
            return _sum(ahead_s, needed_s)
        return None if needed_s is None else max(0.0, needed_s - self._trained_s())

    def first_s(self) -> float | None:
        """Until other jobs get their turn: the first version, or the one that a question waits for."""
        return self.left_s(self.next_recipe(), 0.0)

    def next_recipe(self) -> str:
        """That of the version which is trained next."""
        return next((name for name in stages_of(self.job) if not self.job.version_of(name)), self.job.recipe)

    def _trained_s(self) -> float:
        """How long a worker has had it; it may have been asked for again since its first claim."""
        _, claimed_s = self.job.timeline.spans.get(Phase.QUEUE, (0.0, None))
        return time.time() - max(self.job.received_s, claimed_s or 0.0)


async def _ahead_s(state: State, job: JobRecord, measured: Measured) -> float | None:
    """What stands in lift:jobs before this job, shared by the workers there are; for bulk, also what stands before it
    in that stream. Refinements step back, also for one whose version somebody asks for (records.want)."""
    keys = list(dict.fromkeys(await state.records.queued(*streams_before(stream_of(job)))))
    keys = keys[: keys.index(job.key)] if job.key in keys else keys
    jobs = [one for one in await state.records.jobs(keys) if one is not None and one.unfinished]
    return _shared_s([_Course(one, measured).first_s() for one in jobs], await state.records.workers())


def _first_s(seen: Seen, job: JobRecord) -> float | None:
    """Once for all who look: a list would have it worked out for each pair of its documents."""
    if job.key not in seen.firsts_s:
        seen.firsts_s[job.key] = _Course(job, seen.measured).first_s()
    return seen.firsts_s[job.key]


def _shared_s(firsts_s: Sequence[float | None], workers: int) -> float | None:
    total_s = _sum(*firsts_s)
    return None if total_s is None else total_s / max(1, workers)


def _sum(*parts: float | None) -> float | None:
    """Unknown where a part is."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _shown(seconds: float | None) -> str:
    return "not measured yet" if seconds is None else f"{seconds:.0f} s"
