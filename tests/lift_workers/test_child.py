"""The training child as a process: tasks in, an adapter out, one document after the other."""

import json
import os
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.lift_workers.tiny import save_tiny_model

from lift_config.contract import ADAPTER_FILES
from lift_config.recipe import load_recipes
from lift_config.settings import Settings
from lift_workers.__main__ import child_environment
from lift_workers.child import GPU_STEP_TOKENS, KEPT_ASIDE, min_step_tokens
from lift_workers.encode import TrainingExample, pack
from lift_workers.session import EXAMPLE_TOKENS, MAX_PADDED, STAGE_STEPS, filled, step_size
from lift_workers.train import WarmTrainer

pytestmark = pytest.mark.timeout(120)


class Child:
    """`python -m lift_workers.child` on a tiny model."""

    def __init__(self, model: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lift_workers.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "LIFT_BASE_MODEL": str(model), "LIFT_DEVICE": "cpu"},
            text=True,
        )

    def say(self, **message: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout
        event: dict[str, Any] = json.loads(self.process.stdout.readline())
        return event

    def until(self, event: str) -> list[dict[str, Any]]:
        """All events up to this one."""
        events = [self.hear()]
        while events[-1]["event"] != event:
            events.append(self.hear())
        return events

    def begin(self, session: str, title: str | None = "A title") -> bool:
        """Whether the child had it put aside."""
        self.say(op="begin", session=session, title=title)
        event = self.hear()
        assert event.pop("event") == "begun"
        return bool(event["resumed"])

    def stage(self, examples: int = 12, **recipe: Any) -> None:
        changes = {"rank": 4, "alpha": 8, "served_alpha": 8, "least_steps": 1, **recipe}
        values = load_recipes()["balanced"].model_copy(update=changes).model_dump()
        self.say(op="stage", recipe=values, examples=examples)

    def tasks(self, *numbers: int) -> None:
        for number in numbers:
            self.say(op="task", question=f"What is number {number}?", answer=f"It is {number}.", stand_in=None)

    def export(self, folder: Path) -> bytes:
        self.say(op="export", folder=str(folder))
        assert self.hear() == {"event": "exported"}
        return (folder / ADAPTER_FILES[0]).read_bytes()

    def train(self, folder: Path, tasks: int, **recipe: Any) -> list[dict[str, Any]]:
        """All events of one document of one stage."""
        assert not self.begin(folder.name)
        self.stage(**recipe)
        self.tasks(*range(tasks))
        self.say(op="end")
        events = self.until("trained")
        self.export(folder)
        self.say(op="finish")
        return events


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    child = Child(save_tiny_model(tmp_path_factory.mktemp("tiny")), dict(os.environ))
    assert child.hear() == {"event": "ready"}
    yield child
    assert child.process.stdin
    child.process.stdin.close()  # the supervisor is gone
    assert child.process.wait(20) == 0
    assert child.process.stdout
    child.process.stdout.close()


def test_its_log_is_json_to_the_end(tmp_path: Path) -> None:
    """Loading a model would draw bars and a failure's traceback takes many lines."""
    settings = Settings(base_model=str(save_tiny_model(tmp_path)), device="cpu")
    environment = {
        **child_environment(os.environ, settings, 0),
        **{"LIFT_LOG_FORMAT": "json", "LIFT_DEVICE": "cpu", "LIFT_BASE_MODEL": settings.base_model},
    }
    ended = subprocess.run(
        [sys.executable, "-m", "lift_workers.child"], input='{"op": "end"}\n', env=environment, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert lines[-1]["level"] == "CRITICAL"
    assert lines[-1]["exception"].endswith("'end' outside a document")


def test_steps_are_counted_and_the_adapter_is_written(child: Child, tmp_path: Path) -> None:
    events = child.train(tmp_path, tasks=12, epochs=3, tokens_per_step=200)
    assert events[0] == {"event": "started"}
    progress = [event for event in events if event["event"] == "progress"]
    assert [event["steps"] for event in progress] == list(range(1, len(progress) + 1))
    assert progress[-1]["loss"] < progress[0]["loss"]
    assert events[-1]["examples"] == progress[-1]["examples"] == 3 * 12  # of three epochs
    assert set(ADAPTER_FILES) <= {path.name for path in tmp_path.iterdir()}


def test_training_starts_before_the_last_task(child: Child) -> None:
    child.begin("early", title=None)
    child.stage(tokens_per_step=60)
    child.tasks(1, 2, 3, 4)
    assert child.hear() == {"event": "started"}
    assert child.hear()["steps"] == 1
    child.say(op="end")
    child.until("trained")
    child.say(op="finish")


def test_every_document_starts_anew(child: Child, tmp_path: Path) -> None:
    runs = [child.train(tmp_path / str(run), tasks=6, tokens_per_step=100) for run in range(2)]
    assert runs[0] == runs[1]
    weights = [(tmp_path / str(run) / ADAPTER_FILES[0]).read_bytes() for run in range(2)]
    assert weights[0] == weights[1]


def test_a_second_stage_goes_on_with_the_weights_and_the_examples(child: Child, tmp_path: Path) -> None:
    child.begin("two stages")
    child.stage(epochs=1, tokens_per_step=100)
    child.tasks(1, 2, 3)
    child.say(op="end")
    first = child.until("trained")[-1]
    draft = child.export(tmp_path / "draft")
    child.stage(epochs=2, tokens_per_step=100)
    child.tasks(4, 5)
    child.say(op="end")
    second = child.until("trained")
    assert first["examples"] == 3
    assert second[-1]["examples"] == 3 + 2 + 5  # the second epoch goes over all
    losses = [event["loss"] for event in second if "loss" in event]
    assert losses[-1] < losses[0]
    assert child.export(tmp_path / "last") != draft
    child.say(op="finish")


@pytest.mark.parametrize("where", ["while tasks arrive", "in later epochs", "between stages"])
def test_a_document_put_aside_for_another_ends_as_if_it_had_not_been(child: Child, tmp_path: Path, where: str) -> None:
    recipe = {"epochs": 4, "tokens_per_step": 60}

    def whole(name: str, *, interrupted: bool) -> bytes:
        def rest(when: str) -> None:
            if not interrupted or when != where:
                return
            child.say(op="suspend")
            heard.extend(child.until("suspended"))
            child.train(tmp_path / f"{name}-other", tasks=3)
            assert child.begin(name)

        heard: list[dict[str, Any]] = []
        assert not child.begin(name)
        child.stage(**recipe)
        child.tasks(*range(8))
        rest("while tasks arrive")
        child.tasks(8)
        child.say(op="end")
        rest("in later epochs")
        if not any(event["event"] == "trained" for event in heard):
            child.until("trained")
        rest("between stages")
        try:
            return child.export(tmp_path / name)
        finally:
            child.say(op="finish")

    assert whole(f"{where} 1", interrupted=True) == whole(f"{where} 2", interrupted=False)


def test_a_rest_is_not_kept_waiting_by_the_tasks_before_it(child: Child) -> None:
    """Those of a long text are all there before its first step: minutes of training."""
    assert not child.begin("long")
    child.stage(examples=40, tokens_per_step=8, epochs=1, tasks_per_segment=0)
    child.tasks(*range(40))
    child.say(op="suspend")
    before = [event for event in child.until("suspended") if event["event"] == "progress"]
    assert len(before) < 30
    assert child.begin("long")
    child.say(op="end")
    assert child.until("trained")[-1]["examples"] == 40
    child.say(op="finish")


def test_only_the_newest_put_aside_are_kept(child: Child) -> None:
    for number in range(KEPT_ASIDE + 1):
        child.begin(f"aside {number}")
        child.say(op="suspend")
        assert child.hear() == {"event": "suspended"}
    assert child.begin("aside 1")
    child.say(op="finish")
    assert not child.begin("aside 0")
    child.say(op="finish")


def test_a_step_is_larger_on_a_gpu() -> None:
    settings = Settings()
    assert min_step_tokens(settings, torch.device("cpu")) == 1
    assert min_step_tokens(settings, torch.device("cuda")) == GPU_STEP_TOKENS
    given = settings.model_copy(update={"worker": settings.worker.model_copy(update={"min_tokens_per_step": 9})})
    assert min_step_tokens(given, torch.device("cuda")) == 9


def test_a_step_grows_with_the_document_but_leaves_a_short_one_its_number_of_steps() -> None:
    recipe = load_recipes()["balanced"]
    assert step_size(recipe, 10_000, least=1) == recipe.tokens_per_step
    assert step_size(recipe, 10_000, least=2048) == 2048
    assert step_size(recipe, 600, least=2048) == 600 * EXAMPLE_TOKENS // STAGE_STEPS == 1000
    assert step_size(recipe, 20, least=2048) == recipe.tokens_per_step


def test_a_text_of_a_few_sentences_is_gone_over_until_it_has_its_steps(child: Child, tmp_path: Path) -> None:
    events = child.train(tmp_path / "short", tasks=1, epochs=1, least_steps=7)
    assert [event["event"] for event in events].count("progress") == 7


def test_more_epochs_end_with_the_last_step_that_lacks(child: Child, tmp_path: Path) -> None:
    once = child.train(tmp_path / "once", tasks=6, epochs=1, tokens_per_step=60)
    steps = [event["event"] for event in once].count("progress")
    events = child.train(tmp_path / "more", tasks=6, epochs=1, tokens_per_step=60, least_steps=steps + 1)
    assert steps > 1
    assert [event["event"] for event in events].count("progress") == steps + 1


def example(tokens: int) -> TrainingExample:
    return TrainingExample(array("i", range(tokens - 1)), array("i", [1]))


def test_a_long_example_does_not_make_short_ones_mostly_padding() -> None:
    short, long = [example(20)] * 60, example(400)
    batches = list(filled([*short, long, *short], 1000))
    for batch in batches:
        assert batch
        assert len(batch) * max(one.size_tokens for one in batch) <= MAX_PADDED * 1000
    assert sum(len(batch or ()) for batch in batches) == 121
    assert list(filled([long], 100)) == [[long]]


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    trainer = WarmTrainer(str(save_tiny_model(tmp_path)), revision=None, device="cpu", dtype=torch.float32)
    trainer.begin(load_recipes()["fast"].model_copy(update={"rank": 4, "alpha": 8}))
    with torch.no_grad():
        trainer.adapter.weights.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0"):
        trainer.step(pack([example(9)]), None)
