"""The product's worker for a model with random weights: `python scripts/bench_worker.py --index 0`; a stand-in.

In: what `python -m lift_workers` gets. Out: the same, but for the tasks' words. The engine is asked for every question
and every answer as it would be, and writes TASK_TOKENS for both together; what such weights say is thrown away, and a
recorded task taken instead, in turn over all segments. Recorded tasks speak of other texts, so no filter refuses them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bench_common import TABLES
from lift_config.recipe import Recipe
from lift_workers import pipeline
from lift_workers.__main__ import main
from lift_workers.generator import MAX_ANSWER_TOKENS, MAX_QUESTION_TOKENS, Completion, Generator
from lift_workers.registry import LookUp
from lift_workers.trainer import Trainer

RECORDED = TABLES / "tasks.jsonl"
TASK_TOKENS = 45  # generated for a question and its answer, each in proportion to its limit: 25 and 20

Task = dict[str, str]


class ReplayGenerator(Generator):
    """Waits for the engine as a Generator does, and says what was recorded. A request that the engine refused stays
    empty: it cost nothing, and is to be missed."""

    def __init__(
        self, look_up: LookUp, api_key: str, model_name: str, concurrency: int, *, tasks: Sequence[Task]
    ) -> None:
        super().__init__(look_up, api_key, model_name, concurrency)
        self._answers = {_rest(task["question"]): task["answer"] for task in tasks}
        self._questions = itertools.cycle(self._answers)

    async def question(self, prompt: str, seed: int, salt: str | None) -> Completion:
        """What was recorded, less its first word: `prompt` ends with how a question is to begin."""
        asked = await super().question(prompt, seed, salt)
        return replace(asked, text=next(self._questions)) if asked.usage.requests else asked

    async def answer(self, prompt: str, salt: str | None) -> Completion:
        answered = await super().answer(prompt, salt)
        question = prompt.removesuffix("\nAnswer:")
        recorded = next(answer for rest, answer in self._answers.items() if question.endswith(f" {rest}"))
        return replace(answered, text=recorded) if answered.usage.requests else answered

    async def _complete(self, body: dict[str, Any], salt: str | None) -> Completion:
        """vLLM heeds no stop string before `min_tokens`."""
        tokens = TASK_TOKENS * body["max_tokens"] // (MAX_QUESTION_TOKENS + MAX_ANSWER_TOKENS)
        forced = {"min_tokens": tokens, "max_tokens": tokens, "ignore_eos": True}
        return await super()._complete(body | forced, salt)


def unfiltered(text: str, recipe: Recipe, generator: Generator, trainer: Trainer) -> pipeline.Course:
    return pipeline.Course(text, recipe.model_copy(update={"filter": False}), generator, trainer)


def recorded() -> list[Task]:
    return [json.loads(line) for line in RECORDED.read_text("utf-8").splitlines()]


def _rest(question: str) -> str:
    return question.partition(" ")[2]


if __name__ == "__main__":
    main(partial(ReplayGenerator, tasks=recorded()), unfiltered)
