"""Multi-LoRA arithmetic for vLLM on a CPU that leaves base-model rows alone; applied by the resolver's `register`.

vLLM 0.32 marks rows without an adapter with slot -1, and its CPU operators index the slots with it: whenever both
share a step, a base-model answer gets the adapter in the last slot mixed in (vllm#48421, vllm#49656, both open).
They also copy an adapter's matrices once per token. Here each run of rows with the same slot is one product.
Signatures and shapes are vLLM's (lora/ops/torch_ops/lora_ops.py): rows x in, slots x 1 x out x in, rows x out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def patch_cpu_operators() -> None:
    """Idempotent; does nothing on a GPU."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.lora.punica_wrapper import punica_cpu

    for operator in (sgmv_shrink, sgmv_expand, sgmv_expand_slice, bgmv_shrink, bgmv_expand, bgmv_expand_slice):
        if not hasattr(punica_cpu, operator.__name__):
            logger.warning("vLLM's CPU LoRA operator %s is gone: see lift_engine.cpu_lora", operator.__name__)
        setattr(punica_cpu, operator.__name__, operator)


# ---- by runs of rows: `starts`, `lengths`, `slots` have one entry per run ------------------------------------


def sgmv_shrink(
    x: Tensor, weights: Tensor, y: Tensor, starts: Tensor, lengths: Tensor, slots: Tensor,
    batches: int, longest: int, rows: int, scale: float,
) -> None:  # fmt: skip
    _shrink(x, weights, y, _runs(starts, lengths, slots), scale)


def sgmv_expand(
    x: Tensor, weights: Tensor, y: Tensor, starts: Tensor, lengths: Tensor, slots: Tensor,
    batches: int, longest: int, rows: int, add_inputs: bool = False,
) -> None:  # fmt: skip
    _expand(x, weights, y, _runs(starts, lengths, slots), add_inputs)


def sgmv_expand_slice(
    x: Tensor, weights: Tensor, y: Tensor, starts: Tensor, lengths: Tensor, slots: Tensor,
    batches: int, longest: int, rows: int, offset: int, size: int, add_inputs: bool = False,
) -> None:  # fmt: skip
    _expand(x, weights, y[:, offset : offset + size], _runs(starts, lengths, slots), add_inputs)


# ---- by rows: `slots` has one entry per row ------------------------------------------------------------------


def bgmv_shrink(x: Tensor, weights: Tensor, y: Tensor, slots: Tensor, scale: float = 1.0) -> None:
    _shrink(x, weights, y, _runs_of_rows(slots), scale)


def bgmv_expand(x: Tensor, weights: Tensor, y: Tensor, slots: Tensor, add_inputs: bool = True) -> None:
    _expand(x, weights, y, _runs_of_rows(slots), add_inputs)


def bgmv_expand_slice(
    x: Tensor, weights: Tensor, y: Tensor, slots: Tensor, offset: int, size: int, add_inputs: bool = True
) -> None:
    _expand(x, weights, y[:, offset : offset + size], _runs_of_rows(slots), add_inputs)


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
