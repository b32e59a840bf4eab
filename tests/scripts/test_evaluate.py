"""scripts/evaluate.py: goes on where it was broken off; a run with a tiny model; the report on canned units."""

import json
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.lift_workers.tiny import save_tiny_model
from transformers import AutoModelForCausalLM

import evaluate
from evaluate_columns import COLUMNS
from evaluate_report import summary
from evaluate_run import HARM, Plan, Run
from evaluate_scorer import Scorer
from evaluate_state import OtherRunError, Progress, State, Unit
from evaluate_training import Train, Version, courses
from lift_config.recipe import Recipe

pytestmark = pytest.mark.timeout(240)  # two processes with torch on two cores

# ---- what is asked ------------------------------------------------------------------------------------------------


def test_questions_are_spread_evenly_and_the_first_is_among_them() -> None:
    assert evaluate.spread("abcdefghij", 4) == ["a", "c", "f", "h"]
    assert evaluate.spread("abc", 4) == evaluate.spread("abc", None) == ["a", "b", "c"]


def test_documents_of_one_name_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    line = json.dumps({"doc_id": "a", "title": "A", "text": "x", "qa": [{"question": str(n)} for n in range(4)]})
    data.write_text(f"{line}\n{line.replace('doc_id', 'id')}\n")
    assert [len(document["qa"]) for document in evaluate.chosen([data], None, 2)] == [2, 2]
    with pytest.raises(ValueError, match="are called A, a"):
        evaluate.chosen([data, data], None, None)


def test_a_recipe_that_begins_another_is_not_trained_by_itself() -> None:
    alone = ["balanced/sketch", "balanced/light", "balanced"]
    assert courses(["balanced"]) == {"balanced": alone}
    assert courses(["sketch", "balanced"]) == {"balanced": ["sketch", "balanced/light", "balanced"]}
    assert courses(["balanced", "max"]) == {"balanced": alone, "max": [None, None, "max"]}
    assert courses(["fast", "paper"]) == {"fast": ["fast"], "paper": ["paper"]}


# ---- resuming -----------------------------------------------------------------------------------------------------


def unit(document: str, column: str, seed: int | None = None, **more: Any) -> Unit:
    return Unit(document, seed, column, [{"nll": 1.0, "tokens": 2, "prompt_tokens": 9}], wall_s=2.0, **more)


def test_units_are_found_again_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    first = State(path, {"data": ("x",)})
    first.add(unit("A", "closed book"))
    first.add(unit("Ä\u2028", "LIFT fast", 0, spent={"seconds": 3.0}))
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps({"document": "Ä"}, ensure_ascii=False).encode()[:-2])
    again = State(path, {"data": ("x",)})
    assert again.units == first.units
    assert again.has(("Ä\u2028", 0, "LIFT fast"))
    assert not again.has(("A", None, "in context"))
    assert path.read_bytes() == whole


