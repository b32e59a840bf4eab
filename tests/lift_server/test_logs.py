"""What the server's log says at INFO, as its process writes it: ids, of each line's request too, and no text."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.lift_server.test_hotload import until

from lift_server.__main__ import log_handler

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
TITLE, FILE, QUESTION, ANSWER = "Station chronicle", "chronicle.txt", "How many winged things?", "The answer is 42."
OTHER = b"<html><p>Rosalind paints harbours."


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root, written = logging.getLogger(), io.StringIO()
    handler, level = log_handler(written), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def lines(log: io.StringIO, request_id: str) -> str:
    return "".join(line for line in log.getvalue().splitlines(keepends=True) if f"[{request_id}]" in line)


async def test_lines_have_their_requests_id(log: io.StringIO, front_end: Any, engine: Any, worker: Any) -> None:
    """The engine gets it too, with an end of its own: a client may send one twice."""
    headers = {"X-Request-Id": "mine-1"}
    uploaded = await front_end.client.post("/v1/documents", json={"text": TEXT}, headers=headers)
    document_id = uploaded.json()["id"]
    assert document_id in lines(log, "mine-1")
    adapter = await worker.train()
    body = {"document_id": document_id, "messages": [{"role": "user", "content": QUESTION}]}
    headers = {"X-Request-Id": "mine-2"}
    for stream in (False, True):
        await front_end.client.post("/v1/chat/completions", json={**body, "stream": stream}, headers=headers)
    await until(lambda: lines(log, "mine-2").count(f"adapter {adapter.id}: ok") == 2)  # a stream's end comes after it
    first, second = engine.request_ids
    assert first.startswith("mine-2-")
    assert second.startswith("mine-2-")
    assert first != second
    await front_end.client.post("/v1/chat/completions", json={**body, "request_id": "in the body"})
    assert engine.request_ids[-1] is None  # the header would win over it


@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_is_a_warning_of_its_request(
    log: io.StringIO, front_end: Any, engine: Any, stream: bool
) -> None:
    engine.dies_when_asked = True
    body = {"messages": [{"role": "user", "content": QUESTION}], "stream": stream}
    await front_end.client.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "mine"})
    told = "WARNING lift_server.observe [mine]: question to job None, adapter None: engine_unavailable"
    await until(lambda: told in log.getvalue())


async def test_no_text_gets_into_it(log: io.StringIO, front_end: Any, engine: Any, worker: Any) -> None:
    form = {"files": {"file": (FILE, TEXT.encode())}, "data": {"title": TITLE}}
    document_id = (await front_end.client.post("/v1/documents", **form)).json()["id"]
    await worker.train()
    await front_end.client.post("/v1/documents", files={"file": (FILE, OTHER)})
    for stream in (False, True):
        await front_end.ask(QUESTION, document_id=document_id, stream=stream, lift={"evidence": True})
    engine.stream_error = {"error": {"message": "out of memory", "code": 500}}
    await front_end.ask(QUESTION, stream=True)
    engine.dies_when_asked = True
    await front_end.ask(QUESTION, model=QUESTION)
    await front_end.ask(QUESTION)
    await front_end.client.delete(f"/v1/documents/{document_id}")
    told = log.getvalue()
    assert told.count("question to job") >= 4
    for text in (TEXT, "Orvel", "Rosalind", TITLE, FILE, QUESTION, "winged", ANSWER):
        assert text not in told
