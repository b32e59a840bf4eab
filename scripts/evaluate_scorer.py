"""Likelihoods, greedy answers and logits of many questions at once, with transformers and peft in one process.

In: a base model, prompts that share a beginning, endings, an adapter's folder. Out: what the model makes of them.
What prompts share is computed once; behind it all branches go through the model side by side in one row, each token
seeing its own branch only, so that nothing is padded and the document's keys and values are never copied per question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from lift_config.prompts import Message, frame

GROUP_TOKENS = 2048  # of questions and endings, computed at once
ROOT = 0  # the branch that all others begin with

Tokens = list[int]


@dataclass(frozen=True)
class Answered:
    """For each ending its negative log-likelihood (nats) and its tokens; the greedy answer."""

    likelihoods: list[tuple[float, int]]
    said: Tokens


class Scorer:
    """A base model, with an adapter or without; framed as the product does it."""

    def __init__(self, base_model: str, dtype: str, device: str = "cpu", group_tokens: int = GROUP_TOKENS) -> None:
        self._group_tokens = group_tokens
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base_model)
        model = AutoModelForCausalLM.from_pretrained(
            base_model, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
        self._base: Any = model.to(device).eval()
        self._model: Any = self._base
        self.window: int = self._base.config.max_position_embeddings
        stops = self._base.generation_config.eos_token_id
        self._stops = {self._tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])}

    @contextmanager
    def adapter(self, folder: Path) -> Iterator[None]:
        """Everything within is computed with the adapter, in the base model's own dtype as vLLM does it."""
        self._model = PeftModel.from_pretrained(self._base, folder, autocast_adapter_dtype=False).eval()
        try:
            yield
        finally:
            self._base = self._model = self._model.unload()

    def prompt(self, title: str, question: str, text: str | None, shots: Sequence[Message] = ()) -> Tokens:
        return self.chat(frame([*shots, {"role": "user", "content": question}], title, text))

    def chat(self, messages: list[Message]) -> Tokens:
        return self.tokens(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def tokens(self, text: str) -> Tokens:
        tokens: Tokens = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tokens

    def text(self, tokens: Tokens) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    @torch.inference_mode()
    def answers(self, prompts: Sequence[Tokens], endings: Sequence[Sequence[Tokens]], limit: int) -> list[Answered]:
        """Each prompt with each of its endings, and with at most `limit` greedy tokens."""
        found: list[Answered] = []
        for forest, branches, first, group in self._grown(prompts, endings):
            rows = _endings(forest, branches, first, group)
            likelihoods = [[(_nll(logits, ending), len(ending)) for logits, ending in own] for own in rows]
            forest.cut_back(branches)
            said = self._greedy(forest, branches, first, limit)
            found += [Answered(*both) for both in zip(likelihoods, said, strict=True)]
        return found

    @torch.inference_mode()
    def logits(self, prompts: Sequence[Tokens], endings: Sequence[Tokens]) -> list[torch.Tensor]:
        """Before each token of each prompt's ending, in the model's dtype."""
        found: list[torch.Tensor] = []
        for forest, branches, first, group in self._grown(prompts, [[ending] for ending in endings]):
            found += [own[0][0] for own in _endings(forest, branches, first, group)]
        return found

    def _grown(
        self, prompts: Sequence[Tokens], endings: Sequence[Sequence[Tokens]]
    ) -> Iterator[tuple[Forest, list[int], list[torch.Tensor], list[Sequence[Tokens]]]]:
        """Group after group: the forest with their prompts, their branches, the logits behind them, their endings."""
        shared = min(_common(prompts[0], prompt) for prompt in prompts)
        forest = Forest(self._model, prompts[0][:shared])
        sizes = [len(p) - shared + sum(map(len, own)) for p, own in zip(prompts, endings, strict=True)]
        for group in groups(sizes, self._group_tokens):
            branches = [forest.branch(ROOT) for _ in group]
            stems = [prompts[number][shared:] for number in group]
            first = forest.extend(list(zip(branches, stems, strict=True)), only_last=True)
            yield forest, branches, first, [endings[number] for number in group]
            forest.cut_back([ROOT])

    def _greedy(self, forest: Forest, branches: list[int], first: list[torch.Tensor], limit: int) -> list[Tokens]:
        """All branches a token a pass; one that says its end drops out."""
        said: dict[int, Tokens] = {branch: [] for branch in branches}
        alive, logits = branches, first
        while alive and limit:
            chosen = dict(zip(alive, torch.cat(logits).argmax(-1).tolist(), strict=True))
            alive = [branch for branch in alive if chosen[branch] not in self._stops]
            for branch in alive:
                said[branch].append(chosen[branch])
            alive = [branch for branch in alive if len(said[branch]) < limit]
            if alive:
                logits = forest.extend([(branch, [chosen[branch]]) for branch in alive], only_last=True)
        return list(said.values())


class Forest:
    """Token sequences that grow from one another, in a single cache. A token sees its branch and what that began with.

    Right for attention over everything before (Llama, Qwen, Mistral up to its window), not for recurrent layers.
    """

    def __init__(self, model: Any, root: Tokens) -> None:
        self._model, self._device = model, model.device
        self._cache = DynamicCache()  # without a configuration every layer keeps everything
        self._owners = torch.full((len(root),), ROOT)  # of each token in the cache, its branch
        self._lineage: list[list[int]] = [[ROOT]]
        self._lengths = [len(root)]
        model(input_ids=torch.tensor([root], device=self._device), past_key_values=self._cache, logits_to_keep=1)

    def branch(self, parent: int) -> int:
        """An empty one at the end of `parent`, which is not to grow while this one stands."""
        self._lineage.append([*self._lineage[parent], len(self._lineage)])
        self._lengths.append(self._lengths[parent])
        return len(self._lineage) - 1

    def extend(self, pieces: list[tuple[int, Tokens]], *, only_last: bool = False) -> list[torch.Tensor]:
        """Append tokens to different branches; for each the logits behind every token, or behind the last one."""
        before = len(self._owners)
        sizes = [len(tokens) for _, tokens in pieces]
        owners = torch.tensor([branch for branch, tokens in pieces for _ in tokens])
        self._owners = torch.cat([self._owners, owners])
        positions = [self._lengths[branch] + at for branch, tokens in pieces for at in range(len(tokens))]
        ends = [sum(sizes[: number + 1]) - 1 for number in range(len(sizes))]
        out = self._model(
            input_ids=torch.tensor([[token for _, tokens in pieces for token in tokens]], device=self._device),
            position_ids=torch.tensor([positions], device=self._device),
            attention_mask=self._mask(owners, before).to(self._device),
            past_key_values=self._cache,
            logits_to_keep=torch.tensor(ends, device=self._device) if only_last else 0,
        )
        for (branch, _), size in zip(pieces, sizes, strict=True):
            self._lengths[branch] += size
        return list(out.logits[0].split([1] * len(pieces) if only_last else sizes))

    def cut_back(self, kept: list[int]) -> None:
        """Drop the newest branches: all that came after the last token of `kept` and of the root."""
        stays = torch.isin(self._owners, torch.tensor([ROOT, *kept])).nonzero()[-1].item() + 1
        if surplus := len(self._owners) - int(stays):
            self._cache.crop(-surplus)
            self._owners = self._owners[: int(stays)]

    def _mask(self, owners: torch.Tensor, before: int) -> torch.Tensor:
        """[1, 1, new tokens, all tokens]: the same lineage, and not later."""
        related = torch.zeros(len(self._lineage), len(self._lineage), dtype=torch.bool)
        for branch in set(owners.tolist()):
            related[branch, self._lineage[branch]] = True
        queries_T = torch.arange(before, before + len(owners))
        is_earlier_TK = torch.arange(len(self._owners))[None, :] <= queries_T[:, None]
        return (related[owners][:, self._owners] & is_earlier_TK)[None, None]


def groups(sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Numbers of neighbours of at most `limit` in all, or of one that is larger."""
    group: list[int] = []
    for number, size in enumerate(sizes):
        if group and sum(sizes[one] for one in group) + size > limit:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _endings(
    forest: Forest, branches: list[int], first: list[torch.Tensor], endings: list[Sequence[Tokens]]
) -> list[list[tuple[torch.Tensor, Tokens]]]:
    """Each branch's endings with the logits before each of their tokens; the first ones stand behind the prompt."""
    of = [number for number, own in enumerate(endings) for _ in own]
    pieces = [
        (forest.branch(branches[number]), ending[:-1])
        for number, own in enumerate(endings)
        for ending in own
        if len(ending) > 1
    ]
    later = iter(forest.extend(pieces)) if pieces else iter(())
    flat = [
        (torch.cat([first[number], next(later)]) if len(ending) > 1 else first[number][: len(ending)], ending)
        for number, ending in zip(of, (ending for own in endings for ending in own), strict=True)
    ]
    rest = iter(flat)
    return [[next(rest) for _ in own] for own in endings]


def _nll(logits_TV: torch.Tensor, ending: Tokens) -> float:
    target_T = torch.tensor(ending, device=logits_TV.device)
    return float(torch.nn.functional.cross_entropy(logits_TV.float(), target_T, reduction="sum"))


def _common(a: Tokens, b: Tokens) -> int:
    """Leading tokens two prompts share, at least one token of each left over."""
    limit = min(len(a), len(b)) - 1
    return next((i for i in range(limit) if a[i] != b[i]), limit)
