"""scripts/bench_train.py: what is counted, and both loops on a tiny model."""

import json
import threading
from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch
from tests.lift_workers.tiny import save_tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from bench_common import TABLES
from bench_shape import hollow_model
from bench_train import Sizes, cells, sizes, speed
from bench_train_loops import IGNORED, Loaded, Ours, Plan, Reference, Round, Step, serve

TASKS = [
    {"title": "Log", "question": "Who built it?", "answer": "Edda Holm."},
    {"title": "Log", "question": "What is the keeper's dog called?", "answer": "Brisket."},
    {"title": "Log", "question": "When?", "answer": "In 1874."},
]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = save_tiny_model(tmp_path_factory.mktemp("model"))
    return Plan(str(folder), TASKS, "fast", "cpu", "float32", repeat=1)


def test_the_committed_tasks_are_tasks() -> None:
    tasks = [json.loads(line) for line in (TABLES / "tasks.jsonl").read_text("utf-8").splitlines()]
    assert len(tasks) >= 150
    assert all(set(task) == {"title", "question", "answer"} and all(task.values()) for task in tasks)


def test_sizes_are_those_of_the_linear_layers(plan: Plan) -> None:
    found = sizes(AutoModelForCausalLM.from_pretrained(plan.model), rank=16)
    attention = 2 * 32 * 32 + 2 * 32 * 16
    assert found.linear == 2 * (attention + 3 * 32 * 64)
    assert found.head == 258 * 32
    assert found.lora == 16 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))


def test_flops_forward_and_backward_without_gradients_of_frozen_weights() -> None:
    assert Sizes(linear=100, head=50, lora=10).flops(tokens=7, logit_rows=3) == 7 * (400 + 60) + 3 * 200


def one_step(seconds: float, tokens: int, logit_rows: int) -> Round:
    return Round(100.0, [Step(100.0 + seconds, tokens, logit_rows)], 2**20)


def test_a_speed_is_the_median_and_its_ratio_round_by_round() -> None:
    reference = [one_step(10.0, 200, 200), one_step(20.0, 200, 200), one_step(30.0, 200, 200)]
    ours = [one_step(5.0, 90, 30), one_step(5.0, 90, 30), one_step(15.0, 90, 30)]
    one = speed("float32", 512, ours, reference, 150, Sizes(1, 1, 0), 1e12)
    assert (one.ratio, one.useful_tokens_s, one.computed_tokens_s, one.peak_memory_mb) == (2.0, 30.0, 18.0, 1.0)
    assert one.tflops == one.sustained_tflops == pytest.approx((90 + 30) * 4 / 5.0 / 1e12)
    assert cells(one)[1] == "ours, 512 tokens a step"
    assert speed("float32", None, reference, reference, 150, Sizes(1, 1, 0), 1e12).ratio == 1.0


def test_what_is_sustained_leaves_the_first_half_out() -> None:
    steps = [Step(10.0, 100, 10), Step(11.0, 100, 10), Step(12.0, 100, 10), Step(12.5, 40, 4)]
    half = Round(0.0, steps, 0).last_half()
    assert (half.seconds, half.tokens, half.logit_rows) == (1.5, 140, 14)


def test_the_reference_frames_as_lift_v4_and_learns_the_answer_only(plan: Plan) -> None:
    reference = Reference(plan)
    row = reference._row(TASKS[0])
    kept = row["labels"] != IGNORED
    assert reference._tokenizer.decode(row["input_ids"][kept]) == "Edda Holm.<|im_end|>"
    assert reference._tokenizer.decode(row["input_ids"][~kept]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nPlease answer the question "
        'based on "Log".\nQuestion: Who built it?\nAnswer:<|im_end|>\n<|im_start|>assistant\n'
    )


def test_the_reference_computes_its_padding_and_ours_the_prefix_once(plan: Plan) -> None:
    reference, ours = Reference(plan), Ours(plan)
    lengths = [len(reference._row(task)["input_ids"]) for task in TASKS]
    theirs, mine = reference.round(0), ours.round(10_000)
    assert reference.useful_tokens == sum(lengths)
    assert (theirs.tokens, theirs.logit_rows, len(theirs.steps)) == (3 * max(lengths), 3 * max(lengths), 1)
    answers = sum(len(task["answer"]) + 1 for task in TASKS)
    assert (mine.logit_rows, len(mine.steps)) == (answers, 1)
    assert mine.tokens < reference.useful_tokens
    assert len(ours.round(1).steps) == len(TASKS)


def test_a_loops_process_answers_each_round_until_it_is_told_to_end(plan: Plan) -> None:
    here, there = Pipe()
    thread = threading.Thread(target=serve, args=(Ours, plan, there))
    thread.start()
    assert here.recv() == Loaded(0)
    here.send(64)
    done = here.recv()
    assert done.tokens > 0
    assert done.peak_bytes > 2**20
    here.send(None)
    thread.join()


def test_a_shape_becomes_a_model_of_random_weights(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "shape").mkdir()
    AutoConfig.from_pretrained(plan.model).save_pretrained(tmp_path / "shape")
    hollow_model(str(tmp_path / "shape" / "config.json"), plan.model, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert all(0 < weight.std() < 1 for weight in weights)
