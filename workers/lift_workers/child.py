"""The training child: `python -m lift_workers.child`, the only process of a worker that holds the model.

In: JSON lines on stdin. `begin` (session, title) a document, or take it up again; `stage` (recipe, examples expected an
epoch), its `task`s (question, answer, stand_in) and `end`; `export` (folder); then the next stage, `suspend` or
`finish`. Out: JSON lines on stdout: `ready`, `begun` (resumed or not), `started` (the first tasks are there),
`progress` (steps, loss, tokens, examples), `trained`, `exported`, `suspended`; `failed` (code, message) where it ends
and can say why. Training starts while tasks are still written. Ends with stdin.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging as transformers_log

from lift_config.logs import log_to_stderr
from lift_config.machine import cpu_dtype
from lift_config.settings import Settings
from lift_workers.session import Inbox, Message, Session
from lift_workers.train import Snapshot, WarmTrainer

KEPT_ASIDE = 8  # documents put aside; three times an adapter's size each, and their examples
GPU_STEP_TOKENS = 2048  # below it a step of an 8B model waits for launches (lift-facts.md, 3); not yet measured here
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Load the model, say so, then train one document after the other."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not land between the events
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed supervisor can't close our stdin in a step
    settings = Settings()
    log_to_stderr(settings.log_format, "%(asctime)s %(levelname)s %(name)s %(message)s")
    transformers_log.disable_default_handler()
    transformers_log.enable_propagation()  # to ours: its lines look alike then
    trainer = load(settings)
    inbox: Inbox = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, inbox), daemon=True).start()
    _say(events, {"event": "ready"})
    try:
        for event in serve(trainer, inbox, min_step_tokens(settings, trainer.device)):
            _say(events, event)
    except FloatingPointError:
        _say(events, {"event": "failed", "code": "loss_not_finite", "message": "The training's loss is no number."})
        raise  # whatever the failure left in memory goes with the process
    except (MemoryError, torch.OutOfMemoryError):
        _say(events, {"event": "failed", "code": "out_of_memory", "message": "Memory does not suffice to train it."})
        raise


def load(settings: Settings) -> WarmTrainer:
    """The warm model on the device of the settings; a GPU is shared with an engine, so its part is capped."""
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_per_process_memory_fraction(settings.worker.gpu_memory_fraction)
    dtype = torch.bfloat16 if cuda or cpu_dtype(settings) == "bfloat16" else torch.float32
    revision = None if settings.base_model_is_folder else settings.base_revision
    return WarmTrainer(settings.base_model, revision=revision, device="cuda" if cuda else "cpu", dtype=dtype)


def min_step_tokens(settings: Settings, device: torch.device) -> int:
    """What a step should have at least: on a GPU smaller ones wait for launches, on a CPU tokens cost the same."""
    return settings.worker.min_tokens_per_step or (GPU_STEP_TOKENS if device.type == "cuda" else 1)


@dataclass(frozen=True)
class _Aside:
    """A document put aside: its session, stopped between two steps, and the trainer's part of it."""

    session: Session
    events: Iterator[Message]
    snapshot: Snapshot | None


def serve(trainer: WarmTrainer, inbox: Inbox, step_tokens: int) -> Iterator[Message]:
    """The events of all documents, until the inbox ends. One put aside waits in memory for its next `begin`."""
    aside: dict[str, _Aside] = {}
    while (begin := inbox.get()) is not None:
        if begin["op"] != "begin":
            raise ValueError(f"{begin['op']!r} outside a document")
        known = aside.pop(begin["session"], None)
        if known and known.snapshot:
            trainer.restore(known.snapshot)
        session = known.session if known else Session(trainer, begin["title"], inbox, step_tokens)
        events = known.events if known else session.run()
        yield {"event": "begun", "resumed": known is not None}
        for event in events:
            if event["event"] == "suspended":
                aside[begin["session"]] = _Aside(session, events, trainer.snapshot() if session.is_begun else None)
                if len(aside) > KEPT_ASIDE:
                    del aside[next(iter(aside))]
                yield event
                break
            yield event


def _read(lines: Iterable[str], inbox: Inbox) -> None:
    for line in lines:
        inbox.put(json.loads(line))
    inbox.put(None)


def _say(events: Any, event: Message) -> None:
    events.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    main()
