"""An engine that takes requests and never answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.lift_server.test_metrics import scraped

from lift_config.contract import ENGINE_ALIVE_ROUTE
from lift_server import breaker
from lift_server.engine import CHAT_ROUTE, Engine
from lift_server.errors import EngineStopped, EngineUnavailable

ADAPTER = "0" * 32 + "-" + "0" * 12


class Stalling:
    """HTTP on a port of its own, as a paused process has it: connections are taken, nothing comes back. `alive`: the
    core answers nevertheless; `speaks`: other requests get an event and then silence; `runs`: all are answered. It has
    no /health, which vLLM's HTTP answers whatever its core does."""

    def __init__(self) -> None:
        self.runs, self.alive, self.speaks, self.heard = False, False, False, 0
        self.url = ""
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        is_health = request.startswith(b"GET /health")
        is_probe = request.startswith(f"GET {ENGINE_ALIVE_ROUTE} ".encode())
        self.heard += not (is_probe or is_health)
        if self.speaks and not is_probe:
            writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: {"n": 1}\n\n')
        while not (self.runs or is_health or (self.alive and is_probe)):
            await self.changed.wait()
        if self.speaks and not is_probe:
            writer.write(b'data: {"n": 2}\n\n')
            writer.close()
            return
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{"state":"resident"}')
        writer.close()

    def goes_on(self) -> None:
        self.runs = True
        self.changed.set()


@pytest.fixture
async def stalling(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stalling]:
    for name, value in {"SUSPECT_S": 0.2, "PROBE_S": 0.1, "LOOK_S": 0.02, "LONGEST_S": 0.1}.items():
        monkeypatch.setattr(breaker, name, value)
    monkeypatch.setattr("lift_server.engine.PROBE_S", 0.1)
    fake = Stalling()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield fake
    fake.goes_on()
    server.close()
    await server.wait_closed()


@pytest.fixture
async def engine_client(stalling: Stalling) -> AsyncIterator[Engine]:
    client = Engine((stalling.url,), "")
    yield client
    await client.close()


async def asked(client: Engine, url: str, way: str) -> Any:
    if way == "load":
        return await client.load(url, ADAPTER)
    if way == "ask":
        return await client.ask(url, CHAT_ROUTE, {})
    async with client.stream(url, CHAT_ROUTE, {}, {}) as events:
        return events


async def test_all_that_wait_are_told_and_the_next_at_once(stalling: Stalling, engine_client: Engine) -> None:
    ways = ("load", "ask", "stream")
    async with asyncio.timeout(5):
        told = await asyncio.gather(*(asked(engine_client, stalling.url, way) for way in ways), return_exceptions=True)
    assert [type(error) for error in told] == [EngineUnavailable] * 3
    assert (engine_client.hanging(), stalling.heard) == (1, 3)
    for way in ways:
        with pytest.raises(EngineUnavailable) as refused:
            await asked(engine_client, stalling.url, way)
        assert refused.value.headers == {"Retry-After": "1"}
    assert stalling.heard == 3  # it was not even asked


async def test_it_is_asked_again_once_its_core_answers(stalling: Stalling, engine_client: Engine) -> None:
    with pytest.raises(EngineUnavailable):
        await engine_client.load(stalling.url, ADAPTER)
    stalling.goes_on()
    async with asyncio.timeout(5):
        while engine_client.hanging():
            await asyncio.sleep(0.01)
    assert await engine_client.load(stalling.url, ADAPTER) == "resident"
    assert await engine_client.healthy() == [True]


async def test_an_answer_that_takes_long_is_waited_for(stalling: Stalling, engine_client: Engine) -> None:
    """Its core lives, so the engine is at work on it."""
    stalling.alive = True
    asking = asyncio.create_task(engine_client.load(stalling.url, ADAPTER))
    done, _ = await asyncio.wait({asking}, timeout=1.0)  # five times as long as it takes to probe
    assert not done
    stalling.goes_on()
    assert await asking == "resident"


async def test_a_stream_that_falls_silent_for_a_dead_core_is_given_up(
    stalling: Stalling, engine_client: Engine
) -> None:
    stalling.speaks = True
    async with asyncio.timeout(5), engine_client.stream(stalling.url, CHAT_ROUTE, {}, {}) as events:
        assert await anext(events) == [b'data: {"n": 1}']
        with pytest.raises(EngineStopped):
            await anext(events)
    assert engine_client.hanging() == 1


async def test_a_stream_that_is_silent_while_the_core_lives_goes_on(stalling: Stalling, engine_client: Engine) -> None:
    stalling.speaks = stalling.alive = True

    async def read() -> list[bytes]:
        async with engine_client.stream(stalling.url, CHAT_ROUTE, {}, {}) as events:
            return [event async for several in events for event in several]

    reading = asyncio.create_task(read())
    done, _ = await asyncio.wait({reading}, timeout=1.0)
    assert not done
    stalling.goes_on()
    assert await reading == [b'data: {"n": 1}', b'data: {"n": 2}']
    assert engine_client.hanging() == 0


async def test_one_that_is_known_no_more_is_watched_while_it_is_asked(
    stalling: Stalling, engine_client: Engine
) -> None:
    """Else what waits for its answer would wait for ever."""
    asking = asyncio.create_task(engine_client.load(stalling.url, ADAPTER))
    async with asyncio.timeout(5):
        while not stalling.heard:
            await asyncio.sleep(0.01)
        engine_client.know(())
        with pytest.raises(EngineUnavailable):
            await asking


async def test_one_that_is_known_no_more_is_not_probed_for_ever_and_may_come_back(
    stalling: Stalling, engine_client: Engine
) -> None:
    with pytest.raises(EngineUnavailable):
        await engine_client.load(stalling.url, ADAPTER)
    watching = engine_client._breakers[stalling.url]._watching
    engine_client.know(())
    assert engine_client.away() == 0
    assert watching
    async with asyncio.timeout(5):
        await watching
    with pytest.raises(EngineUnavailable):
        await engine_client.load(stalling.url, ADAPTER)
    stalling.goes_on()
    engine_client.know((stalling.url,))
    assert await engine_client.load(stalling.url, ADAPTER) == "resident"


async def test_a_refusal_opens_nothing(stalling: Stalling) -> None:
    client = Engine((url := "http://127.0.0.1:9",), "")
    for _ in range(5):
        with pytest.raises(EngineUnavailable):
            await client.load(url, ADAPTER)
    assert (client.hanging(), client.away()) == (0, 1)
    await client.close()


async def test_the_server_tells(start: Any, stalling: Stalling, redis: Any) -> None:
    front_end = await start(engine={"urls": [stalling.url]})
    async with asyncio.timeout(10):
        assert (await front_end.ask()).json()["error"]["code"] == "engine_unavailable"
    assert await scraped(front_end, "lift_engines_hanging") == {(): 1.0}
    assert (await front_end.client.get("/ready")).json()["parts"]["engines"] == [False]
    refused = await front_end.ask()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
