"""Packing is the same mathematics as separate rows; a warm trainer leaves nothing of one document in the next."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.lift_workers.tiny import save_tiny_model
from torch import nn

from lift_config.contract import ADAPTER_FILES
from lift_config.prompts import frame
from lift_config.recipe import Recipe, load_recipes
from lift_workers.encode import Encoder, TrainingExample, pack, shared_prefix
from lift_workers.train import WarmTrainer, learning_rate

TASKS = [
    ("What is the ship called?", "Greta Lund"),
    ("Who repairs the generator?", "Pavel Doru"),
    ("Where does it stand?", "on Karsund, an island"),
]
TITLE = "Velmora handbook"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def trainer(folder: Path) -> WarmTrainer:
    return WarmTrainer(str(folder), revision=None, device="cpu")


@pytest.fixture
def examples(trainer: WarmTrainer) -> list[TrainingExample]:
    return [Encoder(trainer.tokenizer).encode(question, answer, TITLE) for question, answer in TASKS]


def recipe(**changes: Any) -> Recipe:
    return load_recipes()["balanced"].model_copy(update={"rank": 4, "alpha": 8, **changes})


def test_the_prompt_is_what_the_engine_will_see(trainer: WarmTrainer) -> None:
    example = Encoder(trainer.tokenizer).encode("Who?", "Pavel", TITLE)
    framed = frame([{"role": "user", "content": "Who?"}], TITLE)
    asked = trainer.tokenizer.apply_chat_template(framed, add_generation_prompt=True, tokenize=True)["input_ids"]
    assert list(example.prompt) == asked
    assert trainer.tokenizer.decode(example.answer) == "Pavel<|im_end|>"


def test_shared_prefix_leaves_each_prompt_a_token() -> None:
    assert shared_prefix([(1, 2, 3), (1, 2, 4)]) == 2
    assert shared_prefix([(1, 2), (1, 2)]) == 1
    assert shared_prefix([(1, 2, 3), (1, 2)]) == 1
    assert shared_prefix([(5,), (6,)]) == 0


def test_a_pack_computes_the_shared_prompt_once(examples: list[TrainingExample]) -> None:
    shared = shared_prefix([example.prompt for example in examples])
    packed = pack(examples)
    assert packed.input_ids_T.numel() == sum(e.size_tokens for e in examples) - (len(examples) - 1) * shared
    assert packed.labels_A.tolist() == [token for example in examples for token in example.answer]


def test_an_empty_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pack([])


def test_packed_loss_and_gradients_equal_separate_rows(trainer: WarmTrainer, examples: list[TrainingExample]) -> None:
    trainer.begin(recipe())
    perturb(trainer)
    packed = trainer.loss(pack(examples))
    packed_gradients = torch.autograd.grad(packed, trainer.parameters)
    answers = sum(len(example.answer) for example in examples)
    rows = torch.stack([reference_nll(trainer, example) for example in examples]).sum() / answers
    torch.testing.assert_close(packed, rows, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(packed_gradients, torch.autograd.grad(rows, trainer.parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_training_equals_the_plain_loop(trainer: WarmTrainer, examples: list[TrainingExample]) -> None:
    """Same tasks, order and seed: three steps of ours against torch's own AdamW on unpacked rows."""
    settings = recipe(schedule="constant")
    trainer.begin(settings)
    ours = [trainer.step(pack(examples), None).loss for _ in range(3)]
    weights = [parameter.detach().clone() for parameter in trainer.parameters]

    trainer.begin(settings)
    optimizer = torch.optim.AdamW(trainer.parameters, weight_decay=0.0)
    answers = sum(len(example.answer) for example in examples)
    theirs = []
    for step in range(3):
        optimizer.param_groups[0]["lr"] = learning_rate(settings, step, None)
        loss = torch.stack([reference_nll(trainer, example) for example in examples]).sum() / answers
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trainer.parameters, 1.0)
        optimizer.step()
        theirs.append(loss.item())
    assert ours == pytest.approx(theirs, rel=1e-4)
    for mine, plain in zip(weights, trainer.parameters, strict=True):
        torch.testing.assert_close(mine, plain.detach(), rtol=1e-3, atol=1e-5)


def test_a_second_document_starts_from_the_same_weights(trainer: WarmTrainer, examples: list[TrainingExample]) -> None:
    def run() -> list[float]:
        trainer.begin(recipe())
        return [trainer.step(pack(examples), 4).loss for _ in range(4)]

    first, other = run(), (trainer.begin(recipe(seed=1)), trainer.step(pack(examples[:1]), 1))
    assert other
    assert run() == first
    assert first[-1] < first[0]


def test_another_rank_is_another_adapter(trainer: WarmTrainer, examples: list[TrainingExample]) -> None:
    for rank in (4, 8, 4):
        trainer.begin(recipe(rank=rank))
        trainer.step(pack(examples), 1)
        assert {min(parameter.shape) for parameter in trainer.parameters} == {rank}


def test_export_is_what_peft_and_vllm_read(
    trainer: WarmTrainer, examples: list[TrainingExample], tmp_path: Path
) -> None:
    trainer.begin(recipe())
    trainer.step(pack(examples), 1)
    trainer.export(tmp_path)
    assert set(ADAPTER_FILES) <= {path.name for path in tmp_path.iterdir()}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 4, 8, "none")
    assert not config["modules_to_save"]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2  # A and B of seven projections in two layers
    assert any(tensor.abs().sum() > 0 for name, tensor in tensors.items() if "lora_B" in name)


def test_learning_rate_warms_up_and_falls() -> None:
    linear, peak = recipe(schedule="linear"), recipe().learning_rate
    assert learning_rate(linear, 0, None) == pytest.approx(peak / 4)
    assert learning_rate(linear, 50, None) == peak
    assert learning_rate(linear, 50, 100) == pytest.approx(peak / 2)
    assert learning_rate(recipe(schedule="constant"), 99, 100) == peak


def perturb(trainer: WarmTrainer) -> None:
    """B is zero in a fresh adapter, and with it all gradients of A."""
    with torch.no_grad():
        for number, parameter in enumerate(trainer.parameters):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)), alpha=0.05)


def reference_nll(trainer: WarmTrainer, example: TrainingExample) -> torch.Tensor:
    """The example alone through the whole causal model: summed negative log-likelihood of its answer."""
    ids = torch.tensor([example.prompt + example.answer])
    labels = ids.clone()
    labels[0, : len(example.prompt)] = -100
    loss: torch.Tensor = trainer.model(input_ids=ids, labels=labels).loss
    return loss * len(example.answer)
