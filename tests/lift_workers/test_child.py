"""The training child as a process: tasks in, an adapter out, one document after the other."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lift_workers.tiny import save_tiny_model

from lift_config.contract import ADAPTER_FILES
from lift_config.recipe import load_recipes

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

    def train(self, folder: Path, tasks: int, **recipe: Any) -> list[dict[str, Any]]:
        """All events of one document."""
        values = load_recipes()["balanced"].model_copy(update={"rank": 4, "alpha": 8, **recipe}).model_dump()
        self.say(op="begin", title="A title", recipe=values, folder=str(folder))
        for number in range(tasks):
            self.say(op="task", question=f"What is number {number}?", answer=f"It is {number}.")
        self.say(op="end")
        events = [self.hear()]
        while events[-1]["event"] != "done":
            events.append(self.hear())
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


def test_steps_are_counted_and_the_adapter_is_written(child: Child, tmp_path: Path) -> None:
    events = child.train(tmp_path, tasks=12, epochs=3, tokens_per_step=200)
    assert events[0] == {"event": "started"}
    progress = [event for event in events if event["event"] == "progress"]
    assert [event["steps"] for event in progress] == list(range(1, len(progress) + 1))
    assert progress[-1]["loss"] < progress[0]["loss"]
    assert events[-1]["examples"] == progress[-1]["examples"] == 3 * 12  # of three epochs
    assert set(ADAPTER_FILES) <= {path.name for path in tmp_path.iterdir()}


def test_training_starts_before_the_last_task(child: Child, tmp_path: Path) -> None:
    values = load_recipes()["balanced"].model_copy(update={"rank": 4, "alpha": 8, "tokens_per_step": 60}).model_dump()
    child.say(op="begin", title=None, recipe=values, folder=str(tmp_path))
    for number in range(4):
        child.say(op="task", question=f"What is number {number}?", answer=f"It is {number}.")
    assert child.hear() == {"event": "started"}
    assert child.hear()["steps"] == 1
    child.say(op="end")
    while child.hear()["event"] != "done":
        pass


def test_every_document_starts_anew(child: Child, tmp_path: Path) -> None:
    runs = [child.train(tmp_path / str(run), tasks=6, tokens_per_step=100) for run in range(2)]
    assert runs[0] == runs[1]
    weights = [(tmp_path / str(run) / ADAPTER_FILES[0]).read_bytes() for run in range(2)]
    assert weights[0] == weights[1]
