"""Keeps a seeded request from killing vLLM on a CPU; applied by the resolver's `register`.

In vLLM 0.32 a request whose prompt is computed in several chunks is sampled after every chunk, and the draws of
all but the last are undone with `generator.set_offset`. A CPU generator has no offset: the RuntimeError ends the
engine (v1/worker/gpu_model_runner.py, `_bookkeeping_sync`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)
PATCHED = "lift_without_discarded_generators"


def patch_cpu_runner() -> None:
    """Idempotent; does nothing on a GPU."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if not hasattr(CPUModelRunner, "sample_tokens"):
        logger.warning("vLLM's CPU runner has changed: requests with a seed and a long prompt are not protected")
    elif not hasattr(CPUModelRunner.sample_tokens, PATCHED):
        CPUModelRunner.sample_tokens = without_discarded_generators(CPUModelRunner.sample_tokens)


def without_discarded_generators(sample_tokens: Any) -> Any:
    """Sampling, with the generators of requests whose token is thrown away out of sight.

    Such a row is then sampled without a seed, and its generator makes no draw that had to be undone. So a seed
    gives the same tokens however the prompt was cut into chunks, preempted requests included: they are computed
    anew in chunks, and keep their generator.
    """

    @functools.wraps(sample_tokens)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = self.input_batch
        with _hidden(batch.generators, self.discard_request_mask.np[: batch.num_reqs]):
            return sample_tokens(self, *args, **kwargs)

    setattr(wrapper, PATCHED, True)
    return wrapper


@contextmanager
def _hidden(generators: dict[int, Any], discarded: Any) -> Iterator[None]:
    """In place: the sampler holds the same dict. Rows keep their numbers until the next execute_model."""
    hidden = {row: generators.pop(row) for row in list(generators) if discarded[row]}
    try:
        yield
    finally:
        generators.update(hidden)
