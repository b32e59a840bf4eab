"""What an adapter answers: likelihood of gold answers and greedy answers, with transformers and peft in one process.

In: a base model, documents with questions, an adapter's folder or a text for the prompt. Out: a Score.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench_common import Document
from lift_config.prompts import frame

MAX_ANSWER_TOKENS = 32


@dataclass(frozen=True)
class Score:
    """`nll`: nats per gold-answer token, over all questions; `right`: greedy answers that contain a gold answer."""

    nll: float
    right: int


class Scorer:
    """transformers + peft, in the engine's framing and greedy as at temperature 0; one KV cache per document."""

    def __init__(self, base_model: str) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base_model)
        self._base: Any = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
        self._model: Any = self._base

    def with_adapter(self, document: Document, folder: Path) -> Score:
        self._model = PeftModel.from_pretrained(self._base, folder)
        try:
            return self.score(document, None)
        finally:
            self._base = self._model = self._model.unload()

    @torch.inference_mode()
    def score(self, document: Document, text: str | None) -> Score:
        """`text` in the prompt, or None."""
        prompts = [self._prompt(document["title"], qa["question"], text) for qa in document["qa"]]
        shared = min(_common(prompts[0], prompt) for prompt in prompts)
        cache = self._model(input_ids=torch.tensor([prompts[0][:shared]]), use_cache=True).past_key_values
        nll, tokens, right = 0.0, 0, 0
        for prompt, qa in zip(prompts, document["qa"], strict=True):
            gold = self._tokenizer(qa["answers"][0], add_special_tokens=False)["input_ids"]
            nll += self._nll(prompt, gold, shared, copy.deepcopy(cache))
            tokens += len(gold)
            said = self._answer(prompt, copy.deepcopy(cache))
            right += any(answer.lower() in said.lower() for answer in qa["answers"])
        return Score(nll / tokens, right)

    def _prompt(self, title: str, question: str, text: str | None) -> list[int]:
        messages = frame([{"role": "user", "content": question}], title, text)
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens: list[int] = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return tokens

    def _nll(self, prompt: list[int], gold: list[int], shared: int, cache: Any) -> float:
        ids = torch.tensor([prompt[shared:] + gold])
        logits_TV = self._model(input_ids=ids, past_key_values=cache).logits[0, -len(gold) - 1 : -1]
        return float(torch.nn.functional.cross_entropy(logits_TV, torch.tensor(gold), reduction="sum"))

    def _answer(self, prompt: list[int], cache: Any) -> str:
        ids = torch.tensor([prompt])
        out = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=MAX_ANSWER_TOKENS,
            do_sample=False,
        )
        said: str = self._tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)
        return said


def _common(a: list[int], b: list[int]) -> int:
    """Leading tokens two prompts share, at least one token of each left over."""
    limit = min(len(a), len(b)) - 1
    return next((i for i in range(limit) if a[i] != b[i]), limit)
