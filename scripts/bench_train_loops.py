"""The two training loops that bench_train.py compares, each in a process of its own: ours and the reference.

In: a Plan, then one message a round through a pipe. Out: `Loaded`, then a Round for each message. Both train the same
tasks in the same order in every round.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from lift_config.recipe import Recipe, load_recipes
from lift_workers.encode import Encoder, TrainingExample, pack
from lift_workers.session import filled as filled
from lift_workers.train import WarmTrainer

Task = dict[str, str]

REFERENCE_BATCH = 4  # LIFT v4's per_device_train_batch_size
SYSTEM = "You are a helpful assistant."
TEMPLATE = 'Please answer the question based on "{title}".\nQuestion: {question}\nAnswer:'  # LIFT v4, LooGLE
IGNORED = -100  # transformers' label of a position without a loss


@dataclass(frozen=True)
class Plan:
    """What both loops train, on what. `repeat`: passes over the tasks in a round."""

    model: str
    tasks: Sequence[Task]
    recipe: str
    device: str
    dtype: str
    repeat: int

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True)
class Loaded:
    """`useful_tokens`: unpadded, of a round's examples in the official template (only the reference knows them)."""

    useful_tokens: int = 0


@dataclass(frozen=True)
class Step:
    """When it ended; the tokens it computed, and for how many of them logits."""

    end_s: float
    tokens: int
    logit_rows: int


@dataclass(frozen=True)
class Round:
    """`peak_bytes`: of the whole process, or of what torch allocated on the GPU."""

    began_s: float
    steps: Sequence[Step] = field(repr=False)
    peak_bytes: int

    @property
    def seconds(self) -> float:
        return self.steps[-1].end_s - self.began_s

    @property
    def tokens(self) -> int:
        return sum(step.tokens for step in self.steps)

    @property
    def logit_rows(self) -> int:
        return sum(step.logit_rows for step in self.steps)

    def last_half(self) -> Round:
        """Once nothing is warming up any more; the whole round where it has a single step."""
        middle = len(self.steps) // 2
        return Round(self.steps[middle - 1].end_s, self.steps[middle:], self.peak_bytes) if middle else self


def serve(make: Callable[[Plan], Loop], plan: Plan, pipe: Connection) -> None:
    """A child's whole life: load, then a round for every step size received, until None."""
    loop = make(plan)
    pipe.send(Loaded(loop.useful_tokens))
    while (tokens_per_step := pipe.recv()) is not None:
        pipe.send(loop.round(tokens_per_step))


class Ours:
    """The worker's trainer as its child drives it: each document's tasks in packs of `tokens_per_step`."""

    useful_tokens = 0

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._recipe = load_recipes()[plan.recipe]
        with torch.device(plan.device):  # weights that the folder lacks are made up where they are needed
            self._trainer = WarmTrainer(plan.model, revision=None, device=plan.device, dtype=plan.torch_dtype)
        encoder = Encoder(self._trainer.tokenizer)
        self._documents = [
            [encoder.encode(task["question"], task["answer"], title) for task in tasks]
            for title, tasks in groupby(plan.tasks, lambda task: task["title"])
        ]

    def round(self, tokens_per_step: int) -> Round:
        device = self._plan.device
        self._trainer.begin(self._recipe)
        batches, steps = self._batches(tokens_per_step), []
        reset_peak(device)
        began_s = now(device)
        for batch in batches:
            result = self._trainer.step(pack(batch, self._trainer.device), None)
            steps.append(Step(now(device), result.tokens, sum(len(example.answer) for example in batch)))
        return Round(began_s, steps, peak_bytes(device))

    def _batches(self, tokens_per_step: int) -> list[list[TrainingExample]]:
        passes = [document for _ in range(self._plan.repeat) for document in self._documents]
        return [batch for document in passes for batch in filled(document, tokens_per_step) if batch]


class Reference:
    """LIFT v4's loop: transformers' Trainer over PEFT, padded batches, logits everywhere, no checkpointing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._recipe = load_recipes()[plan.recipe]
        self._tokenizer: Any = AutoTokenizer.from_pretrained(plan.model)
        with torch.device(plan.device):
            base = AutoModelForCausalLM.from_pretrained(plan.model, dtype=plan.torch_dtype)
        self._model: Any = get_peft_model(base.to(plan.device), _lora(self._recipe))
        self._rows = [self._row(task) for task in plan.tasks]
        self.useful_tokens = plan.repeat * sum(len(row["input_ids"]) for row in self._rows)

    def round(self, _: int) -> Round:
        clock = _Clock(self._plan.device)
        self._computed = clock.computed
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                self._model,
                _training_arguments(self._plan, self._recipe, folder),
                data_collator=self._padded,
                train_dataset=self._rows,
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        steps = [Step(end_s, tokens, tokens) for end_s, tokens in zip(clock.ends_s, clock.computed, strict=True)]
        return Round(clock.began_s, steps, peak_bytes(self._plan.device))

    def _row(self, task: Task) -> dict[str, torch.Tensor]:
        user = TEMPLATE.format(title=task["title"], question=task["question"])
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, task["answer"])]
        row = torch.tensor([*ids[0], *ids[1], self._tokenizer.eos_token_id])
        labels = row.clone()
        labels[: len(ids[0])] = IGNORED
        return {"input_ids": row, "labels": labels}

    def _padded(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = pad_sequence([row["input_ids"] for row in rows], batch_first=True)
        labels = pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=IGNORED)
        lengths = torch.tensor([[len(row["input_ids"])] for row in rows])
        self._computed.append(ids.numel())
        return {"input_ids": ids, "labels": labels, "attention_mask": (torch.arange(ids.shape[1]) < lengths).long()}


Loop = Ours | Reference


class _Clock(TrainerCallback):  # type: ignore[misc]
    """From the first step's beginning, so that building the Trainer does not count."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.began_s = 0.0
        self.ends_s: list[float] = []
        self.computed: list[int] = []  # tokens of each batch, padding included

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if not self.began_s:
            reset_peak(self._device)
            self.began_s = now(self._device)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends_s.append(now(self._device))


def _lora(recipe: Recipe) -> LoraConfig:
    return LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def _training_arguments(plan: Plan, recipe: Recipe, folder: str) -> TrainingArguments:
    return TrainingArguments(
        folder,
        per_device_train_batch_size=REFERENCE_BATCH,
        num_train_epochs=plan.repeat,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        bf16=plan.dtype == "bfloat16",  # else PEFT's float32 LoRA weights would be multiplied in float32
        use_cpu=plan.device == "cpu",
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def now(device: str) -> float:
    """After everything launched so far."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now


def peak_bytes(device: str) -> int:
    """The most since the last reset."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
