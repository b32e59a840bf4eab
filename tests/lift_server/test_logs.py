"""What the server's log says, as its process writes it: ids, of each line's request too, and no text."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.lift_server.test_hotload import until

from lift_config.logs import LogFormat, formatter
from lift_server.__main__ import LOG_TEXT
from lift_server.middleware import WithRequestId

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
TITLE, FILE, QUESTION, ANSWER = "Station chronicle", "chronicle.txt", "How many winged things?", "The answer is 42."
OTHER = b"<html><p>Rosalind paints harbours."


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    with written("text", logging.INFO) as lines:
        yield lines


@contextmanager
def written(log_format: LogFormat, level: int) -> Iterator[io.StringIO]:
    root, lines = logging.getLogger(), io.StringIO()
    handler, before = logging.StreamHandler(lines), root.level
    handler.setFormatter(formatter(log_format, LOG_TEXT))
    handler.addFilter(WithRequestId())
    root.addHandler(handler)
    root.setLevel(level)
    yield lines
    root.removeHandler(handler)
    root.setLevel(before)


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


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_text_gets_into_it(log_format: LogFormat, front_end: Any, engine: Any, worker: Any) -> None:
    """Not at DEBUG either, with what the libraries say there."""
    with written(log_format, logging.DEBUG) as log:
        await journey(front_end, engine, worker)
    told = log.getvalue()
    assert told.count("question to job") >= 4
    assert "DEBUG" in told
    for text in (TEXT, "Orvel", "Rosalind", TITLE, FILE, QUESTION, "winged", ANSWER):
        assert text not in told
    if log_format == "json":
        assert all(json.loads(line)["message"] for line in told.splitlines())


async def journey(front_end: Any, engine: Any, worker: Any) -> None:
    """Uploads, questions in every mode of failing, a deletion."""
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


async def test_the_process_writes_json_with_uvicorns_lines_in_it(
    valkey_url: str, redis: Any, tmp_path: Path, engine: Any
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "LIFT_LOG_FORMAT": "json",
        "LIFT_HOME": str(tmp_path),
        "LIFT_SERVER__PORT": str(port),
        "LIFT_ENGINE__URLS": json.dumps([engine.url]),
        "REDIS_URL": valkey_url,
    }
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lift_server"), env={**os.environ, **settings}, stderr=asyncio.subprocess.PIPE
    )
    assert server.stderr
    async with asyncio.timeout(30):
        while b"Uvicorn running" not in (line := await server.stderr.readline()):
            assert json.loads(line)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"X-Request-Id": "mine"}) as client:
        uploaded = await client.post("/v1/documents", json={"text": TEXT})
    server.send_signal(signal.SIGTERM)
    _, rest = await server.communicate()
    lines = [json.loads(line) for line in rest.splitlines()]
    (line,) = (one for one in lines if "uploaded" in one["message"])
    assert line["document"] == uploaded.json()["id"]
    assert (line["request_id"], line["level"], line["logger"]) == ("mine", "INFO", "lift_server.upload")
    assert f"job {line['job']}" in line["message"]
    (line,) = (one for one in lines if one["logger"] == "uvicorn.access")
    assert line["request_id"] == "mine"
