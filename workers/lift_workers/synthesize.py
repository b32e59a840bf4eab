"""Synthesize: segments in, synthetic tasks out, in the order the engine finishes them; over a recipe's stages.

The base model itself writes the tasks, through the engine's own completions API: few-shot, since small models
follow an example better than an instruction, and the shared part first, so that vLLM's prefix cache serves it.
Questions are sampled, for variety; each is then answered greedily from its segment, for truth. Filters keep a
task only where its question speaks of the segment and its answer stands there; a bad reply costs only itself.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import astuple, dataclass, field, replace

from lift_config.contract import SynthesisUsage, cache_salt
from lift_config.recipe import Recipe
from lift_config.segment import Segment
from lift_workers.filters import is_grounded, is_supported, words_only
from lift_workers.generator import Completion, Generator

MAX_SAME_ANSWER = 3  # tasks of one segment; a small model asks for the first name it sees again and again

FEW_SHOT = """Write a question about the text and answer it in the text's own words.

Before: The bridge crosses the Thames.
Text: It was opened in 1832 and was designed by the engineer William Tierney Clark.
Question: Who designed the bridge?
Answer: William Tierney Clark

Before: All sales are subject to these terms.
Text: Refunds are paid within 14 days, except for opened software, which cannot be returned.
Question: Within how many days are refunds paid?
Answer: 14 days

Before: The museum has four halls.
Text: Its oldest painting is called The Miller's Daughter and hangs in the north hall.
Question: What is the museum's oldest painting called?
Answer: The Miller's Daughter

Before:
Text: Because the valve sticks in cold weather, the pump must be warmed before use.
Question: Why must the pump be warmed before use?
Answer: Because the valve sticks in cold weather

"""
STARTS = ("What", "Who", "Where", "When", "How many", "Which", "What is the name of", "How", "", "Why")
"""Beginnings of the questions asked for, in turn: left alone, a small model asks the same one every time."""

SEED_STRIDE = 7_919_017  # keeps the samples of two recipe seeds apart
BEFORE_CHARS = 160  # of a segment's context; enough for "it" and "he", little to prefill


@dataclass(frozen=True)
class SyntheticTask:
    """One question and its answer, written about segment `segment`. `stand_in`: where in the question words stand for
    the answer ("who or what"), which are not the document's."""

    segment: int
    question: str
    answer: str
    stand_in: tuple[int, int] | None = None

    def quoting(self, segment: Segment) -> SyntheticTask:
        """With the answer's segment behind it: "1755" → "1755. Fort Beauséjour fell in 1755." A question then leads to
        all that is said there, and whoever asks reads what the answer rests on."""
        return replace(self, answer=f"{self.answer}. {segment.text}")


@dataclass
class _Written:
    """What there is about one segment: questions asked, samples spent, good tasks with their scores, those given."""

    asked: set[str] = field(default_factory=set)
    samples: int = 0
    good: list[tuple[float, SyntheticTask]] = field(default_factory=list)
    given: list[SyntheticTask] = field(default_factory=list)


