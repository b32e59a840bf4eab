"""LoRA on flat buffers: every A and B of a model is a view of one tensor, every gradient a view of another.

In: a frozen model, rank and alpha. Out: the same model with LoRA in its linear layers, whose parameters are cleared,
clipped, stepped, saved and put back as single tensors: a training step launches no operation per layer for them, and
nothing is built per document. Export is PEFT's format (2106.09685; all linear layers but the head, as LIFT v4).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn

from lift_config.contract import ADAPTER_FILES


class LoraLinear(nn.Module):
    """A frozen linear layer and its part of an adapter, which `attach` gives it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.scaling = 0.0
        self.a: torch.Tensor
        self.b: torch.Tensor
        self.grad_a: torch.Tensor
        self.grad_b: torch.Tensor
        self.anchor: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _LoraFunction.apply(x, self.anchor, self)  # type: ignore[no-untyped-call]
        return out


class _LoraFunction(torch.autograd.Function):
    """x W' + s (x A') B', with A's and B's gradients added into their buffers on the way back.

    `anchor` (the flat parameter) makes autograd come by even where x needs no gradient: in the first layer.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        flat = x.flatten(0, -2)
        low = flat @ layer.a.t()
        out = nn.functional.linear(flat, layer.base.weight, layer.base.bias)
        out.addmm_(low, layer.b.t(), alpha=layer.scaling)
        ctx.save_for_backward(flat, low)
        ctx.layer, ctx.shape = layer, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        layer: LoraLinear = ctx.layer
        x, low = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        grad_low = gradient @ layer.b
        layer.grad_b.add_(gradient.t() @ low, alpha=layer.scaling)
        layer.grad_a.add_(grad_low.t() @ x, alpha=layer.scaling)
        if not ctx.needs_input_grad[0]:
            return None, None, None
        grad_x = gradient @ layer.base.weight
        grad_x.addmm_(grad_low, layer.a, alpha=layer.scaling)
        return grad_x.view(ctx.shape), None, None


def inject(model: Any) -> dict[str, LoraLinear]:
    """Wrap every linear layer of `model` but its head, in place; the layers by their names."""
    head = model.get_output_embeddings()
    linears = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    }
    if not linears:
        raise ValueError("the base model has no linear layers that LoRA could change")
    layers = {name: LoraLinear(linear) for name, linear in linears.items()}
    for name, layer in layers.items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer)
    return layers


class Adapter:
    """The LoRA parameters of `layers`: float32 `weights` to optimize, and what the layers compute with in `dtype`."""

    def __init__(self, layers: dict[str, LoraLinear], rank: int, alpha: int) -> None:
        self.rank, self.alpha = rank, alpha
        self._layers = layers
        first = next(iter(layers.values())).base.weight
        size = sum(rank * sum(layer.base.weight.shape) for layer in layers.values())
        self.weights = nn.Parameter(torch.zeros(size, dtype=torch.float32, device=first.device))
        self.weights.grad = torch.zeros_like(self.weights)
        same = first.dtype is torch.float32
        self._computed = self.weights.detach() if same else torch.zeros_like(self.weights, dtype=first.dtype)
        self._attach()

    def reset(self, seed: int) -> None:
        """Untrained: A Kaiming-uniform as PEFT initializes it, B zero."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.weights.zero_()
            for a, _ in self._views(self.weights.detach()):
                bound = 1 / math.sqrt(a.shape[1])  # kaiming_uniform_(a=sqrt(5))
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
        self.refresh()

    def refresh(self) -> None:
        """Let the layers see changed weights."""
        if self._computed.dtype is not torch.float32:
            self._computed.copy_(self.weights.detach())

    def export(self, folder: Path, served_alpha: int) -> None:
        """Write ADAPTER_FILES: the weights that the layers computed with, so that at their alpha the engine computes
        the same; below it, a part of the way there from the base model (WiSE-FT, 2109.01903)."""
        tensors = {}
        for name, (a, b) in zip(self._layers, self._views(self._computed), strict=True):
            tensors[f"base_model.model.{name}.lora_A.weight"] = a.cpu()
            tensors[f"base_model.model.{name}.lora_B.weight"] = b.cpu()
        targets = sorted({name.rpartition(".")[2] for name in self._layers})
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / ADAPTER_FILES[0], metadata={"format": "pt"})
        config = LoraConfig(r=self.rank, lora_alpha=served_alpha, target_modules=targets, task_type="CAUSAL_LM")
        config.inference_mode = True
        config.save_pretrained(str(folder))

    def _attach(self) -> None:
        assert self.weights.grad is not None
        computed, gradients = self._views(self._computed), self._views(self.weights.grad)
        for layer, (a, b), (grad_a, grad_b) in zip(self._layers.values(), computed, gradients, strict=True):
            layer.a, layer.b, layer.grad_a, layer.grad_b = a, b, grad_a, grad_b
            layer.anchor, layer.scaling = self.weights, self.alpha / self.rank

    def _views(self, flat: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A [rank, in] and B [out, rank] of every layer."""
        views, start = [], 0
        for layer in self._layers.values():
            out_size, in_size = layer.base.weight.shape
            a = flat[start : start + self.rank * in_size].view(self.rank, in_size)
            start += a.numel()
            b = flat[start : start + self.rank * out_size].view(out_size, self.rank)
            start += b.numel()
            views.append((a, b))
        return views
