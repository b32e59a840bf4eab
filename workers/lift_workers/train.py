"""Train: packs in, LoRA weights out, on one warm model.

The base model, the LoRA parameters and the optimizer are built once per rank and re-initialized in place for
each document. Loss and logits exist only at answer positions; the base model's weights take no gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from lift_config.recipe import Recipe
from lift_workers.encode import Pack

WARMUP_STEPS = 4  # Adam's second moment is unsettled in its first steps
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class StepResult:
    """Mean negative log-likelihood per answer token, and the tokens the step computed."""

    loss: float
    tokens: int


class WarmTrainer:
    """A base model with one LoRA adapter that is trained again and again.

    float32 on a CPU (bfloat16 matmuls are far slower there), bfloat16 with float32 LoRA parameters on CUDA.
    """

    def __init__(self, base_model: str, *, revision: str | None, device: str) -> None:
        self.device = torch.device(device)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.tokenizer = AutoTokenizer.from_pretrained(base_model, revision=revision)
        self._base = AutoModelForCausalLM.from_pretrained(
            base_model, revision=revision, dtype=dtype, attn_implementation="sdpa"
        ).to(self.device)
        self._base.requires_grad_(False)
        self.model: Any = None
        self._recipe: Recipe | None = None
        self._step = 0

    def begin(self, recipe: Recipe) -> None:
        """Make the adapter untrained again: A Kaiming-uniform from the recipe's seed, B zero (LoRA, 2106.09685)."""
        if self._recipe is None or (self._recipe.rank, self._recipe.alpha) != (recipe.rank, recipe.alpha):
            self._build(recipe)
        self._recipe, self._step = recipe, 0
        generator = torch.Generator().manual_seed(recipe.seed)
        for layer in self._lora_layers():
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            bound = 1 / math.sqrt(a.shape[1])  # kaiming_uniform_(a=sqrt(5)), as peft initializes
            with torch.no_grad():
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
                b.zero_()
        self._optimizer.state.clear()

    def step(self, pack: Pack, total_steps: int | None) -> StepResult:
        """One optimizer step. `total_steps` None: not known yet, so the rate stays at its peak."""
        assert self._recipe is not None, "begin() first"
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._recipe, self._step, total_steps)
        loss = self.loss(pack)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=False)
        self._step += 1
        return StepResult(loss.item(), pack.input_ids_T.numel())

    def loss(self, pack: Pack) -> torch.Tensor:
        """Mean negative log-likelihood per answer token of `pack` under the adapter."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            hidden_TD = self._decoder(
                input_ids=pack.input_ids_T[None],
                position_ids=pack.position_ids_T[None],
                attention_mask=pack.mask_TT[None, None],
                use_cache=False,
            ).last_hidden_state[0]
            logits_AV = self._head(hidden_TD[pack.rows_A])
        return nn.functional.cross_entropy(logits_AV.float(), pack.labels_A)

    def export(self, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json, as PEFT and vLLM read them."""
        self.model.save_pretrained(folder, safe_serialization=True)

    def _build(self, recipe: Recipe) -> None:
        if self.model is not None:
            self._base = self.model.unload()
        config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        self.model = get_peft_model(self._base, config)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self.parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=True)
        causal_lm = self.model.get_base_model()
        self._decoder, self._head = causal_lm.get_decoder(), causal_lm.get_output_embeddings()

    def _lora_layers(self) -> list[Any]:
        return [module for module in self.model.modules() if isinstance(module, LoraLayer)]


def learning_rate(recipe: Recipe, step: int, total_steps: int | None) -> float:
    """Linear warm-up, then constant, or linear to zero once the number of steps is known."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    if recipe.schedule == "constant" or total_steps is None:
        return recipe.learning_rate * warm
    return recipe.learning_rate * min(warm, max(0.0, (total_steps - step) / total_steps))
