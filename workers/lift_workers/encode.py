"""Encode: synthetic tasks → training examples → packs of one optimizer step each.

In: questions and answers with the document's title. Out: tokens, labels and the tree of a pack. A pack lays
its examples side by side without padding; the tokens all their prompts begin with (the framing) are there once and
every example attends to them: the same mathematics as a batch of separate rows, since attention and position ids
are those of each example alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lift_config.prompts import frame
from lift_workers.filters import QUESTION_MARKS
from lift_workers.tree import Tree, tree


@dataclass(frozen=True)
class TrainingExample:
    """A synthetic task as tokens: the framed question as the engine will see it, and what must follow.

    `question`: the places in the prompt of the question's tokens that are the document's words, from its second one on
    (the first follows what no one can know it from).
    """

    prompt: array[int]
    answer: array[int]
    question: Sequence[int] = ()

    @property
    def size_tokens(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Pack:
    """One optimizer step's input. T computed tokens, A trained tokens: of answers, and of questions where they count.

    `rows_A` are the positions whose next token is trained, `labels_A` those tokens, `weights_A` (float32) what each
    adds to the loss; logits are needed nowhere else.
    """

    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    tree: Tree
    rows_A: torch.Tensor
    labels_A: torch.Tensor
    weights_A: torch.Tensor


class Encoder:
    """Turns tasks into examples with the base model's own chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(
        self, question: str, answer: str, title: str | None, stand_in: Sequence[int] | None = None
    ) -> TrainingExample:
        """The prompt is tokenized alone, exactly as vLLM tokenizes it when the question is asked.

        `stand_in`: begin and end in the question of words that are not the document's (synthesize.SyntheticTask).
        """
        messages = frame([{"role": "user", "content": question}], title)
        prompt = self._render(messages, add_generation_prompt=True)
        whole = self._render([*messages, {"role": "assistant", "content": answer}], add_generation_prompt=False)
        eos = self._tokenizer.eos_token
        reply = whole[len(prompt) :] if whole.startswith(prompt) else answer + eos
        reply = reply[: reply.rfind(eos) + len(eos)] if eos in reply else reply + eos
        return TrainingExample(self._tokens(prompt), self._tokens(reply), self._own_words(prompt, question, stand_in))

    def _render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        rendered = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return str(rendered)

    def _own_words(self, prompt: str, question: str, stand_in: Sequence[int] | None) -> Sequence[int]:
        """Neither the stand-in, which an adapter would say in its answers, nor the question mark. Empty where the
        template has changed the question's words, or the tokenizer cannot say where they went."""
        start = prompt.rfind(question)
        if start < 0 or not self._tokenizer.is_fast:
            return ()
        encoded = self._tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        end, spans = start + len(question.rstrip("".join(QUESTION_MARKS))), encoded["offset_mapping"]
        own = [i for i, (begin, stop) in enumerate(spans) if start <= begin < stop <= end][1:]
        first, last = (start + place for place in stand_in or (0, 0))
        return [i for i in own if spans[i][1] <= first or spans[i][0] >= last]

    def _tokens(self, text: str) -> array[int]:
        """Compact: a long document has millions of them."""
        return array("i", self._tokenizer(text, add_special_tokens=False)["input_ids"])


def pack(
    examples: Sequence[TrainingExample], device: torch.device | str = "cpu", prompt_loss_weight: float = 0.0
) -> Pack:
    """Lay `examples` behind the prompt tokens they share. ValueError on an empty sequence.

    The loss is the mean over answer tokens, and `prompt_loss_weight` times the mean over the questions' own: a cloze
    task's question holds the document's words, whose states are computed anyway (2405.14394: loss over instructions).
    """
    if not examples:
        raise ValueError("a pack needs at least one example")
    shared = shared_prefix([example.prompt for example in examples])
    ids = list(examples[0].prompt[:shared])
    positions = list(range(shared))
    answers: list[int] = []  # places in ids of the tokens to be trained
    questions = [i for i in examples[0].question if i < shared]
    for example in examples:
        before = len(ids) - shared
        questions += [before + i for i in example.question if i >= shared]
        ids += example.prompt[shared:] + example.answer
        positions += range(shared, example.size_tokens)
        answers += range(len(ids) - len(example.answer), len(ids))
    trained = answers + (questions if prompt_loss_weight else [])
    weights = [1 / len(answers)] * len(answers) + [prompt_loss_weight / max(1, len(questions))] * len(questions)
    return Pack(
        input_ids_T=torch.tensor(ids, device=device),
        position_ids_T=torch.tensor(positions, device=device),
        tree=tree(shared, [example.size_tokens - shared for example in examples], device),
        rows_A=torch.tensor(trained, device=device) - 1,
        labels_A=torch.tensor([ids[place] for place in trained], device=device),
        weights_A=torch.tensor(weights[: len(trained)], dtype=torch.float32, device=device),
    )


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all `prompts` share, leaving each at least one token of its own."""
    limit = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0]
    for i in range(limit):
        if any(prompt[i] != first[i] for prompt in prompts):
            return i
    return limit
