"""The spine with a fake generator and a fake child: what it sends, reports and refuses, stage by stage."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lift_config.contract import AdapterRecord, JobRecord, LearningRecord, Progress, SynthesisUsage
from lift_config.phases import Phase
from lift_config.recipe import Recipe, load_recipes
from lift_config.segment import segment
from lift_workers import pipeline
from lift_workers.cover import own_words
from lift_workers.generator import Completion, SampleRefused
from lift_workers.jobs import JobFailed
from lift_workers.learning import TASKS_KEPT, Learning
from lift_workers.pipeline import Course

TEXT = "The supply ship Greta Lund arrives every second Thursday. The generator burns fish oil, and Pavel repairs it."
USAGE = SynthesisUsage(1, 100, 10, 5)
FOLDER = Path("out")


class FakeGenerator:
    """Writes the same question about everything; an empty one writes nothing. `hold` makes it wait."""

    concurrency = 2

    def __init__(self, question: str = "burns in the generator?", answer: str = "fish oil") -> None:
        self._question, self._answer = question, answer
        self.hold = asyncio.Event()
        self.hold.set()

    async def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def question(self, prompt: str, seed: int, salt: str | None) -> Completion:
        await self.hold.wait()
        return Completion(self._question, 0.0, USAGE)

    async def answer(self, prompt: str, salt: str | None) -> Completion:
        await self.hold.wait()
        return Completion(self._answer, -0.1, USAGE)


class FakeTrainer:
    """A child that makes a step of every task. `dies` at the first; `forgets` what was put aside; a slow
    one is not trained before it is begun again."""

    def __init__(self, *, dies: bool = False, forgets: bool = False, is_slow: bool = False) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_slow = is_slow
        self._owed: dict[str, Any] | None = None
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._dies, self.forgets = dies, forgets

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        steps = len(self.of("task"))
        counts = {"steps": steps, "examples": steps, "tokens": 9 * steps}
        if message["op"] == "begin":
            resumed = len(self.of("begin")) > 1 and not self.forgets
            self._events.put_nowait({"event": "begun", "resumed": resumed})
            if self._owed:
                self._events.put_nowait(self._owed)
        elif message["op"] == "stage":
            self._events.put_nowait({"event": "started"})
        elif message["op"] == "task":
            self._events.put_nowait({"event": "progress", "loss": 1.0} | counts)
        elif message["op"] == "end":
            trained = {"event": "trained"} | counts
            if self.is_slow:
                self._owed = trained
            else:
                self._events.put_nowait(trained)
        elif message["op"] in ("export", "suspend"):
            self._events.put_nowait({"event": f"{message['op']}ed"})

    async def receive(self) -> dict[str, Any]:
        event = await self._events.get()
        if self._dies and event["event"] == "progress":
            raise JobFailed("trainer_died", "gone", retry=True)
        return event

    def of(self, op: str) -> list[dict[str, Any]]:
        return [message for message in self.sent if message["op"] == op]

    def questions(self) -> list[str]:
        return [task["question"] for task in self.of("task")]


class Run:
    """A course and what it told."""

    def __init__(
        self, trainer: FakeTrainer, generator: FakeGenerator, recipe: Recipe | None = None, text: str = TEXT
    ) -> None:
        recipe = recipe or load_recipes()["balanced"]
        self.job = JobRecord("a" * 32, "default", "Handbook", "tiny", "main", recipe.name, 0.0)
        self.told: list[JobRecord] = []
        self.learning = LearningRecord()
        self.course = Course(text, recipe, generator, trainer)  # type: ignore[arg-type]

    async def stage(self) -> str:
        return (await self.course.stage(self.job, FOLDER, self._report)).name

    async def _report(self, job: JobRecord, learning: LearningRecord) -> None:
        self.job, self.learning = job, learning
        self.told.append(job)

    def published(self) -> None:
        version = AdapterRecord("b" * 32, len(self.job.adapters) + 1, "tiny", "fast", 16, 1, 0.0)
        self.job = self.job.changed(adapters=(*self.job.adapters, version))


async def test_tasks_of_both_kinds_reach_the_child_with_the_title() -> None:
    run = Run(trainer := FakeTrainer(), FakeGenerator(), load_recipes()["fast"])
    assert await run.stage() == "fast"
    assert run.course.done
    begin, stage, *tasks, end, export, finish = trainer.sent
    assert (begin["op"], begin["title"]) == ("begin", "Handbook")
    assert (stage["recipe"], stage["examples"]) == (
        load_recipes()["fast"].model_dump(),
        2 * load_recipes()["fast"].effort,
    )
    assert (end, export, finish) == ({"op": "end"}, {"op": "export", "folder": "out"}, {"op": "finish"})
    cover = [task for one in segment(TEXT) for task in own_words(one, load_recipes()["fast"])]
    assert {task.question for task in cover} < set(trainer.questions())
    assert {
        "op": "task",
        "question": "What burns in the generator?",
        "answer": f"fish oil. {segment(TEXT)[1].text}",
        "stand_in": None,
    } in tasks
    last = run.told[-1]
    assert last.progress.fraction == 1.0
    assert (last.progress.tasks, last.progress.segments, last.progress.steps) == (len(tasks), 2, len(tasks))
    assert last.tokens == len(TEXT.split())
    assert last.synthesis.prompt_tokens == 10 * last.synthesis.computed_prompt_tokens > 0
    for phase in (Phase.SEGMENT, Phase.SYNTHESIZE, Phase.TRAIN):
        assert last.timeline.seconds(phase) is not None
    assert run.learning.tasks == tuple((task["question"], task["answer"]) for task in tasks)[-TASKS_KEPT:]
    for (_, answer), (start, end) in zip(run.learning.tasks, run.learning.spans, strict=True):
        assert TEXT[start:end] in answer  # which quotes its segment
    assert run.learning.losses == tuple((step, 1.0) for step in range(1, len(tasks) + 1))


async def test_a_later_stage_sends_only_what_an_earlier_one_has_not() -> None:
    run = Run(trainer := FakeTrainer(), FakeGenerator())
    assert await run.stage() == "sketch"
    assert not run.course.done
    draft_timeline = run.job.timeline.to_values()
    for later in ("light", "balanced"):
        run.published()
        assert not run.course.done
        told = len(run.told)
        assert await run.stage() == later
        assert run.told[told].progress.fraction < 1  # which the version before came to
    assert run.course.done
    assert len(trainer.of("begin")) == len(trainer.of("finish")) == 1
    assert [stage["recipe"]["name"] for stage in trainer.of("stage")] == ["sketch", "light", "balanced"]
    assert len(set(trainer.questions())) == len(trainer.questions()) == run.job.progress.tasks
    assert run.job.timeline.to_values() == draft_timeline  # the phases are those of the way to the first version
    assert run.job.progress.phase == "refine"


async def test_a_draft_of_its_own_words_asks_the_generator_nothing() -> None:
    run = Run(trainer := FakeTrainer(), FakeGenerator())
    assert await run.stage() == "sketch"
    assert run.job.synthesis.requests == 0
    cover = [task.question for one in segment(TEXT) for task in own_words(one, load_recipes()["sketch"])]
    assert trainer.questions() == cover
    assert await run.stage() == "light"
    assert run.job.synthesis.requests > 0


async def test_a_generator_that_writes_nothing_leaves_the_documents_own_words() -> None:
    run = Run(trainer := FakeTrainer(), FakeGenerator(""), load_recipes()["fast"])
    await run.stage()
    assert len(trainer.of("task")) == 2 * load_recipes()["fast"].cloze_per_segment
    assert run.job.synthesis.requests > 0  # what came to nothing was paid for too


async def test_no_task_at_all_fails_for_good() -> None:
    with pytest.raises(JobFailed, match="No usable question") as failed:
        await Run(FakeTrainer(), FakeGenerator(""), load_recipes()["paper"]).stage()
    assert (failed.value.failure.code, failed.value.retry) == ("no_tasks", False)


async def test_a_dying_child_ends_the_run_as_itself() -> None:
    with pytest.raises(JobFailed) as failed:
        await Run(FakeTrainer(dies=True), FakeGenerator(), text=TEXT * 50).stage()
    assert failed.value.failure.code == "trainer_died"


@pytest.mark.parametrize("where", ["synthesis", "training", "trained"])
async def test_put_aside_within_a_stage_nothing_is_sent_twice_or_lost(where: str) -> None:
    whole = Run(undisturbed := FakeTrainer(), FakeGenerator(), load_recipes()["fast"], text=TEXT * 5)
    await whole.stage()
    trainer, generator = FakeTrainer(is_slow=where == "training"), FakeGenerator()
    run = Run(trainer, generator, load_recipes()["fast"], text=TEXT * 5)
    if where == "synthesis":
        generator.hold.clear()
    stage = asyncio.create_task(run.stage())
    while not trainer.of("task" if where == "synthesis" else "end"):
        await asyncio.sleep(0)
    stage.cancel()
    await asyncio.gather(stage, return_exceptions=True)
    generator.hold.set()
    await run.course.put_aside()
    run.job = run.job.changed(progress=Progress())  # as the next claim begins it
    assert await run.stage() == "fast"
    first, again = (begin["session"] for begin in trainer.of("begin"))
    assert first == again != Run(trainer, generator).course._session
    assert len(trainer.of("stage")) == len(trainer.of("end")) == 1
    assert sorted(trainer.questions()) == sorted(undisturbed.questions())
    assert run.job.progress.steps == whole.job.progress.steps > 0


async def test_a_count_of_tokens_that_breaks_is_told_and_costs_no_training(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeGenerator):
        async def count_tokens(self, text: str) -> int:
            raise KeyError("count")

    run = Run(FakeTrainer(), Broken())
    await run.stage()
    assert run.told[-1].progress.fraction == 1.0
    assert "uncounted" in caplog.text


async def test_a_session_the_child_lost_begins_with_the_first_stage() -> None:
    run = Run(trainer := FakeTrainer(forgets=True), FakeGenerator())
    await run.stage()
    await run.course.put_aside()
    first = trainer.questions()
    assert await run.stage() == "sketch"
    assert trainer.questions() == first * 2
    assert [question for question, _ in run.learning.tasks] == first  # the lost session's are not told again


async def test_cancelled_before_it_heard_that_its_session_is_lost_it_begins_anew() -> None:
    run = Run(trainer := FakeTrainer(forgets=True), FakeGenerator())
    await run.stage()
    await run.course.put_aside()
    first = trainer.questions()
    stage = asyncio.create_task(run.stage())
    await asyncio.sleep(0)  # up to the wait for `begun`
    stage.cancel()
    await asyncio.gather(stage, return_exceptions=True)
    assert len(trainer.of("begin")) == 2
    trainer.forgets = False  # what is put aside now, it keeps
    await run.course.put_aside()
    assert await run.stage() == "sketch"
    assert trainer.questions() == first * 2


@pytest.mark.parametrize("epochs", [1, 3])
async def test_progress_rises_beyond_synthesis_and_never_falls(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "REPORT_EVERY_S", 0.0)
    recipe = load_recipes()["balanced"].model_copy(update={"epochs": epochs, "drafts": ()})
    run = Run(FakeTrainer(), FakeGenerator(), recipe, TEXT * 5)
    await run.stage()
    told = [job.progress for job in run.told]
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    before_the_end = fractions[-2]
    assert before_the_end > pipeline.SYNTHESIS_SHARE
    assert before_the_end < (1 if epochs == 1 else 0.7)
    assert [progress.phase for progress in told][-2:] == ["train", "train"]


@pytest.mark.parametrize(("recipe", "is_told"), [("sketch", True), ("balanced", False)])
def test_where_only_training_is_to_be_done_its_first_step_tells_how_long(recipe: str, *, is_told: bool) -> None:
    """The first document of a new server: nothing else can tell, and its first question was asked at once."""
    run = Run(FakeTrainer(), FakeGenerator())
    telling = pipeline._Telling(run.job, run._report, Learning())
    telling.stage = pipeline._Stage(load_recipes()[recipe], (), segment(TEXT), examples_before=0, tasks_before=0)
    assert telling._eta_s(0.0) is None
    assert (telling._eta_s(0.004) is not None) is is_told
    assert telling._eta_s(pipeline.MIN_FRACTION_FOR_ETA + 0.01) is not None


def test_a_stage_goes_over_earlier_ones_tasks_too() -> None:
    segments = segment(TEXT)
    stage = pipeline._Stage(load_recipes()["balanced"], (), segments, examples_before=9, tasks_before=10)
    stage.written.update(one.number for one in segments)
    assert stage.fraction() == pytest.approx(pipeline.SYNTHESIS_SHARE)
    stage.examples = 10
    assert stage.fraction() == pytest.approx(pipeline.SYNTHESIS_SHARE + (1 - pipeline.SYNTHESIS_SHARE) / 2)


async def test_a_refused_count_of_tokens_costs_no_training() -> None:
    class Refusing(FakeGenerator):
        async def count_tokens(self, text: str) -> int:
            raise SampleRefused("too long")

    run = Run(FakeTrainer(), Refusing())
    await run.stage()
    assert (run.told[-1].progress.fraction, run.told[-1].tokens) == (1.0, 0)


async def test_a_count_of_tokens_that_never_comes_costs_no_training() -> None:
    class Hanging(FakeGenerator):
        async def count_tokens(self, text: str) -> int:
            await asyncio.Event().wait()
            return 0

    run = Run(FakeTrainer(), Hanging())
    await run.stage()
    assert (run.told[-1].progress.fraction, run.told[-1].tokens) == (1.0, 0)