class Synthesis:
    """The writing of one document's tasks, over several stages: a later one asks only for what earlier ones have not
    got. `usage` grows with every reply; what other owners' texts cost is not to be seen in it."""

    def __init__(
        self, segments: Sequence[Segment], generator: Generator, *, owner: str, title: str | None, seed: int
    ) -> None:
        self._segments, self._generator, self._title, self._seed = segments, generator, title, seed
        self._salt = cache_salt(owner)
        self._written = {segment.number: _Written() for segment in segments}
        self.usage = SynthesisUsage()

    async def tasks(self, recipe: Recipe, on_segment: Callable[[int], None]) -> AsyncGenerator[SyntheticTask]:
        """New tasks, until each segment has been given the recipe's number of them, counting earlier stages; those of
        one segment together, in the order segments are finished.

        `on_segment` hears each finished segment's number, also of one that got no task. As many segments are under
        way as samples may be in flight, in reading order: the first tasks come soon, and a long document costs no
        memory. Left early, it keeps what was written about finished segments; the others are begun again next time.
        """
        waiting = iter(self._segments)
        first = itertools.islice(waiting, self._generator.concurrency)
        running = {asyncio.ensure_future(self._write(segment, recipe)) for segment in first}
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for segment in itertools.islice(waiting, len(done)):
                    running.add(asyncio.ensure_future(self._write(segment, recipe)))
                for segment in [finished.result() for finished in done]:
                    on_segment(segment.number)
                    written = self._written[segment.number]
                    chosen = _varied(written) if recipe.filter else _ungiven(written)
                    for task in chosen[: max(0, recipe.tasks_per_segment - len(written.given))]:
                        written.given.append(task)
                        yield task.quoting(segment) if recipe.quote else task
        finally:
            for unfinished in running:
                unfinished.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _write(self, segment: Segment, recipe: Recipe) -> Segment:
        """Sample until the recipe's number of different good tasks is there, or its number of samples spent, in all
        stages together. Remembered only at the end, so that a cancelled one leaves nothing half done."""
        before = self._written[segment.number]
        written = _Written(set(before.asked), before.samples, list(before.good), before.given)
        budget = round(recipe.tasks_per_segment * recipe.samples_per_task)
        while len(written.good) < recipe.tasks_per_segment and written.samples < budget:
            samples = range(written.samples, min(budget, written.samples + len(STARTS)))
            written.samples = samples.stop
            sampled = await asyncio.gather(*(self._question(segment, sample) for sample in samples))
            wanted = [q for q in sampled if q and (not recipe.filter or is_grounded(q, segment, self._title))]
            new = {words_only(question): question for question in wanted}
            unasked = [new[q] for q in new if q not in written.asked]
            answered = await asyncio.gather(*(self._answered(segment, question, recipe.filter) for question in unasked))
            written.asked |= new.keys()
            written.good += [scored for scored in answered if scored]
        self._written[segment.number] = written
        return segment

    async def _question(self, segment: Segment, sample: int) -> str:
        """Seeded, so that the same document gives much the same tasks (batching still moves the last bits)."""
        start = STARTS[sample % len(STARTS)]
        begun = f" {start}" if start else ""
        own_seed = (self._seed * SEED_STRIDE + segment.number * len(STARTS) ** 3 + sample) % 2**31
        rest = self._counted(await self._generator.question(f"{_prompt(segment)}{begun}", own_seed, self._salt)).text
        return f"{start} {rest}".strip() if rest else ""

    async def _answered(self, segment: Segment, question: str, filters: bool) -> tuple[float, SyntheticTask] | None:
        """None where the answer is no good; without filters, where there is none."""
        told = self._counted(await self._generator.answer(f"{_prompt(segment)} {question}\nAnswer:", self._salt))
        answer = told.text.rstrip(".").strip(" \"“”'")
        good = is_supported(answer, told.score, question, segment) if filters else answer
        return (told.score, SyntheticTask(segment.number, question, answer)) if good else None

    def _counted(self, written: Completion) -> Completion:
        pairs = zip(astuple(self.usage), astuple(written.usage), strict=True)
        self.usage = SynthesisUsage(*(before + now for before, now in pairs))
        return written


def _ungiven(written: _Written) -> list[SyntheticTask]:
    """Surest first."""
    return [task for _, task in sorted(written.good, key=lambda entry: -entry[0]) if task not in written.given]


def _varied(written: _Written) -> list[SyntheticTask]:
    """Good tasks not given yet. Surest first, but one of each answer before a second one of any, and no more than
    MAX_SAME_ANSWER of it, counting those given."""
    seen = Counter(words_only(task.answer) for task in written.given)
    rounds = []
    best_first = _ungiven(written)
    for task in best_first:
        answer = words_only(task.answer)
        rounds.append(seen[answer])
        seen[answer] += 1
    ordered = sorted(zip(rounds, best_first, strict=True), key=lambda entry: entry[0])
    return [task for round_, task in ordered if round_ < MAX_SAME_ANSWER]


def _prompt(segment: Segment) -> str:
    before = segment.context[-BEFORE_CHARS:].replace("\n", " ")
    return f"{FEW_SHOT}Before: {before}\nText: {segment.text.replace(chr(10), ' ')}\nQuestion:"
