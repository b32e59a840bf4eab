"""Whether an adapter leaves the rest of the model alone: replies to general instructions before and after.

In: a scorer, evaluate_general.json. Out: one record an instruction: how far the adapter moves the base model's own
greedy reply. The instructions stand alone, without a document's framing, so that the base model is asked once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from evaluate_scorer import Answered, Tokens

GENERAL = Path(__file__).with_name("evaluate_general.json")
REPLY_TOKENS = 48
START_TOKENS = 8


class Model(Protocol):
    """What is asked of evaluate_scorer.Scorer here."""

    def chat(self, messages: list[dict[str, Any]]) -> Tokens: ...
    def answers(self, prompts: Sequence[Tokens], endings: Sequence[Sequence[Tokens]], limit: int) -> list[Answered]: ...
    def logits(self, prompts: Sequence[Tokens], endings: Sequence[Tokens]) -> list[torch.Tensor]: ...


class General:
    """The base model's replies and their logits; built while the scorer has no adapter."""

    def __init__(self, model: Model, instructions: Sequence[str]) -> None:
        self._model = model
        self._prompts = [model.chat([{"role": "user", "content": text}]) for text in instructions]
        self._replies = [one.said for one in model.answers(self._prompts, [[] for _ in instructions], REPLY_TOKENS)]
        self._logits = model.logits(self._prompts, self._replies)

    def records(self) -> list[dict[str, Any]]:
        """With what the scorer has now: `kl` (base || now), `nll` and `base_nll`, in nats over the reply's `tokens`;
        `same`: the first START_TOKENS greedy tokens are the base model's."""
        now = self._model.logits(self._prompts, self._replies)
        starts = self._model.answers(self._prompts, [[] for _ in self._prompts], START_TOKENS)
        return [
            _moved(reply, before, after) | {"same": float(start.said == reply[:START_TOKENS])}
            for reply, before, after, start in zip(self._replies, self._logits, now, starts, strict=True)
        ]


def instructions() -> list[str]:
    texts: list[str] = json.loads(GENERAL.read_text("utf-8"))
    return texts


def _moved(reply: Tokens, before_TV: torch.Tensor, after_TV: torch.Tensor) -> dict[str, Any]:
    base_TV, now_TV = before_TV.float().log_softmax(-1), after_TV.float().log_softmax(-1)
    target_T = torch.tensor(reply, device=base_TV.device, dtype=torch.long)
    return {
        "tokens": len(reply),
        "kl": float((base_TV.exp() * (base_TV - now_TV)).sum()),
        "nll": float(-now_TV.gather(1, target_T[:, None]).sum()),
        "base_nll": float(-base_TV.gather(1, target_T[:, None]).sum()),
    }
