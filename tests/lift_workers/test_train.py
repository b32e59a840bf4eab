"""Packing is the same mathematics as separate rows; a warm trainer leaves nothing of one document in the next."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.lift_workers.tiny import save_tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GraniteConfig, GraniteForCausalLM

from lift_config.contract import ADAPTER_FILES
from lift_config.prompts import frame
from lift_config.recipe import Recipe, load_recipes
from lift_workers.encode import Encoder, TrainingExample, pack, shared_prefix
from lift_workers.loss import ROWS, weighted_loss
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
    return WarmTrainer(str(folder), revision=None, device="cpu", dtype=torch.float32)


@pytest.fixture
def examples(trainer: WarmTrainer) -> list[TrainingExample]:
    return [Encoder(trainer.tokenizer).encode(question, answer, TITLE) for question, answer in TASKS]


@pytest.fixture
def plain(folder: Path, tmp_path: Path) -> PlainLoop:
    return PlainLoop(folder, tmp_path / "exported")


def recipe(**changes: Any) -> Recipe:
    return load_recipes()["balanced"].model_copy(update={"rank": 4, "alpha": 8, "served_alpha": 8, **changes})


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
    torch.testing.assert_close(packed.weights_A, torch.full((len(packed.labels_A),), 1 / len(packed.labels_A)))


def test_a_questions_own_words_are_trained_where_they_count(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = "Who keeps the archive in Karsund?"
    example = Encoder(tokenizer).encode(question, "Pavel", "Harbour")
    packed = pack([example], prompt_loss_weight=0.5)
    trained = tokenizer.decode(packed.labels_A[len(example.answer) :])
    assert trained.endswith("keeps the archive in Karsund")
    assert packed.input_ids_T[packed.rows_A + 1].tolist() == packed.labels_A.tolist()
    torch.testing.assert_close(packed.weights_A[: len(example.answer)].sum(), torch.tensor(1.0))
    torch.testing.assert_close(packed.weights_A[len(example.answer) :].sum(), torch.tensor(0.5))


def test_words_that_stand_for_the_answer_are_not_trained(folder: Path) -> None:
    """Else an adapter says them: "The ship is called who or what"."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = "In June who or what keeps the archive?"
    example = Encoder(tokenizer).encode(question, "Pavel", None, (8, 19))
    trained = tokenizer.decode([example.prompt[place] for place in example.question])
    assert "keeps the archive" in trained
    assert "who" not in trained
    assert "what" not in trained


def test_what_questions_share_is_trained_once(folder: Path) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(folder))
    examples = [encoder.encode(f"Who keeps the {what}?", "Pavel", None) for what in ("archive", "ship", "key")]
    packed = pack(examples, prompt_loss_weight=1.0)
    shared = shared_prefix([example.prompt for example in examples])
    assert any(i < shared for i in examples[0].question)
    once = sum(i < shared for i in examples[0].question)
    own = sum(i >= shared for example in examples for i in example.question)
    assert len(packed.labels_A) == once + own + sum(len(example.answer) for example in examples)
    assert packed.input_ids_T[packed.rows_A + 1].tolist() == packed.labels_A.tolist()


