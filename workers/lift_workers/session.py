"""A document's training inside the child: stages, epochs and steps, as events, with a rest wherever it is asked for.

In: the child's messages from `begin` to `finish`. Out: events. A generator, so that a document put aside is simply
one that nobody asks for its next event.
"""

from __future__ import annotations

import queue
import random
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lift_config.recipe import Recipe
from lift_workers.encode import Encoder, TrainingExample, pack, shared_prefix
from lift_workers.train import WarmTrainer

Message = dict[str, Any]
Inbox = queue.SimpleQueue[Message | None]
Batch = list[TrainingExample]

STAGE_STEPS = 24  # a stage's epoch is not to have fewer steps only because a GPU likes large ones
EXAMPLE_TOKENS = 40  # computed, of an example about a sentence
MAX_PADDED = 4  # times a step's tokens: what attention may hold of a batch, padding counted
REST = None  # among examples and batches: stop here until somebody goes on


class Session:
    """One document. `min_step_tokens`: what a step should have, where there are enough examples."""

    def __init__(self, trainer: WarmTrainer, title: str | None, inbox: Inbox, min_step_tokens: int) -> None:
        self._trainer, self._title, self._inbox = trainer, title, inbox
        self._min_step_tokens = min_step_tokens
        self._encoder = Encoder(trainer.tokenizer)
        self._examples: list[TrainingExample] = []  # of all stages so far: later epochs go over them again
        self._waiting: deque[Message] = deque()  # what `suspend` overtook
        self._steps = self._tokens = self._trained = 0
        self.is_begun = False  # whether the trainer holds anything of this document

    def run(self) -> Iterator[Message]:
        """Events, `suspended` among them: whoever goes on after it has restored the trainer before."""
        while (message := self._get())["op"] != "finish":
            if message["op"] == "suspend":
                yield {"event": "suspended"}
            elif message["op"] == "export":
                self._trainer.export(Path(message["folder"]))
                yield {"event": "exported"}
            else:
                yield from self._stage(Recipe(**message["recipe"]), message["examples"])

    def _stage(self, recipe: Recipe, expected_examples: int) -> Iterator[Message]:
        (self._trainer.stage if self.is_begun else self._trainer.begin)(recipe)
        self.is_begun, steps_before = True, self._steps
        for batch, total in self._batches(recipe, step_size(recipe, expected_examples, self._min_step_tokens)):
            if batch is REST:
                yield {"event": "suspended"}
                continue
            if self._steps == steps_before:
                yield {"event": "started"}
            packed = pack(batch, self._trainer.device, recipe.prompt_loss_weight)
            result = self._trainer.step(packed, total)
            self._steps, self._tokens = self._steps + 1, self._tokens + result.tokens
            self._trained += len(batch)
            yield {"event": "progress", "loss": result.loss} | self._counts()
        yield {"event": "trained"} | self._counts()

    def _counts(self) -> Message:
        return {"steps": self._steps, "tokens": self._tokens, "examples": self._trained}

    def _batches(self, recipe: Recipe, step_tokens: int) -> Iterator[tuple[Batch | None, int | None]]:
        """Steps with the number of this stage's steps in all, None while tasks still arrive."""
        first, is_written_beside = 0, recipe.tasks_per_segment > 0
        self._trainer.share_cores(is_written_beside)
        for batch in filled(self._arriving(), step_tokens):
            first += batch is not REST
            yield batch, None
            self._trainer.share_cores(is_written_beside)  # again: after a rest another document has been at it
        self._trainer.share_cores(False)
        later = list(self._later(recipe, step_tokens, first))
        for batch in later:
            while self._is_rest_asked():
                yield REST, None
                self._trainer.share_cores(False)
            yield batch, first + len(later)

    def _later(self, recipe: Recipe, step_tokens: int, first: int) -> Iterator[Batch | None]:
        """After the `first` steps: epochs over the examples of all stages, more than the recipe's of a short text."""
        shuffle, steps, epochs = random.Random(recipe.seed), first, 1
        while epochs < recipe.epochs or (self._examples and steps < recipe.least_steps):
            batches = list(filled(shuffle.sample(self._examples, len(self._examples)), step_tokens))
            if epochs >= recipe.epochs:  # beyond the recipe's own: no more than what lacks
                batches = batches[: recipe.least_steps - steps]
            steps, epochs = steps + len(batches), epochs + 1
            yield from batches

    def _arriving(self) -> Iterator[TrainingExample | None]:
        """Examples of the tasks in the order they come; ends at `end`."""
        while (message := self._next_of_stage())["op"] != "end":
            if message["op"] == "suspend":
                yield REST
                continue
            question, answer, stand_in = message["question"], message["answer"], message["stand_in"]
            example = self._encoder.encode(question, answer, self._title, stand_in)
            self._examples.append(example)
            yield example

    def _next_of_stage(self) -> Message:
        """`suspend` before tasks that came earlier: those of a long text are all there before its first step."""
        while not self._inbox.empty():
            message = self._get()
            if message["op"] == "suspend":
                return message
            self._waiting.append(message)
        return self._waiting.popleft() if self._waiting else self._get()

    def _is_rest_asked(self) -> bool:
        """After `end` nothing but `suspend` can come before `trained`."""
        try:
            message = self._inbox.get_nowait()
        except queue.Empty:
            return False
        return bool(self._present(message)["op"] == "suspend")

    def _get(self) -> Message:
        return self._present(self._inbox.get())

    def _present(self, message: Message | None) -> Message:
        if message is None:
            raise SystemExit("the supervisor is gone")
        return message


def step_size(recipe: Recipe, examples: int, least: int) -> int:
    """Computed tokens of a step: the recipe's, or `least` where an epoch of `examples` still has STAGE_STEPS then."""
    return max(recipe.tokens_per_step, min(least, examples * EXAMPLE_TOKENS // STAGE_STEPS))


def filled(examples: Iterable[TrainingExample | None], step_tokens: int) -> Iterator[Batch | None]:
    """Batches of `step_tokens` computed tokens or a little more; the last one of what is left. REST passes through.

    A batch ends early before an example so much longer than the others that attention (tree.py) would be mostly
    padding: all of a batch are padded to its longest.
    """
    batch: Batch = []
    size = longest = 0
    for example in examples:
        if example is REST:
            yield REST
            continue
        longest = max(longest, example.size_tokens)
        if batch and (len(batch) + 1) * longest > MAX_PADDED * step_tokens:
            yield batch
            batch, size, longest = [], 0, example.size_tokens
        batch.append(example)
        shared = shared_prefix([other.prompt for other in batch[:2]]) if len(batch) > 1 else 0
        size += example.size_tokens - shared
        if size >= step_tokens:
            yield batch
            batch, size, longest = [], 0, 0
    if batch:
        yield batch
