"""The training child: `python -m lift_workers.child`, the only process of a worker that holds the model.

In: JSON lines on stdin, `begin` (title, recipe, folder), `task` (question, answer) and `end`. Out: JSON lines on
stdout, `ready`, `started` (the first tasks are there), `progress` (steps, loss, tokens, examples) and `done`
once the adapter lies in the folder. Training starts while tasks are still being written. Ends with stdin.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import queue
import random
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lift_config.recipe import Recipe
from lift_config.settings import Settings
from lift_workers.encode import Encoder, TrainingExample, pack, shared_prefix
from lift_workers.train import WarmTrainer

Message = dict[str, Any]
logger = logging.getLogger(__name__)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Load the model, say so, then train one document after the other."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not land between the events
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed supervisor can't close our stdin in a step
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings()
    trainer = load(settings)
    inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, inbox), daemon=True).start()
    _say(events, event="ready")
    while (message := inbox.get()) is not None:
        if message["op"] == "begin":
            for event in train_document(trainer, message, inbox):
                _say(events, **event)


def load(settings: Settings) -> WarmTrainer:
    """The warm model on the device of the settings; a GPU is shared with an engine, so its part is capped."""
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_per_process_memory_fraction(settings.worker.gpu_memory_fraction)
    revision = None if settings.base_model_is_folder else settings.base_revision
    return WarmTrainer(settings.base_model, revision=revision, device="cuda" if cuda else "cpu")


def train_document(trainer: WarmTrainer, begin: Message, inbox: queue.SimpleQueue[Message | None]) -> Iterator[Message]:
    """Train on the tasks as they arrive, then the recipe's other epochs over all of them; events as it goes."""
    recipe = Recipe(**begin["recipe"])
    encoder, title = Encoder(trainer.tokenizer), begin["title"]
    trainer.begin(recipe)
    steps = tokens = trained = 0
    examples: list[TrainingExample] = []
    for batch, total in _batches(_arriving(encoder, title, inbox, examples), examples, recipe):
        if not steps:
            yield {"event": "started"}
        result = trainer.step(pack(batch, trainer.device), total)
        steps, tokens, trained = steps + 1, tokens + result.tokens, trained + len(batch)
        yield {"event": "progress", "steps": steps, "loss": result.loss, "tokens": tokens, "examples": trained}
    trainer.export(Path(begin["folder"]))
    yield {"event": "done", "steps": steps, "tokens": tokens, "examples": trained}


def _arriving(
    encoder: Encoder, title: str | None, inbox: queue.SimpleQueue[Message | None], seen: list[TrainingExample]
) -> Iterator[TrainingExample]:
    """Examples of the tasks in the order they come, also kept in `seen`; ends at `end`."""
    while (message := inbox.get()) is not None and message["op"] == "task":
        example = encoder.encode(message["question"], message["answer"], title)
        seen.append(example)
        yield example
    if message is None:
        raise SystemExit("the supervisor is gone")


def _batches(
    arriving: Iterator[TrainingExample], seen: list[TrainingExample], recipe: Recipe
) -> Iterator[tuple[Sequence[TrainingExample], int | None]]:
    """Steps with the number of steps in all, None while tasks still arrive."""
    first = 0
    for batch in _filled(arriving, recipe.tokens_per_step):
        first += 1
        yield batch, None
    shuffle = random.Random(recipe.seed)
    later = [
        batch
        for _ in range(recipe.epochs - 1)
        for batch in _filled(shuffle.sample(seen, len(seen)), recipe.tokens_per_step)
    ]
    for batch in later:
        yield batch, first + len(later)


def _filled(examples: Iterable[TrainingExample], tokens_per_step: int) -> Iterator[list[TrainingExample]]:
    """Batches of `tokens_per_step` computed tokens or a little more; the last one of what is left."""
    batch: list[TrainingExample] = []
    size = 0
    for example in examples:
        batch.append(example)
        shared = shared_prefix([other.prompt for other in batch[:2]]) if len(batch) > 1 else 0
        size += example.size_tokens - shared
        if size >= tokens_per_step:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(lines: Iterable[str], inbox: queue.SimpleQueue[Message | None]) -> None:
    for line in lines:
        inbox.put(json.loads(line))
    inbox.put(None)


def _say(events: Any, **event: Any) -> None:
    events.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    main()
