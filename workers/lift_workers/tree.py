"""Tree attention: the examples of a pack, side by side in one row, each attend to themselves and the prefix they share.

In: queries, keys and values of the whole row from a transformers model (`ATTENTION` is its attn_implementation).
Out: what separate rows would give. For attention alone the branches are laid out as a batch, so its cost grows with
branches times the longest one (session.py bounds that) and not with the row's square; no mask of the row's size exists.
The same layout serves CPUs and GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax
from transformers import AttentionInterface

ATTENTION = "lift_tree"


@dataclass(frozen=True)
class Tree:
    """A row of T tokens: `shared` of the prefix, then N branches, the longest of L tokens.

    `padded_NL` says which branch token (0 is the first after the prefix) stands where in the batch, 0 for padding;
    `is_padding_NL` marks the latter; `place_P` says where in the flattened batch each of the P = T - shared stands.
    """

    shared: int
    padded_NL: torch.Tensor
    is_padding_NL: torch.Tensor
    place_P: torch.Tensor

    def biases(self, dtype: torch.dtype) -> Biases:
        """Padding stands at a branch's end, so that hiding what follows hides it from everything before it."""
        longest, device = self.padded_NL.shape[1], self.padded_NL.device
        return Biases(_hiding_later(self.shared, 0, dtype, device), _hiding_later(longest, self.shared, dtype, device))


@dataclass(frozen=True)
class Biases:
    """Added to attention scores, 0 or -inf: of the prefix, and of a branch's L tokens to K = shared + L."""

    prefix_SS: torch.Tensor
    branch_LK: torch.Tensor


def _hiding_later(count: int, before: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[count, before + count]: all that stands before, and of their own those so far."""
    later = torch.ones(count, before + count, dtype=torch.bool, device=device).triu(before + 1)
    return torch.zeros_like(later, dtype=dtype).masked_fill_(later, float("-inf"))


def tree(shared: int, branches: Sequence[int], device: torch.device | str) -> Tree:
    """The layout of `branches` (each one's number of tokens) behind a prefix of `shared` tokens."""
    lengths_N = torch.tensor(branches)
    column_L = torch.arange(int(lengths_N.max()))
    is_padding_NL = column_L[None] >= lengths_N[:, None]
    starts_N = lengths_N.cumsum(0) - lengths_N
    padded_NL = (starts_N[:, None] + column_L[None]).masked_fill_(is_padding_NL, 0)
    place_P = (~is_padding_NL).flatten().nonzero()[:, 0]
    return Tree(shared, padded_NL.to(device), is_padding_NL.to(device), place_P.to(device))


class _ToBatch(torch.autograd.Function):
    """Branch tokens [P, ...] → [N * L, ...]. Its gradient is the inverse selection: cheaper than a scattered sum."""

    @staticmethod
    def forward(ctx: Any, branches_P: torch.Tensor, layout: Tree) -> torch.Tensor:
        ctx.layout = layout
        return branches_P.index_select(0, layout.padded_NL.flatten())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0].index_select(0, ctx.layout.place_P), None


class _ToRow(torch.autograd.Function):
    """The way back, [N * L, ...] → [P, ...]; padding gets no gradient."""

    @staticmethod
    def forward(ctx: Any, batch: torch.Tensor, layout: Tree) -> torch.Tensor:
        ctx.layout = layout
        return batch.index_select(0, layout.place_P)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        batch = gradients[0].index_select(0, ctx.layout.padded_NL.flatten())
        padding = ctx.layout.is_padding_NL.flatten().view(-1, *[1] * (batch.dim() - 1))
        return batch.masked_fill_(padding, 0), None


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    layout: Tree,
    biases: Biases,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' AttentionInterface: [1, heads, T, D] in, [1, T, heads, D] out. The model's forward passes on
    `layout` and `biases`."""
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # [T, heads, D]
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    shared = layout.shared
    own_q, own_k, own_v = (_to_batch(states[shared:], layout) for states in (q, k, v))
    batch = _attend(own_q, _behind(k[:shared], own_k), _behind(v[:shared], own_v), scaling, biases.branch_LK)
    row = _to_row(batch, layout)
    if shared:
        prefix = _attend(q[None, :shared], k[None, :shared], v[None, :shared], scaling, biases.prefix_SS)
        row = torch.cat([prefix[0], row])
    return row[None], None


def _to_batch(branches_P: torch.Tensor, layout: Tree) -> torch.Tensor:
    """[P, heads, D] → [N, L, heads, D]"""
    flat: torch.Tensor = _ToBatch.apply(branches_P, layout)  # type: ignore[no-untyped-call]
    return flat.view(*layout.padded_NL.shape, *branches_P.shape[1:])


def _to_row(batch: torch.Tensor, layout: Tree) -> torch.Tensor:
    """[N, L, heads, D] → [P, heads, D]"""
    row: torch.Tensor = _ToRow.apply(batch.flatten(0, 1), layout)  # type: ignore[no-untyped-call]
    return row


def _behind(shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """[S, heads, D] before each of [N, L, heads, D]."""
    return torch.cat([shared.expand(own.shape[0], *shared.shape), own], dim=1)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, bias: torch.Tensor) -> torch.Tensor:
    """[N, L, heads, D] in and out. On a CPU in plain products: torch's fused kernel takes several times as long for
    many short rows, its unfused one computes bfloat16 in float32."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.is_cuda:
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling).transpose(1, 2)
    scores = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=scaling)
    weights = softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype)
    return torch.bmm(weights, v.flatten(0, 1)).view_as(q).transpose(1, 2)


AttentionInterface.register(ATTENTION, tree_attention)
