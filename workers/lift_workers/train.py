"""Train: packs in, LoRA weights out, on one warm model.

The base model, the LoRA parameters, their gradients and the optimizer's state are built once per rank and
re-initialized in place for each document. Loss and logits exist only at answer positions; the base model's weights
take no gradients. A document can be put aside and taken up again: a Snapshot is all there is of it here.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from lift_config.recipe import Recipe
from lift_workers.encode import Pack, TrainingExample, pack
from lift_workers.lora import Adapter, inject
from lift_workers.loss import weighted_loss
from lift_workers.norm import replace_norms
from lift_workers.tree import ATTENTION

WARMUP_STEPS = 4  # Adam's second moment is unsettled in its first steps
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class StepResult:
    """The pack's loss before the step (encode.pack), and the tokens the step computed."""

    loss: float
    tokens: int


@dataclass(frozen=True)
class Snapshot:
    """A document's training so far: the recipe at work, its step, weights and the optimizer's tensors, on the host."""

    recipe: Recipe
    step: int
    weights: torch.Tensor
    optimizer: dict[str, torch.Tensor]


class WarmTrainer:
    """A base model with one LoRA adapter that is trained again and again.

    The base model computes in `dtype`; the LoRA parameters are float32 to the optimizer and `dtype` to the layers.
    """

    def __init__(self, base_model: str, *, revision: str | None, device: str, dtype: torch.dtype) -> None:
        self.device, self._dtype = torch.device(device), dtype
        self.tokenizer = AutoTokenizer.from_pretrained(base_model, revision=revision)
        model = AutoModelForCausalLM.from_pretrained(
            base_model, revision=revision, dtype=dtype, attn_implementation=ATTENTION
        )
        self._threads = torch.get_num_threads()
        self._use(model.to(self.device))

    def _use(self, model: Any) -> None:
        model.requires_grad_(False)
        replace_norms(model)
        self._model, self._layers = model, inject(model)
        self._adapter: Adapter | None = None
        self._recipe: Recipe | None = None
        self._step = 0

    def begin(self, recipe: Recipe) -> None:
        """Make the adapter untrained again, from the recipe's seed."""
        self._build(recipe)
        self.adapter.reset(recipe.seed)
        for state in self._optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()
        self.stage(recipe)

    def stage(self, recipe: Recipe) -> None:
        """Go on with `recipe`'s rate and schedule, from step 0 of them; the weights stay."""
        if (recipe.rank, recipe.alpha) != (self.adapter.rank, self.adapter.alpha):
            raise ValueError(f"recipe {recipe.name!r}: a later stage cannot change the rank or alpha")
        self._recipe, self._step = recipe, 0

    def step(self, pack: Pack, total_steps: int | None) -> StepResult:
        """One optimizer step. `total_steps` None: not known yet, so the rate stays at its peak."""
        assert self._recipe is not None, "begin() first"
        weights = self.adapter.weights
        assert weights.grad is not None
        self._optimizer.param_groups[0]["lr"] = learning_rate(self._recipe, self._step, total_steps)
        weights.grad.zero_()
        loss = self.loss(pack)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self._step}: better no version than this one")
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_([weights], MAX_GRAD_NORM)
        self._optimizer.step()
        self.adapter.refresh()
        self._step += 1
        return StepResult(loss.item(), pack.input_ids_T.numel())

    def loss(self, pack: Pack) -> torch.Tensor:
        """Negative log-likelihood of `pack`'s trained tokens under the adapter, weighted as it says."""
        if self._has_plain_head:
            head = self._model.get_output_embeddings().weight
            return weighted_loss(self._hidden(pack), head, pack.labels_A, pack.weights_A)
        each_A = nn.functional.cross_entropy(self._logits(pack).float(), pack.labels_A, reduction="none")
        return each_A @ pack.weights_A

    def _hidden(self, pack: Pack) -> torch.Tensor:
        """What the head sees at the rows whose next token is trained."""
        states_TD = self._model.get_decoder()(**self._inputs(pack)).last_hidden_state[0]
        rows_AD: torch.Tensor = states_TD.index_select(0, pack.rows_A)
        return rows_AD

    def _logits(self, pack: Pack) -> torch.Tensor:
        """By the model's own way from there to the logits."""
        logits_AV: torch.Tensor = self._model(**self._inputs(pack), logits_to_keep=pack.rows_A).logits[0]
        return logits_AV

    def _inputs(self, pack: Pack) -> dict[str, Any]:
        return {
            "input_ids": pack.input_ids_T[None],
            "position_ids": pack.position_ids_T[None],
            "use_cache": False,
            "layout": pack.tree,
            "biases": pack.tree.biases(self._dtype),
        }

    @torch.no_grad()
    def _is_head_plain(self) -> bool:
        """Whether logits are a product with the head's weight and nothing else: some models scale or cap them."""
        head = self._model.get_output_embeddings()
        probe = pack([TrainingExample(array("i", [1, 2]), array("i", [3, 4]))], self.device)
        return head.bias is None and torch.equal(self._logits(probe), self._hidden(probe) @ head.weight.t())

    def share_cores(self, shared: bool) -> None:
        """Leave half of the CPU's cores to the engine, or take all: threads of two processes on one core wait for each
        other at the end of every operation, and a step has thousands of them."""
        torch.set_num_threads(max(1, self._threads // 2) if shared else self._threads)

    def export(self, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json, as PEFT and vLLM read them."""
        assert self._recipe is not None, "begin() first"
        self.adapter.export(folder, self._recipe.served_alpha)

    def snapshot(self) -> Snapshot:
        """What `restore` needs to go on from here."""
        assert self._recipe is not None, "begin() first"
        state = self._optimizer.state.get(self.adapter.weights, {})
        optimizer = {name: _on_host(tensor) for name, tensor in state.items()}
        return Snapshot(self._recipe, self._step, _on_host(self.adapter.weights), optimizer)

    def restore(self, snapshot: Snapshot) -> None:
        self.begin(snapshot.recipe)
        self._step = snapshot.step
        with torch.no_grad():
            self.adapter.weights.copy_(snapshot.weights)
        state = self._optimizer.state[self.adapter.weights]
        for name, tensor in snapshot.optimizer.items():
            state[name] = tensor.to(self.device, copy=True)
        self.adapter.refresh()

    @property
    def adapter(self) -> Adapter:
        assert self._adapter is not None, "begin() first"
        return self._adapter

    def _build(self, recipe: Recipe) -> None:
        """Buffers of the recipe's rank, where those at hand have another."""
        if self._adapter and (self._adapter.rank, self._adapter.alpha) == (recipe.rank, recipe.alpha):
            return
        self._adapter = Adapter(self._layers, recipe.rank, recipe.alpha)
        self._has_plain_head = self._is_head_plain()
        self._optimizer = torch.optim.AdamW([self._adapter.weights], weight_decay=0.0, fused=True)


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that takes no GPU memory."""
    return tensor.detach().to("cpu", copy=True)


def learning_rate(recipe: Recipe, step: int, total_steps: int | None) -> float:
    """Linear warm-up, then constant, or linear to zero once the number of steps is known."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    if recipe.schedule == "constant" or total_steps is None:
        return recipe.learning_rate * warm
    return recipe.learning_rate * min(warm, max(0.0, (total_steps - step) / total_steps))
