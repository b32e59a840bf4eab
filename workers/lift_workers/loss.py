"""The loss at trained positions, without ever holding their logits: they are most of a small model's memory traffic.

In: hidden states, the head's frozen weight, the tokens that should follow. Out: their weighted negative
log-likelihood. Its gradient is computed along with it, a few rows at a time while they are in the cache (as Liger's
and Apple's fused losses do on GPUs), and only for the hidden states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import log_softmax

ROWS = 32  # at a time: 6 MB of float32 logits with a vocabulary of 49k


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_AD: torch.Tensor, weight_VD: torch.Tensor, labels_A: torch.Tensor, weights_A: torch.Tensor
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden_AD.device)
        gradient_AD = torch.empty_like(hidden_AD)
        for start in range(0, len(labels_A), ROWS):
            rows = slice(start, start + ROWS)
            labels_R1, weights_R1 = labels_A[rows, None], weights_A[rows, None]
            log_probabilities_RV = log_softmax(hidden_AD[rows] @ weight_VD.t(), dim=-1, dtype=torch.float32)
            total -= (weights_R1 * log_probabilities_RV.gather(1, labels_R1)).sum()
            excess_RV = log_probabilities_RV.exp_()  # probabilities, less 1 at the label
            excess_RV.scatter_add_(1, labels_R1, -torch.ones_like(weights_R1))
            torch.mm(excess_RV.to(weight_VD.dtype), weight_VD, out=gradient_AD[rows])
            gradient_AD[rows] *= weights_R1
        ctx.save_for_backward(gradient_AD)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient_AD,) = ctx.saved_tensors
        return gradient_AD * gradients[0].to(gradient_AD.dtype), None, None, None


def weighted_loss(
    hidden_AD: torch.Tensor, weight_VD: torch.Tensor, labels_A: torch.Tensor, weights_A: torch.Tensor
) -> torch.Tensor:
    """Nats, each token's times its weight, summed; float32."""
    loss: torch.Tensor = _WeightedLoss.apply(hidden_AD, weight_VD, labels_A, weights_A)  # type: ignore[no-untyped-call]
    return loss