def test_a_template_that_changes_the_question_trains_its_answer_alone(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = Encoder(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    packed = pack([encoder.encode("Who keeps it?", "PAVEL", None)], prompt_loss_weight=0.5)
    assert tokenizer.decode(packed.labels_A).startswith("PAVEL")
    torch.testing.assert_close(packed.weights_A.sum(), torch.tensor(1.0))


def test_an_empty_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pack([])


def test_packed_loss_and_gradients_equal_separate_rows(
    trainer: WarmTrainer, examples: list[TrainingExample], plain: PlainLoop
) -> None:
    """Against transformers' own attention and peft's own layers, one example a row."""
    weights = perturbed(trainer)
    packed = trainer.loss(pack(examples))
    torch.autograd.backward(packed)
    plain.load(trainer)
    rows = plain.loss(examples)
    torch.testing.assert_close(packed, rows, rtol=1e-5, atol=1e-6)
    theirs = torch.autograd.grad(rows, list(plain.parameters.values()))
    ours = plain.named(weights.grad, trainer)
    for name, gradient in zip(plain.parameters, theirs, strict=True):
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_prompts_that_share_nothing_are_packed_alike(trainer: WarmTrainer, plain: PlainLoop) -> None:
    examples = [
        TrainingExample(array("i", [5, 9, 7]), array("i", [8, 1])),
        TrainingExample(array("i", [6]), array("i", [9])),
    ]
    perturbed(trainer)
    plain.load(trainer)
    torch.testing.assert_close(trainer.loss(pack(examples)), plain.loss(examples), rtol=1e-5, atol=1e-6)


def test_training_equals_the_plain_loop(
    trainer: WarmTrainer, examples: list[TrainingExample], plain: PlainLoop
) -> None:
    """Same tasks, order and seed: steps of ours against peft and torch's own AdamW on unpacked rows."""
    settings = recipe(schedule="constant")
    batches = [examples, examples[:2], examples[1:]]
    trainer.begin(settings)
    plain.load(trainer)
    ours = [trainer.step(pack(batch), None).loss for batch in batches]

    parameters = list(plain.parameters.values())
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    theirs = []
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = learning_rate(settings, step, None)
        loss = plain.loss(batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        theirs.append(loss.item())
    assert ours == pytest.approx(theirs, rel=1e-4)
    mine = plain.named(trainer.adapter.weights.detach(), trainer)
    for name, parameter in plain.parameters.items():
        torch.testing.assert_close(mine[name], parameter.detach(), rtol=1e-3, atol=1e-5, msg=name)


def test_a_head_that_does_more_is_left_to_the_model(trainer: WarmTrainer, tmp_path: Path) -> None:
    """Granite divides its logits; the loss must be of those."""
    trainer.tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = GraniteConfig(vocab_size=len(trainer.tokenizer), num_key_value_heads=2, logits_scaling=4.0, **sizes)
    GraniteForCausalLM(config).save_pretrained(tmp_path)
    granite = WarmTrainer(str(tmp_path), revision=None, device="cpu", dtype=torch.float32)
    granite.begin(recipe())
    example = Encoder(granite.tokenizer).encode("Who?", "Pavel Doru", None)
    plain = PlainLoop(tmp_path, tmp_path / "exported")
    plain.load(granite)
    torch.testing.assert_close(granite.loss(pack([example])), plain.loss([example]), rtol=1e-5, atol=1e-6)
    assert not granite._has_plain_head
    trainer.begin(recipe())
    assert trainer._has_plain_head


def test_the_fused_loss_is_cross_entropy() -> None:
    rows = 2 * ROWS + 3
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, 16, generator=generator, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator)
    labels = torch.randint(0, 50, (rows,), generator=generator)
    weights = torch.rand(rows, generator=generator)
    plain = nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="none") @ weights
    fused = weighted_loss(hidden, weight, labels, weights)
    torch.testing.assert_close(fused, plain)
    for ours, theirs in zip(
        torch.autograd.grad(3 * fused, hidden), torch.autograd.grad(3 * plain, hidden), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_steps_go_the_same_way(folder: Path, examples: list[TrainingExample]) -> None:
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        trainer = WarmTrainer(str(folder), revision=None, device="cpu", dtype=dtype)
        trainer.begin(recipe())
        losses.append([trainer.step(pack(examples), None).loss for _ in range(6)])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1][-1] < losses[1][0]


def test_a_second_document_starts_from_the_same_weights(trainer: WarmTrainer, examples: list[TrainingExample]) -> None:
    def run() -> list[float]:
        trainer.begin(recipe())
        return [trainer.step(pack(examples), 4).loss for _ in range(4)]

    first = run()
    trainer.begin(recipe(seed=1))
    trainer.step(pack(examples[:1]), 1)
    assert run() == first
    assert first[-1] < first[0]


def test_another_rank_is_another_adapter(trainer: WarmTrainer, examples: list[TrainingExample]) -> None:
    sizes = set()
    for rank in (4, 8, 4):
        trainer.begin(recipe(rank=rank))
        trainer.step(pack(examples), 1)
        sizes.add(trainer.adapter.weights.numel() // rank)
    assert len(sizes) == 1


def test_nothing_is_allocated_for_another_document(trainer: WarmTrainer, examples: list[TrainingExample]) -> None:
    def buffers() -> list[int]:
        weights = trainer.adapter.weights
        assert weights.grad is not None
        return [weights.data_ptr(), weights.grad.data_ptr()]

    trainer.begin(recipe())
    trainer.step(pack(examples), 1)
    before = buffers()
    trainer.begin(recipe(seed=7))
    trainer.step(pack(examples), 1)
    assert buffers() == before


def test_a_document_put_aside_goes_on_where_it_was(trainer: WarmTrainer, examples: list[TrainingExample]) -> None:
    def four_steps(*, interrupted: bool) -> list[float]:
        trainer.begin(recipe())
        losses = [trainer.step(pack(examples), 4).loss for _ in range(2)]
        if interrupted:
            snapshot = trainer.snapshot()
            trainer.begin(recipe(seed=3, rank=8))
            trainer.step(pack(examples[:1]), 1)
            trainer.restore(snapshot)
        return losses + [trainer.step(pack(examples), 4).loss for _ in range(2)]

    assert four_steps(interrupted=True) == four_steps(interrupted=False)


def test_a_later_stage_keeps_the_weights_and_cannot_change_the_rank(
    trainer: WarmTrainer, examples: list[TrainingExample]
) -> None:
    trainer.begin(recipe())
    first = [trainer.step(pack(examples), None).loss for _ in range(5)]
    trainer.stage(recipe(learning_rate=1e-3))
    assert trainer.step(pack(examples), None).loss < first[-1]
    with pytest.raises(ValueError, match="rank"):
        trainer.stage(recipe(rank=8))


def test_export_is_what_peft_and_vllm_read(
    trainer: WarmTrainer, examples: list[TrainingExample], tmp_path: Path
) -> None:
    trainer.begin(recipe(served_alpha=6))
    trainer.step(pack(examples), 1)
    trainer.export(tmp_path)
    assert set(ADAPTER_FILES) <= {path.name for path in tmp_path.iterdir()}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 4, 6, "none")
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


def perturbed(trainer: WarmTrainer) -> nn.Parameter:
    """B is zero in a fresh adapter, and with it all gradients of A."""
    trainer.begin(recipe())
    weights = trainer.adapter.weights
    with torch.no_grad():
        weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    trainer.adapter.refresh()
    return weights


class PlainLoop:
    """The same base model with peft's LoRA: rows one by one, full logits."""

    def __init__(self, folder: Path, exported: Path) -> None:
        self._folder, self._exported = folder, exported

    def load(self, trainer: WarmTrainer) -> None:
        """Begin from the trainer's weights, by way of its export."""
        trainer.export(self._exported)
        base = AutoModelForCausalLM.from_pretrained(self._folder, dtype=torch.float32)
        self._model: Any = PeftModel.from_pretrained(base, self._exported, is_trainable=True)
        self.parameters = {
            name.replace(".default", ""): p for name, p in self._model.named_parameters() if p.requires_grad
        }

    def loss(self, examples: list[TrainingExample]) -> torch.Tensor:
        answers = sum(len(example.answer) for example in examples)
        return torch.stack([self._nll(example) for example in examples]).sum() / answers

    def named(self, flat: torch.Tensor | None, trainer: WarmTrainer) -> dict[str, torch.Tensor]:
        """A flat buffer of ours by peft's names."""
        assert flat is not None
        with torch.no_grad():
            kept = trainer.adapter.weights.clone()
            trainer.adapter.weights.copy_(flat)
            trainer.export(self._exported)
            trainer.adapter.weights.copy_(kept)
        tensors: dict[str, torch.Tensor] = load_file(self._exported / ADAPTER_FILES[0])
        return tensors

    def _nll(self, example: TrainingExample) -> torch.Tensor:
        ids = torch.tensor([example.prompt + example.answer])
        labels = ids.clone()
        labels[0, : len(example.prompt)] = -100
        loss: torch.Tensor = self._model(input_ids=ids, labels=labels).loss
        return loss * len(example.answer)
