"""Multi-LoRA arithmetic for vLLM on a CPU that leaves base-model rows alone; applied by the resolver's `register`.

vLLM 0.32 marks rows without an adapter with slot -1, and its CPU operators index the slots with it: whenever both
share a step, a base-model answer gets the adapter in the last slot mixed in (vllm#48421, vllm#49656, both open).
They also copy an adapter's matrices once per token. Here linear layers, all that our adapters change, take each slot's
rows, found once a step, in two products; embedding and logits keep their operators, by runs of rows.
Signatures and shapes are vLLM's (lora/ops/torch_ops/lora_ops.py): rows x in, slots x 1 x out x in, rows x out.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
GROUPS = "lift_groups"  # attribute of vLLM's wrapper: (rows, slot) of every adapter in the step


def patch_cpu_operators() -> None:
    """Idempotent; does nothing on a GPU."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.lora.punica_wrapper import punica_cpu

    for operator in (sgmv_expand, bgmv_shrink, bgmv_expand):
        if not hasattr(punica_cpu, operator.__name__):
            logger.warning("vLLM's CPU LoRA operator %s is gone: see lift_engine.cpu_lora", operator.__name__)
        setattr(punica_cpu, operator.__name__, operator)
    wrapper = punica_cpu.PunicaWrapperCPU
    if not (hasattr(wrapper, "update_metadata") and hasattr(wrapper, "add_lora_linear")):
        logger.warning("vLLM's CPU LoRA wrapper has changed: see lift_engine.cpu_lora")
    elif not hasattr(wrapper, GROUPS):
        setattr(wrapper, GROUPS, [])
        wrapper.update_metadata = with_groups(wrapper.update_metadata)
        wrapper.add_lora_linear = add_lora_linear


# ---- linear layers -------------------------------------------------------------------------------------------


def with_groups(update_metadata: Any) -> Any:
    """vLLM's update at a step's begin, and after it each adapter's rows: hundreds of layers would find the same."""

    @functools.wraps(update_metadata)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        update_metadata(self, *args, **kwargs)
        setattr(self, GROUPS, list(_groups(self.token_lora_indices)))

    return wrapper


def add_lora_linear(
    self: Any, y: Tensor, x: Tensor, a_stacked: Iterable[Tensor], b_stacked: Iterable[Tensor], scale: float,
    output_slices: Iterable[int], *, buffer: object = None, **others: object,
) -> None:  # fmt: skip
    """y += scale * x A B, slice by slice, for rows that have an adapter. In x's type, as vLLM's GPU kernels do it."""
    for rows, slot in getattr(self, GROUPS):
        own, added, offset = x[rows], y[rows], 0
        for a, b, width in zip(a_stacked, b_stacked, output_slices, strict=True):
            inner = own @ a[slot, 0].to(x.dtype).T
            added[:, offset : offset + width].addmm_(inner, b[slot, 0].to(x.dtype).T, alpha=scale)
            offset += width
        if not isinstance(rows, slice):
            y[rows] = added  # rows picked apart are a copy


def _groups(slots: Tensor) -> Iterator[tuple[slice | Tensor, int]]:
    """Rows that follow each other are a slice, which copies nothing."""
    for slot in torch.unique(slots).tolist():
        if slot >= 0:
            rows = (slots == slot).nonzero()[:, 0]
            first, last = int(rows[0]), int(rows[-1])
            yield (slice(first, last + 1) if last - first + 1 == len(rows) else rows), slot


# ---- embedding and logits; by runs of rows (`starts`, `lengths`, `slots` have one entry per run) or by rows ----


def sgmv_expand(
    x: Tensor, weights: Tensor, y: Tensor, starts: Tensor, lengths: Tensor, slots: Tensor,
    batches: int, longest: int, rows: int, add_inputs: bool = False,
) -> None:  # fmt: skip
    _expand(x, weights, y, _runs(starts, lengths, slots), add_inputs)


def bgmv_shrink(x: Tensor, weights: Tensor, y: Tensor, slots: Tensor, scale: float = 1.0) -> None:
    _shrink(x, weights, y, _runs_of_rows(slots), scale)


def bgmv_expand(x: Tensor, weights: Tensor, y: Tensor, slots: Tensor, add_inputs: bool = True) -> None:
    _expand(x, weights, y, _runs_of_rows(slots), add_inputs)


# ---- what they share -----------------------------------------------------------------------------------------

Runs = Iterator[tuple[slice, int]]


def _runs(starts: Tensor, lengths: Tensor, slots: Tensor) -> Runs:
    """Rows and slot of every run that has an adapter."""
    for start, length, slot in zip(starts.tolist(), lengths.tolist(), slots.tolist(), strict=True):
        if slot >= 0:
            yield slice(start, start + length), slot


def _runs_of_rows(slots: Tensor) -> Runs:
    values, lengths = torch.unique_consecutive(slots, return_counts=True)
    return _runs(lengths.cumsum(0) - lengths, lengths, values)


def _shrink(x: Tensor, weights: Tensor, y: Tensor, runs: Runs, scale: float) -> None:
    for rows, slot in runs:
        product = _product(x[rows], weights[slot], y.dtype)
        y[rows, : product.shape[1]] = scale * product


def _expand(x: Tensor, weights: Tensor, y: Tensor, runs: Runs, add_inputs: bool) -> None:
    """Adapter and model may pad the output differently, hence the common width."""
    for rows, slot in runs:
        product = _product(x[rows], weights[slot], y.dtype)
        width = min(product.shape[1], y.shape[1])
        if add_inputs:
            y[rows, :width] += product[:, :width]
        else:
            y[rows, :width] = product[:, :width]


def _product(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight` is out x in, or 1 x out x in."""
    return x.to(dtype) @ weight.reshape(weight.shape[-2:]).to(dtype).T
