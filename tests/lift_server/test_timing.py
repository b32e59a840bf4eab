"""What an answer says of its own time against what its client measures."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from lift_server import relay

BASE = "smollm2-135m-instruct"
TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
ASKED: Any = [{"role": "user", "content": "What is the answer?"}]
APART_S = 0.05


def uncovered_s(phases: dict[str, dict[str, float]], until_s: float) -> float:
    """How much of the time up to `until_s` lies in no phase."""
    covered_s, missing_s = 0.0, 0.0
    for span in sorted(phases.values(), key=lambda span: span["start_s"]):
        missing_s += max(0.0, min(span["start_s"], until_s) - covered_s)
        covered_s = max(covered_s, span["end_s"])
    return missing_s + max(0.0, until_s - covered_s)


def test_what_no_phase_covers() -> None:
    spans = {"a": (1.0, 4.0), "b": (2.0, 3.0), "c": (5.0, 6.0)}
    phases = {phase: {"start_s": start_s, "end_s": end_s} for phase, (start_s, end_s) in spans.items()}
    assert uncovered_s(phases, 10.0) == pytest.approx(1 + 1 + 4)
    assert uncovered_s(phases, 5.5) == pytest.approx(1 + 1)


async def streamed(
    front_end: Any, question: dict[str, Any], kept_alive: asyncio.Event | None = None
) -> tuple[float, Any]:
    """Seconds to the first token, and the answer's `lift`. `kept_alive` is set by the first comment."""
    body = {"model": BASE, "messages": ASKED, "stream": True, **question}
    began_s, first_s, lift = time.time(), None, None
    async with front_end.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if kept_alive and line.startswith(":"):
                kept_alive.set()
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if first_s is None and any(choice["delta"].get("content") for choice in chunk["choices"]):
                first_s = time.time() - began_s
            lift = chunk.get("lift")
    assert first_s is not None
    return first_s, lift


@pytest.mark.parametrize("mode", ["adapter", "context", "hybrid", "auto"])
async def test_a_ready_document(front_end: Any, worker: Any, engine: Any, mode: str) -> None:
    document = await front_end.upload(TEXT)
    await worker.train()
    engine.takes_s = 2 * APART_S
    measured_s, lift = await streamed(front_end, {"document_id": document["id"], "lift": {"mode": mode}})
    assert abs(lift["ttft_s"] - measured_s) < APART_S
    assert uncovered_s(lift["phases"], lift["ttft_s"]) < APART_S


async def test_a_document_that_is_trained_meanwhile(
    front_end: Any, worker: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cold: from the question's first byte over the training, and the waking after it, to the first token."""
    monkeypatch.setattr(relay, "KEEP_ALIVE_S", 4 * APART_S)  # what the training takes here
    engine.takes_s = 2 * APART_S
    document, kept_alive = await front_end.upload(TEXT), asyncio.Event()
    asking = asyncio.create_task(streamed(front_end, {"document_id": document["id"]}, kept_alive))
    job = await worker.claim(await worker.newest_job())
    await kept_alive.wait()
    published_s = time.time()
    await worker.publish(job, "fast")
    measured_s, lift = await asking
    answered_s = time.time()
    assert measured_s > 7 * APART_S  # waited, loaded, answered
    assert abs(lift["ttft_s"] - measured_s) < APART_S
    assert uncovered_s(lift["phases"], lift["ttft_s"]) < APART_S
    own = {phase: lift["phases"][phase] for phase in ("accept", "wait", "load", "prefill")}
    assert uncovered_s(own, lift["ttft_s"]) < APART_S  # without the training's own phases too
    after_s = lift["ttft_s"] - lift["phases"]["wait"]["end_s"]
    assert answered_s - published_s - after_s < APART_S  # it woke at once


async def test_a_whole_answer(front_end: Any, worker: Any, engine: Any) -> None:
    document = await front_end.upload(TEXT)
    await worker.train()
    engine.takes_s = 2 * APART_S
    began_s = time.time()
    lift = (await front_end.ask(document_id=document["id"])).json()["lift"]
    assert abs(lift["ttft_s"] - (time.time() - began_s)) < APART_S
    assert uncovered_s(lift["phases"], lift["ttft_s"]) < APART_S
