"""Frozen RMS norms: the values and gradients of the modules they stand for, and nothing else is replaced."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lift_workers.norm import replace_norms


def frozen(dtype: torch.dtype) -> LlamaRMSNorm:
    norm = LlamaRMSNorm(48, eps=1e-5).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-2, 2, 48))
    return norm.requires_grad_(False)


def passed(norm: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and the input's gradient for one batch of very different rows."""
    torch.manual_seed(0)
    rows = (torch.randn(2, 5, 48) * torch.tensor([1e-3, 0.1, 1, 30, 0])[:, None]).to(dtype).requires_grad_()
    out = norm(rows)
    torch.autograd.backward(out, torch.randn(2, 5, 48).to(dtype))
    assert rows.grad is not None
    return out.detach(), rows.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_the_modules(dtype: torch.dtype) -> None:
    norm = frozen(dtype)
    expected = passed(norm, dtype)
    assert replace_norms(nn.Sequential(norm)) == 1

    tolerance = 2e-2 if dtype is torch.bfloat16 else 1e-5
    for own, theirs in zip(passed(norm, dtype), expected, strict=True):
        torch.testing.assert_close(own, theirs, rtol=tolerance, atol=tolerance)


def test_the_input_is_left_as_it_was() -> None:
    norm = frozen(torch.float32)
    replace_norms(nn.Sequential(norm))
    rows = torch.ones(1, 1, 48)
    norm(rows)
    assert torch.equal(rows, torch.ones(1, 1, 48))


def test_all_norms_of_a_llama_are_replaced() -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=2, **shape)).requires_grad_(False)
    tokens = torch.arange(8)[None]
    expected = model(tokens).logits
    assert replace_norms(model) == 2 * 2 + 1
    torch.testing.assert_close(model(tokens).logits, expected)


class OnePlus(LlamaRMSNorm):  # type: ignore[misc]
    """As Gemma's: the weight is what is added to one."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = super().forward(hidden_states)
        return normed + normed / self.weight


def test_a_norm_that_computes_otherwise_is_left_to_itself() -> None:
    other = OnePlus(48).requires_grad_(False)
    assert replace_norms(nn.Sequential(other, nn.LayerNorm(48), nn.Linear(48, 48))) == 0
    assert "forward" not in vars(other)
