"""The two repairs of vLLM on a CPU, without vLLM."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lift_engine import cpu_lora
from lift_engine.cpu_seed import without_discarded_generators

ROWS, WIDTH_IN, RANK, WIDTH_OUT, SLOTS = 7, 6, 2, 5, 3
SLOT_OF_ROW = [2, 2, -1, 0, 0, 0, -1]


def expected(x: torch.Tensor, weights: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Row by row; zero where there is no adapter."""
    rows = [scale * (weights[slot, 0] @ row) if slot >= 0 else None for row, slot in zip(x, SLOT_OF_ROW, strict=True)]
    return torch.stack([torch.zeros(weights.shape[2]) if row is None else row for row in rows])


@pytest.fixture
def runs() -> tuple[Any, ...]:
    """vLLM's prefill metadata for SLOT_OF_ROW."""
    return torch.tensor([0, 2, 3, 6]), torch.tensor([2, 1, 3, 1]), torch.tensor([2, -1, 0, -1]), 4, 3, ROWS


Operators = list[tuple[Any, tuple[Any, ...]]]


def test_shrink_leaves_base_rows_alone() -> None:
    x, weights = torch.randn(ROWS, WIDTH_IN), torch.randn(SLOTS, 1, RANK, WIDTH_IN)
    y = torch.zeros(ROWS, RANK)
    cpu_lora.bgmv_shrink(x, weights, y, torch.tensor(SLOT_OF_ROW), 2.0)
    torch.testing.assert_close(y, expected(x, weights, 2.0))


@pytest.mark.parametrize("add_inputs", [True, False])
def test_expand_leaves_base_rows_alone(runs: tuple[Any, ...], add_inputs: bool) -> None:
    x, weights = torch.randn(ROWS, RANK), torch.randn(SLOTS, 1, WIDTH_OUT, RANK)
    before = torch.randn(ROWS, WIDTH_OUT)
    has_adapter = torch.tensor(SLOT_OF_ROW)[:, None] >= 0
    after = torch.where(has_adapter, expected(x, weights) + (before if add_inputs else 0), before)
    operators: Operators = [(cpu_lora.sgmv_expand, runs), (cpu_lora.bgmv_expand, (torch.tensor(SLOT_OF_ROW),))]
    for operator, where in operators:
        y = before.clone()
        operator(x, weights, y, *where, add_inputs)
        torch.testing.assert_close(y, after)


class FakeWrapper:
    """vLLM's wrapper, as far as its metadata go."""

    def update_metadata(self, slots: list[int]) -> None:
        self.token_lora_indices = torch.tensor(slots)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slots", [SLOT_OF_ROW, [0, -1, 0, 2, 1, 2, 0], [1] * ROWS, [-1] * ROWS])
def test_linear_layers_leave_base_rows_alone(slots: list[int], dtype: torch.dtype) -> None:
    """Whatever rows an adapter has; `q` and `k` of one layer, which differ in width."""
    widths = (WIDTH_OUT, 3)
    x = torch.randn(ROWS, WIDTH_IN).to(dtype)
    a = [torch.randn(SLOTS, 1, RANK, WIDTH_IN).to(dtype) for _ in widths]
    b = [torch.randn(SLOTS, 1, width, RANK).to(dtype) for width in widths]
    before = torch.randn(ROWS, sum(widths)).to(dtype)
    want = before.float().clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            inner = [a[i][slot, 0].float() @ x[row].float() for i in range(2)]
            want[row] += 0.5 * torch.cat([b[i][slot, 0].float() @ inner[i] for i in range(2)])
    wrapper, y = FakeWrapper(), before.clone()
    cpu_lora.with_groups(FakeWrapper.update_metadata)(wrapper, slots)
    cpu_lora.add_lora_linear(wrapper, y, x, a, b, 0.5, widths)
    tolerance = 1e-5 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(y.float(), want, rtol=tolerance, atol=tolerance)
    base_rows = torch.tensor(slots) < 0
    assert torch.equal(y[base_rows], before[base_rows])


class FakeRunner:
    """Samples as vLLM's runner does: each row draws, then draws of unfinished prompts must be undone."""

    def __init__(self) -> None:
        generators = {row: torch.Generator().manual_seed(5) for row in range(2)}
        self.input_batch = SimpleNamespace(generators=generators, num_reqs=2)
        self.discard_request_mask = SimpleNamespace(np=np.array([True, False, True]))

    def sample_tokens(self) -> dict[int, float]:
        if any(row in self.input_batch.generators for row in np.nonzero(self.discard_request_mask.np[:2])[0]):
            raise RuntimeError("CPU Generator does not use offset")
        generators = self.input_batch.generators.items()
        return {row: torch.rand(1, generator=generator).item() for row, generator in generators}


def test_a_chunked_prompt_costs_a_seed_no_draw() -> None:
    runner, sample = FakeRunner(), without_discarded_generators(FakeRunner.sample_tokens)
    with pytest.raises(RuntimeError):
        runner.sample_tokens()
    at_once = sample(runner)[1]
    runner.discard_request_mask.np[:] = False
    assert sample(runner)[0] == at_once  # row 0's first draw, after its last chunk


def test_generators_return_when_sampling_fails() -> None:
    def fail(runner: FakeRunner) -> None:
        assert 0 not in runner.input_batch.generators
        raise ValueError

    runner = FakeRunner()
    with pytest.raises(ValueError):  # noqa: PT011 our own
        without_discarded_generators(fail)(runner)
    assert sorted(runner.input_batch.generators) == [0, 1]
