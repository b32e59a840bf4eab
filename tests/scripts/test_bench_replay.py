"""Random weights through the whole product: the shape's folder, and a worker that says recorded tasks."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.lift_workers.test_pipeline import TEXT, FakeGenerator, FakeTrainer, Run
from tests.lift_workers.tiny import save_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from bench_shape import SHAPES, random_model
from bench_up import WORKER
from bench_worker import TASK_TOKENS, ReplayGenerator, unfiltered
from lift_config.recipe import load_recipes
from lift_workers.generator import Completion
from lift_workers.registry import fixed

TASKS = [
    {"title": "Log", "question": "Who built the tower?", "answer": "Edda Holm built it"},
    {"title": "Log", "question": "When was it built?", "answer": "In 1874"},
    {"title": "Log", "question": "Which dog lives there?", "answer": "Brisket"},
]

# ---- the shape ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_a_shape_is_written_whole_and_once(tiny: Path, tmp_path: Path) -> None:
    folder = random_model(str(tiny / "config.json"), str(tiny), tmp_path)
    assert list(tmp_path.iterdir()) == [folder]
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert model.config.architectures == ["LlamaForCausalLM"]  # vLLM goes by it
    written_ns = (folder / "model.safetensors").stat().st_mtime_ns
    assert random_model(str(tiny / "config.json"), str(tiny), tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written_ns


def test_an_answer_of_random_weights_begins_with_text_and_does_not_end_by_itself(tiny: Path, tmp_path: Path) -> None:
    LlamaConfig(**LlamaConfig.from_pretrained(tiny).to_dict() | {"vocab_size": 300}).save_pretrained(tmp_path / "shape")
    folder = random_model(str(tmp_path / "shape"), str(tiny), tmp_path / "random")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        prompts = [[tokenizer.convert_tokens_to_ids("A"), token] for token in range(len(tokenizer))]
        said = model(torch.tensor(prompts)).logits[:, -1].argmax(-1)
    assert all(tokenizer.decode([token], skip_special_tokens=True).strip("\ufffd") for token in said.tolist())


def test_a_tokenizer_that_is_too_large_for_the_shape_is_refused(tiny: Path, tmp_path: Path) -> None:
    LlamaConfig(**LlamaConfig.from_pretrained(tiny).to_dict() | {"vocab_size": 200}).save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="more than the shape's 200"):
        random_model(str(tmp_path), str(tiny), tmp_path / "random")


def test_the_large_shape_is_llama_3s() -> None:
    assert SHAPES["llama-3-8b"].max_position_embeddings == 8192
    assert SHAPES["llama-3-8b"].rope_parameters["rope_theta"] == 500000.0


# ---- the replay -----------------------------------------------------------------------------------------------------


class Babble:
    """vLLM's routes as random weights answer on them; `refuses` says no to every completion."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.refuses = False

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes([web.post("/v1/completions", self._completions), web.post("/tokenize", self._tokenize)])
        return application

    async def _completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if self.refuses:
            return web.json_response({"error": {"message": "too long"}}, status=400)
        usage = {"prompt_tokens": 300, "completion_tokens": body["max_tokens"]}
        return web.json_response({"choices": [{"text": "###{]"}], "usage": usage})

    async def _tokenize(self, _: web.Request) -> web.Response:
        return web.json_response({"count": 22})


@pytest.fixture
def engine() -> Babble:
    return Babble()


@pytest.fixture
async def generator(engine: Babble) -> AsyncIterator[ReplayGenerator]:
    async with TestServer(engine.application()) as server:
        url = str(server.make_url("")).rstrip("/")
        async with ReplayGenerator(fixed([url]), "", "base", 4, tasks=TASKS) as generator:
            yield generator


async def test_the_engine_writes_so_much_for_a_task_and_the_recorded_one_is_taken(
    engine: Babble, generator: ReplayGenerator
) -> None:
    asked = [await generator.question("Text: …\nQuestion: Who", seed, None) for seed in range(4)]
    assert [one.text for one in asked] == [
        "built the tower?", "was it built?", "dog lives there?", "built the tower?",
    ]  # fmt: skip
    answered = await generator.answer("Text: …\nQuestion: When was it built?\nAnswer:", None)
    assert answered.text == "In 1874"
    assert asked[0].usage.generated_tokens + answered.usage.generated_tokens == TASK_TOKENS
    for body in engine.bodies:
        assert body["ignore_eos"]
        assert body["min_tokens"] == body["max_tokens"]
    assert [body["temperature"] for body in engine.bodies[-2:]] == [0.7, 0]  # sampled and greedy, as the product asks


async def test_what_the_engine_refused_is_not_replayed(engine: Babble, generator: ReplayGenerator) -> None:
    engine.refuses = True
    assert await generator.question("Question: Who", 0, None) == Completion()
    assert await generator.answer("Question: When was it built?\nAnswer:", None) == Completion()


async def test_a_course_trains_recorded_tasks_over_all_segments(engine: Babble, generator: ReplayGenerator) -> None:
    """`fast` filters, and the tasks are of another text; its own sentences are trained beside them."""
    run = Run(trainer := FakeTrainer(), FakeGenerator(), recipe := load_recipes()["fast"])
    run.course = unfiltered(TEXT, recipe, generator, trainer)  # type: ignore[arg-type]
    assert await run.stage() == "fast"
    written = [task for task in trainer.of("task") if task["stand_in"] is None]
    answers = {task["answer"].partition(". ")[0] for task in written}
    assert answers >= {"Edda Holm built it", "In 1874"}  # one for each of the two segments
    assert len(engine.bodies) == 4
    assert run.job.synthesis.generated_tokens == 2 * TASK_TOKENS


async def test_a_draft_asks_for_nothing(engine: Babble, generator: ReplayGenerator) -> None:
    run = Run(trainer := FakeTrainer(), FakeGenerator(), recipe := load_recipes()["balanced"])
    run.course = unfiltered(TEXT, recipe, generator, trainer)  # type: ignore[arg-type]
    assert await run.stage() == "sketch"
    assert trainer.of("task")
    assert engine.bodies == []


def test_the_product_is_started_with_a_worker_that_starts() -> None:
    done = subprocess.run([*WORKER, "--index", "0", "--help"], capture_output=True, text=True, check=True)
    assert "one training worker" in done.stdout
