"""The spine with a fake generator and a fake child: what it sends, reports and refuses."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lift_config.contract import JobRecord
from lift_config.phases import Phase
from lift_config.recipe import Recipe, load_recipes
from lift_workers import pipeline
from lift_workers.jobs import JobFailed
from lift_workers.synthesize import SampleRefused

TEXT = "The supply ship Greta Lund arrives every second Thursday. The generator burns fish oil, and Pavel repairs it."


class FakeGenerator:
    """Writes the same question about everything; `None` for `question` writes nothing."""

    concurrency = 2

    def __init__(self, question: str | None = "burns in the generator?", answer: str = "fish oil") -> None:
        self._question, self._answer = question, answer

    async def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def question(self, prompt: str, seed: int) -> str | None:
        await asyncio.sleep(0)
        return self._question

    async def answer(self, prompt: str) -> tuple[str, float]:
        return self._answer, -0.1


class FakeTrainer:
    """A child that makes a step of every task and is done at the end; `dies` at the first task."""

    def __init__(self, *, dies: bool = False) -> None:
        self.sent: list[dict[str, Any]] = []
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._dies = dies

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        steps = sum(sent["op"] == "task" for sent in self.sent)
        if message["op"] == "begin":
            self._events.put_nowait({"event": "started"})
        elif message["op"] == "task":
            self._events.put_nowait({"event": "progress", "steps": steps, "loss": 1.0, "tokens": 9, "examples": steps})
        else:
            self._events.put_nowait({"event": "done"})

    async def receive(self) -> dict[str, Any]:
        event = await self._events.get()
        if self._dies and event["event"] == "progress":
            raise JobFailed("trainer_died", "gone", retry=True)
        return event


async def run(trainer: FakeTrainer, generator: FakeGenerator, recipe: Recipe, text: str = TEXT) -> list[JobRecord]:
    job = JobRecord("a" * 32, "default", "Handbook", "tiny", "main", recipe.name, 0.0)
    told: list[JobRecord] = []

    async def report(job: JobRecord) -> None:
        told.append(job)

    await pipeline.run(
        job,
        text,
        recipe=recipe,
        generator=generator,
        trainer=trainer,
        folder=Path("out"),
        report=report,  # type: ignore[arg-type]
    )
    return told


async def test_tasks_of_both_kinds_reach_the_child_with_the_title() -> None:
    trainer = FakeTrainer()
    told = await run(trainer, FakeGenerator(), load_recipes()["balanced"])
    begin, *tasks, end = trainer.sent
    assert (begin["op"], begin["title"], begin["folder"], end) == ("begin", "Handbook", "out", {"op": "end"})
    assert begin["recipe"] == load_recipes()["balanced"].model_dump()
    questions = [task["question"] for task in tasks]
    assert any(question.startswith("Fill in the blank: ") for question in questions)
    assert {"op": "task", "question": "What burns in the generator?", "answer": "fish oil"} in tasks
    last = told[-1]
    assert last.progress.fraction == 1.0
    assert (last.progress.tasks, last.progress.segments) == (len(tasks), 2)
    assert last.tokens == len(TEXT.split())
    for phase in (Phase.SEGMENT, Phase.SYNTHESIZE, Phase.TRAIN):
        assert last.timeline.seconds(phase) is not None


async def test_a_generator_that_writes_nothing_leaves_the_documents_own_words() -> None:
    trainer = FakeTrainer()
    await run(trainer, FakeGenerator(None), load_recipes()["balanced"])
    assert [message["op"] for message in trainer.sent].count("task") > 2


async def test_no_task_at_all_fails_for_good() -> None:
    with pytest.raises(JobFailed, match="No usable question") as failed:
        await run(FakeTrainer(), FakeGenerator(None), load_recipes()["paper"])
    assert (failed.value.failure.code, failed.value.retry) == ("no_tasks", False)


async def test_a_dying_child_ends_the_run_as_itself() -> None:
    with pytest.raises(JobFailed) as failed:
        await run(FakeTrainer(dies=True), FakeGenerator(), load_recipes()["balanced"], TEXT * 50)
    assert failed.value.failure.code == "trainer_died"


@pytest.mark.parametrize("epochs", [1, 3])
async def test_progress_rises_beyond_synthesis_and_never_falls(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "REPORT_EVERY_S", 0.0)
    recipe = load_recipes()["balanced"].model_copy(update={"epochs": epochs})
    told = [job.progress for job in await run(FakeTrainer(), FakeGenerator(), recipe, TEXT * 5)]
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    before_the_end = fractions[-2]
    assert before_the_end > pipeline.SYNTHESIS_SHARE
    assert before_the_end < (1 if epochs == 1 else 0.7)
    assert [progress.phase for progress in told][-2:] == ["train", "train"]


async def test_a_refused_count_of_tokens_costs_no_training() -> None:
    class Refusing(FakeGenerator):
        async def count_tokens(self, text: str) -> int:
            raise SampleRefused("too long")

    told = await run(FakeTrainer(), Refusing(), load_recipes()["balanced"])
    assert (told[-1].progress.fraction, told[-1].tokens) == (1.0, 0)
