"""Streams that are slow, left, never end or are still running when the server is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.lift_server.conftest import BASE, FakeEngine, FrontEnd

from lift_server import engine as engine_module
from lift_server import relay

ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
BIG_WORD = " word" * 8192
WORDS = 1500  # some 60 MB: more than all the kernel's buffers on the way hold


def body(route: str, **fields: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "?"}]},
        "/v1/completions": {"prompt": "?"},
        "/v1/responses": {"input": "?"},
    }[route]
    return {"model": BASE, "stream": True, **asked, **fields}


class OneByOne(asyncio.Event):
    """A gate that lets one word through each time it is set."""

    async def wait(self) -> Any:
        await super().wait()
        self.clear()


class Counted(list[str]):
    """Words, and how many of them the engine has begun to write."""

    given = 0

    def __iter__(self) -> Iterator[str]:
        for word in super().__iter__():
            self.given += 1
            yield word


@pytest.mark.parametrize("route", ROUTES)
async def test_every_chunk_is_written_before_the_next_one_exists(
    front_end: FrontEnd, engine: FakeEngine, route: str
) -> None:
    engine.gate, engine.words = OneByOne(), ["one", "two", "three", "four"]
    seen = ""
    async with asyncio.timeout(5), front_end.client.stream("POST", route, json=body(route)) as answer:
        parts = answer.aiter_text()
        for at, word in enumerate(engine.words):
            while f'"{word}"' not in seen:
                seen += await anext(parts)
            assert not [later for later in engine.words[at + 1 :] if f'"{later}"' in seen]
            engine.gate.set()
        seen += "".join([part async for part in parts])
    assert seen.endswith("data: [DONE]\n\n") or "response.completed" in seen


async def test_a_slow_reader_holds_the_engine_and_nobody_else(front_end: FrontEnd, engine: FakeEngine) -> None:
    """What it does not read is not collected here: the engine's own writes come to a halt."""
    words = engine.words = Counted([BIG_WORD] * WORDS)
    reader, writer = await _slowly_read(front_end.url, body(ROUTES[0]))
    await reader.readuntil(b'"content"')
    engine.words = ["quick"]
    given, unchanged = -1, 0
    async with asyncio.timeout(20):
        while unchanged < 20:
            answer = await front_end.ask()
            assert answer.json()["choices"][0]["message"]["content"] == "quick"
            unchanged, given = (unchanged + 1 if given == words.given else 0), words.given
        assert given < WORDS / 2
        rest = await reader.read()
    assert rest.count(b" word") + 8192 >= WORDS * 8192
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert words.given == WORDS
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_ends_the_engines_work_within_a_second(
    front_end: FrontEnd, engine: FakeEngine, route: str, stream: bool
) -> None:
    engine.gate = asyncio.Event()
    asking = asyncio.create_task(front_end.client.post(route, json=body(route, stream=stream)))
    await asyncio.wait_for(engine.streaming.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(engine.aborted.wait(), 1)
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_slow_reader_that_goes_ends_the_engines_work(front_end: FrontEnd, engine: FakeEngine) -> None:
    """The server is blocked in a write at that moment."""
    words = engine.words = Counted([BIG_WORD] * WORDS)
    reader, writer = await _slowly_read(front_end.url, body(ROUTES[0]))
    await reader.readuntil(b'"content"')
    engine.words = ["quick"]
    given = -1
    while given != words.given:
        given = words.given
        await front_end.ask()
    writer.transport.abort()
    given = -1
    async with asyncio.timeout(5):
        while given != words.given or front_end.app.state.lift.engine._session.connector._acquired:
            given = words.given
            await asyncio.sleep(0)
    assert words.given < WORDS


async def test_a_client_that_stays_but_reads_nothing_is_given_up(
    front_end: FrontEnd, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "UNREAD_S", 0.3)
    words = engine.words = Counted([BIG_WORD] * WORDS)
    _, writer = await _slowly_read(front_end.url, body(ROUTES[0]))
    async with asyncio.timeout(10):
        while 'outcome="disconnected"' not in (await front_end.client.get("/metrics")).text:
            pass
    assert words.given < WORDS
    writer.transport.abort()


async def test_a_slow_engine_is_no_client_that_reads_nothing(
    front_end: FrontEnd, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "UNREAD_S", 0.001)
    engine.gate = OneByOne()
    async with front_end.client.stream("POST", ROUTES[0], json=body(ROUTES[0])) as answer:
        lines = answer.aiter_lines()
        for word in engine.words:
            await _until(lines, word)
            for _ in range(10):  # takes UNREAD_S several times over
                await front_end.client.get("/health")
            engine.gate.set()
        assert [line async for line in lines if line][-1] == "data: [DONE]"


async def test_an_engine_that_says_nothing_more_is_given_up(
    front_end: FrontEnd, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "SILENT_S", 0.2)
    engine.gate = asyncio.Event()
    async with front_end.client.stream("POST", ROUTES[0], json=body(ROUTES[0])) as answer:
        error = json.loads((await _until(answer.aiter_lines(), '"error"')).removeprefix("data: "))["error"]
    assert error["code"] == "engine_error"
    await asyncio.wait_for(engine.aborted.wait(), 1)


async def test_documents_being_trained_keep_every_dialect_alive(front_end: FrontEnd) -> None:
    document = await front_end.upload("The keeper's dog is called Brisket.")

    async def first_line(route: str) -> str:
        fields = body(route, document_id=document["id"])
        async with front_end.client.stream("POST", route, json=fields) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            return await anext(answer.aiter_lines())

    assert await asyncio.gather(*(first_line(route) for route in ROUTES)) == [": training"] * 3


# ---- SIGTERM ------------------------------------------------------------------------------------------------------


async def test_a_stop_lets_running_streams_finish(process: tuple[Process, str], engine: FakeEngine) -> None:
    server, url = process
    engine.gate = OneByOne()
    async with (
        httpx2.AsyncClient(base_url=url, timeout=10) as client,
        client.stream("POST", ROUTES[0], json=body(ROUTES[0])) as answer,
    ):
        lines = answer.aiter_lines()
        await _until(lines, "The")
        server.send_signal(signal.SIGTERM)
        await _until_refused(url)
        for word in [" answer", " is", " 42."]:
            engine.gate.set()
            await _until(lines, word)
        engine.gate.set()
        assert [line async for line in lines if line][-1] == "data: [DONE]"
    assert await asyncio.wait_for(server.wait(), 5) in (0, -signal.SIGTERM)


async def test_a_stop_does_not_wait_for_trainings(process: tuple[Process, str]) -> None:
    """They may take hours. Who waits for one, or watches one, is told."""
    server, url = process
    async with httpx2.AsyncClient(base_url=url, timeout=10) as client:
        uploaded = await client.post("/v1/documents", json={"text": "The keeper's dog is called Brisket."})
        document_id = uploaded.json()["id"]
        asked = body(ROUTES[0], document_id=document_id)
        async with (
            client.stream("POST", ROUTES[0], json=asked) as answer,
            client.stream("GET", f"/v1/documents/{document_id}/events") as events,
        ):
            lines, told = answer.aiter_lines(), events.aiter_lines()
            await _until(lines, "training")
            await _until(told, "queued")
            server.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                error = json.loads((await _until(lines, '"error"')).removeprefix("data: "))["error"]
                assert (error["code"], error["type"]) == ("server_stopping", "server_error")
                await _until(told, "[DONE]")
    assert await asyncio.wait_for(server.wait(), 5) in (0, -signal.SIGTERM)


@pytest.fixture
async def process(
    valkey_url: str, redis: Any, tmp_path: Path, engine: FakeEngine
) -> AsyncIterator[tuple[Process, str]]:
    """The server as its operator runs it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "LIFT_HOME": str(tmp_path),
        "LIFT_SERVER__PORT": str(port),
        "LIFT_ENGINE__URLS": json.dumps([engine.url]),
        "REDIS_URL": valkey_url,
    }
    async with _started((sys.executable, "-m", "lift_server"), settings) as server:
        yield server, f"http://127.0.0.1:{port}"


@asynccontextmanager
async def _started(command: tuple[str, ...], settings: dict[str, str]) -> AsyncIterator[Process]:
    """Once its log says that it listens."""
    server = await asyncio.create_subprocess_exec(*command, env={**os.environ, **settings}, stderr=PIPE)
    assert server.stderr
    async with asyncio.timeout(20):
        while b"Uvicorn running" not in (line := await server.stderr.readline()):
            assert line, "the server ended"
    draining = asyncio.create_task(server.stderr.read())
    try:
        yield server
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
        await draining


async def _until(lines: AsyncIterator[str], text: str) -> str:
    async with asyncio.timeout(5):
        while text not in (line := await anext(lines)):
            pass
    return line


async def _until_refused(url: str) -> None:
    """The server has heard that it shall stop."""
    async with asyncio.timeout(5):
        while True:
            try:
                async with httpx2.AsyncClient() as client:
                    await client.get(f"{url}/health")
            except httpx2.ConnectError:
                return
            except httpx2.RemoteProtocolError:
                continue  # taken in the moment before it stopped listening, and closed without an answer


async def _slowly_read(url: str, asked: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that reads nothing but what it is told to, with little room for what it does not."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=65536)
    raw = json.dumps(asked).encode()
    head = f"POST {ROUTES[0]} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(head.encode() + f"Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    await writer.drain()
    return reader, writer