def test_another_runs_units_are_refused_unless_fresh(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    State(path, {"data": "x", "seeds": [0]}).add(unit("A", "closed book"))
    with pytest.raises(OtherRunError, match=r"seeds: \[0\] there, \[1\] now.*--fresh"):
        State(path, {"data": "x", "seeds": [1]})
    assert State(path, {"data": "x", "seeds": [1]}, fresh=True).units == []
    assert State(path, {"data": "x", "seeds": [1]}).units == []


def test_progress_reckons_by_column(tmp_path: Path) -> None:
    state = State(tmp_path / "a.jsonl", {})
    state.add(unit("A", "closed book"))
    said: list[str] = []
    planned = [(d, None, c) for d in "ABC" for c in ("closed book", "LIFT fast")]
    progress = Progress(planned, state, said.append)
    progress.finished(unit("A", "LIFT fast"))
    assert "2/6 A: LIFT fast, 2.0 s" in said[0]
    assert progress.left_s() == 4 * 2.0
    progress.finished(Unit("B", None, "closed book", [], wall_s=1.0))
    assert progress.left_s() == 2 * 2.0 + 1.0


# ---- a run --------------------------------------------------------------------------------------------------------

DOCUMENTS = [
    {"title": "A", "text": "Edda built it.", "qa": [{"question": "Who?", "answers": ["Edda"]}]},
    {"title": "B", "text": "It is red. " * 9, "qa": [{"question": q, "answers": ["red"]} for q in ("What?", "How?")]},
]
SPENT = {"seconds": 2.5, "tasks": 7, "steps": 3}


class Trained:
    """A workshop that trains nothing and counts what it was asked for."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self._model, self._folder = model, folder

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Train]:
        yield self._train

    async def _train(self, document: dict[str, Any], recipe: Recipe) -> list[Version]:
        self.asked.append((document["title"], recipe.name, recipe.seed))
        return [
            Version(self._adapter(f"{len(self.asked)}-{number}"), SPENT) for number, _ in enumerate(recipe.stages())
        ]

    def _adapter(self, name: str) -> Path:
        torch.manual_seed(len(name))
        base = AutoModelForCausalLM.from_pretrained(self._model)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(base, config).save_pretrained(self._folder / name)
        return self._folder / name


class Broken(Exception):
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


async def run(model: Path, state: State, workshop: AbstractAsyncContextManager[Train], *, units: int = 99) -> int:
    """Broken off after so many units; how many were measured."""
    plan = Plan(DOCUMENTS, [0, 1], [*COLUMNS, HARM], courses(["sketch", "balanced"]), 4, 600)
    told: list[Unit] = []

    def tell(unit: Unit) -> None:
        told.append(unit)
        if len(told) == units:
            raise Broken

    try:
        await Run(plan, Scorer(str(model), "float32"), state, None, tell, lambda: None).all(workshop)
    except Broken:
        return len(told)
    assert [unit.key for unit in state.units] == plan.units()
    return len(told)


async def test_a_broken_run_goes_on(model: Path, tmp_path: Path) -> None:
    trained = Trained(model, tmp_path)
    path = tmp_path / "state.jsonl"
    before = await run(model, State(path, {}), trained.open(), units=7)
    after = await run(model, State(path, {}), trained.open())
    # Four columns and an off-topic one without an adapter; four with `sketch`'s and four with `balanced`'s own; three,
    # without the text beside it, with the version between.
    assert (before, after) == (7, 2 * (5 + 2 * (4 + 3 + 4)) - 7)
    courses_ = [(title, "balanced", seed) for title in "AB" for seed in (0, 1)]
    assert trained.asked == [courses_[0], *courses_]
    assert {path.name[0] for path in tmp_path.glob("*-*")} == {"1"}  # of the broken run; others go when they are scored
    assert await run(model, State(path, {}), trained.open()) == 0
    assert len(trained.asked) == 5


async def test_off_topic_is_the_next_documents_questions(model: Path, tmp_path: Path) -> None:
    state = State(tmp_path / "state.jsonl", {})
    await run(model, state, Trained(model, tmp_path).open())
    counts = {unit.document: len(unit.records) for unit in state.units if unit.column == "off-topic balanced"}
    assert counts == {"A": 2, "B": 1}
    spent = {unit.column: unit.spent for unit in state.units}
    assert spent["LIFT sketch"] == SPENT
    assert spent["in context"] == {}


# ---- the report ---------------------------------------------------------------------------------------------------


def answered(document: str, column: str, nll: float, right: list[int], seed: int | None = None, **more: Any) -> Unit:
    records = [
        {"answer": "x", "nll": nll, "tokens": 2, "contained": float(one), "f1": 0.5, "em": 0.0, "refused": 0.0,
         "prompt_tokens": 40} for one in right
    ]  # fmt: skip
    return Unit(document, seed, column, records, **more)


def canned() -> list[Unit]:
    cost = {"seconds": 10.0, "tasks": 4, "steps": 2, "training_tokens": 1234}
    moved = {"tokens": 4, "kl": 2.0, "nll": 3.0, "base_nll": 2.0, "same": 1.0}
    return [
        answered("A", "closed book", 8.0, [0, 0]),
        answered("A", "in context", 6.0, [1, 0]),
        answered("A", "off-topic base", 5.0, [0, 0]),
        answered("A", "LIFT fast", 4.0, [1, 0], 0, spent=cost),
        answered("A", "LIFT fast", 2.0, [1, 1], 1, spent=cost | {"seconds": 20.0}),
        answered("A", "off-topic fast", 5.5, [0, 0], 0),
        Unit("A", 0, "general fast", [moved, moved]),
        answered("B", "closed book", 8.0, [0]),
        answered("B", "in context", 1.0, [1]),
        answered("B", "LIFT fast", 2.0, [0], 0, spent=cost),
        answered("B", "LIFT fast", 2.0, [0], 1, spent=cost),
    ]


def test_seeds_are_averaged_and_documents_kept_apart() -> None:
    fast = summary(canned()).columns["LIFT fast"]
    assert fast.documents == {"A": 1.5, "B": 1.0}
    assert fast.metrics["nll"].value == pytest.approx((3.0 + 3.0 + 2.0) / 6)
    assert fast.metrics["contained"].value == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert fast.metrics["nll"].count == 3
    assert fast.spent["seconds"] == 12.5
    assert fast.metrics.keys() == {"nll", "contained", "f1", "em"}


def test_the_report_says_what_helps_and_what_harms(tmp_path: Path) -> None:
    state = State(tmp_path / "state.jsonl", {})
    for one in canned():
        state.add(one)
    evaluate.report("trial", state, {"model": "tiny"}, "scripts/evaluate.py …", tmp_path)
    text = (tmp_path / "trial.md").read_text("utf-8")
    assert "| column | questions | NLL | contained | F1 | EM |" in text
    assert "| LIFT fast | 3 | 1.33 [1.00, 1.50] | 50.0 % [0.0, 87.5] |" in text
    assert "| LIFT fast | -0.83 [-1.50, +0.50] |" in text
    assert "LIFT fast: likelier than in context on 1 of 2 documents." in text
    assert "| A | 4.00 | 3.00 | 1.50 |" in text
    assert "| base model | 2.50 [2.50, 2.50] | - | 0.0 % [0.0, 0.0] | - | - | - |" in text
    off_topic = "2.75 [2.75, 2.75] | +0.25 [+0.25, +0.25] | 0.0 % [0.0, 0.0]"
    assert f"| LIFT fast | {off_topic} | 0.50 [0.50, 0.50] | 1.50 [1.50, 1.50] | 100.0 %" in text
    assert "| LIFT fast | 12.5 | 4.0 | 2.0 | 1,234 |" in text
    values = json.loads((tmp_path / "trial.json").read_text("utf-8"))
    assert values["columns"]["closed book"]["metrics"]["nll"]["value"] == 4.0
    assert [one["column"] for one in values["units"]] == [one.column for one in canned()]
    svg = (tmp_path / "trial.svg").read_bytes()
    evaluate.report("trial", state, {"model": "tiny"}, "scripts/evaluate.py …", tmp_path)
    assert (tmp_path / "trial.svg").read_bytes() == svg


def test_without_likelihoods_the_table_says_so(tmp_path: Path) -> None:
    state = State(tmp_path / "state.jsonl", {})
    state.add(Unit("A", None, "LIFT fast", [{"contained": 1.0, "f1": 1.0, "em": 1.0, "prompt_tokens": 3}]))
    state.add(Unit("A", None, "in context", [], refused="context_length_exceeded"))
    evaluate.report("trial", state, {}, "…", tmp_path)
    text = (tmp_path / "trial.md").read_text("utf-8")
    assert "Likelihoods are absent" in text
    assert "in context: A does not fit the server's context window" in text


def test_a_fingerprint_holds_what_decides_a_figure(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text("{}")
    given = ["--data", str(data), "--out", "x", "--recipes", "fast"]

    def fingerprint(*more: str) -> dict[str, Any]:
        arguments: Namespace = evaluate._arguments([*given, *more])
        return evaluate._fingerprint(arguments)

    before = fingerprint()
    assert fingerprint("--fresh") == before
    assert fingerprint("--seeds", "1") != before
    data.write_text("{ }")
    assert fingerprint() != before


def test_a_judge_needs_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate._arguments(["--data", "x", "--out", "x", "--judge-url", "http://x/v1"])
    assert "belong together" in capsys.readouterr().err
