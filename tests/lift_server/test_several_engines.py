"""Two engines: which one answers, and what the client sees when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.lift_server.conftest import FakeEngine, FrontEnd, served
from tests.lift_server.test_hotload import until
from tests.lift_server.test_metrics import scraped

from lift_server import breaker
from lift_server.placement import BALANCE, FLOOR

TEXT = "The answer is 42."


class Pair:
    """Two engines behind a front end, and an adapter: the engine it belongs to, and the other one. `down` and `up`: as
    a process that is killed and comes back on its port."""

    home: FakeEngine
    other: FakeEngine

    def __init__(self, front_end: FrontEnd, engines: list[FakeEngine]) -> None:
        self.front_end = front_end
        self.client = front_end.app.state.lift.engine
        self.engines = {engine.url: engine for engine in engines}
        self._running: dict[str, AsyncExitStack] = {}

    async def learn(self, worker: Any) -> None:
        self.document_id = (await self.front_end.upload(TEXT))["id"]
        self.adapter_id = (await worker.train()).id
        self.home = self.engines[self.client.home(self.adapter_id)]
        (self.other,) = (engine for engine in self.engines.values() if engine is not self.home)
        await until(lambda: self.home.loads == [self.adapter_id])

    async def up(self, engine: FakeEngine) -> None:
        self._running[engine.url] = running = AsyncExitStack()
        await running.enter_async_context(served(engine, urlsplit(engine.url).port or 0))

    async def down(self, engine: FakeEngine) -> None:
        await self._running.pop(engine.url).aclose()

    async def close(self) -> None:
        for url in list(self._running):
            await self.down(self.engines[url])

    async def ask(self, **fields: Any) -> dict[str, Any]:
        answer = await self.front_end.ask(document_id=self.document_id, **fields)
        assert answer.status_code == 200, answer.text
        lift: dict[str, Any] = answer.json()["lift"]
        assert (lift["adapter_id"], lift["answered_from"]) == (self.adapter_id, "adapter")
        return lift

    def asked(self) -> tuple[int, int]:
        """Questions at home, and at the other one."""
        return len(self.home.asked), len(self.other.asked)

    def in_flight(self) -> int:
        return sum(load.in_flight for load in self.client._loads().values())


@pytest.fixture
async def pair(start: Callable[..., Any], worker: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    for name, value in {"LOOK_S": 0.02, "STEADY": 2}.items():
        monkeypatch.setattr(breaker, name, value)
    engines = [FakeEngine(), FakeEngine()]
    async with AsyncExitStack() as known:
        for engine in engines:  # on ports that stay theirs
            await known.enter_async_context(served(engine))
            engine.known = worker.engine.known
    front_end = await start(engine={"urls": [engine.url for engine in engines]})
    running = Pair(front_end, engines)
    for engine in engines:
        await running.up(engine)
    await running.learn(worker)
    yield running
    await running.close()


async def test_an_adapter_is_asked_at_home(pair: Pair) -> None:
    for _ in range(3):
        await pair.ask()
    assert pair.asked() == (3, 0)
    assert await scraped(pair.front_end, "lift_placements_total") == {("home",): 3.0}


async def test_what_is_down_is_passed_over_and_comes_home(pair: Pair) -> None:
    await pair.down(pair.home)
    await pair.ask()
    await pair.ask(stream=False)
    assert (pair.asked(), pair.other.loads[-1]) == ((0, 2), pair.adapter_id)
    assert pair.client.away() == 1
    ready = await pair.front_end.client.get("/ready")
    assert sorted(ready.json()["parts"]["engines"]) == [False, True]
    await pair.up(pair.home)
    await until(lambda: not pair.client.away())
    await pair.ask()
    assert pair.asked() == (1, 2)
    assert await scraped(pair.front_end, "lift_placements_total") == {("home",): 1.0, ("elsewhere",): 2.0}


async def test_one_that_answers_by_turns_is_not_home_yet(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "STEADY", 10**9)
    await pair.down(pair.home)
    await pair.ask()
    await pair.up(pair.home)
    await pair.ask()
    assert pair.asked() == (0, 2)
    await pair.down(pair.other)
    await pair.ask()  # but better than none
    assert pair.asked() == (1, 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_one_that_dies_between_load_and_answer(pair: Pair, stream: bool) -> None:
    pair.home.dies_when_asked = True
    answer = await pair.front_end.ask(document_id=pair.document_id, stream=stream)
    assert answer.status_code == 200
    assert "42" in answer.text
    assert "error" not in answer.text
    assert pair.asked() == (1, 1)
    await until(lambda: not pair.in_flight())


async def test_what_ends_engines_ends_two_at_most(pair: Pair, start: Callable[..., Any]) -> None:
    third = FakeEngine()
    async with served(third):
        front_end = await start(engine={"urls": [*pair.engines, third.url]})
        engines = [pair.home, pair.other, third]
        for engine in engines:
            engine.known = pair.home.known
            engine.dies_when_asked = True
        answer = await front_end.ask(document_id=pair.document_id)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert sum(len(engine.asked) for engine in engines) == 2


async def test_one_that_dies_in_the_stream_is_told_in_the_stream(pair: Pair) -> None:
    pair.home.dies_in_the_stream = True
    answer = await pair.front_end.ask(document_id=pair.document_id, stream=True)
    assert answer.status_code == 200
    assert "engine_error" in answer.text
    assert pair.asked() == (1, 0)
    await until(lambda: not pair.in_flight())


async def test_a_question_that_is_wrong_is_wrong_everywhere(pair: Pair) -> None:
    pair.home.error = (400, {"error": {"message": "This model's maximum context length is 8.", "code": 400}})
    answer = await pair.front_end.ask(document_id=pair.document_id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert pair.asked() == (1, 0)


async def test_an_adapter_that_one_engine_cannot_load_is_loaded_by_another(pair: Pair) -> None:
    pair.home.refuses_loads = True  # its disk is full, say
    await pair.ask()
    assert pair.asked() == (0, 1)


async def test_both_down(pair: Pair) -> None:
    await pair.close()
    for fields in ({"document_id": pair.document_id}, {"document_id": pair.document_id, "stream": True}, {}):
        answer = await pair.front_end.ask(**fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    assert (await pair.front_end.client.get("/ready")).status_code == 503
    await until(lambda: not pair.in_flight())


async def test_a_hot_document_overflows_to_its_second_engine(pair: Pair) -> None:
    pair.home.gate = pair.other.gate = asyncio.Event()
    asking = [
        asyncio.create_task(pair.front_end.ask(document_id=pair.document_id, stream=True)) for _ in range(2 * FLOOR)
    ]
    await until(lambda: sum(pair.asked()) == 2 * FLOOR)
    at_home, elsewhere = pair.asked()
    assert FLOOR <= at_home <= BALANCE * FLOOR
    assert pair.other.loads.count(pair.adapter_id) == elsewhere
    pair.home.gate.set()
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 2 * FLOOR
    await until(lambda: not pair.in_flight())


async def test_the_base_model_is_asked_where_least_is_asked(pair: Pair) -> None:
    pair.home.gate = pair.other.gate = asyncio.Event()
    asking = [asyncio.create_task(pair.front_end.ask(stream=True)) for _ in range(6)]
    await until(lambda: sum(pair.asked()) == 6)
    assert pair.asked() == (3, 3)
    pair.home.gate.set()
    await asyncio.gather(*asking)


async def test_a_client_that_goes_is_counted_no_longer(pair: Pair) -> None:
    pair.home.gate = asyncio.Event()
    asking = asyncio.create_task(pair.front_end.ask(document_id=pair.document_id, stream=True))
    await pair.home.streaming.wait()
    assert pair.in_flight() == 1
    asking.cancel()
    await until(lambda: not pair.in_flight())


async def test_context_and_evidence_come_from_whichever_engine_there_is(pair: Pair) -> None:
    await pair.down(pair.home)
    for mode in ("context", "hybrid", "auto"):
        lift = {"mode": mode, "evidence": True}
        answer = (await pair.front_end.ask(document_id=pair.document_id, lift=lift)).json()
        assert "evidence_error" not in answer["lift"]
    await pair.up(pair.home)
    await until(lambda: not pair.client.away())
    await pair.down(pair.other)
    lift = {"mode": "context", "evidence": True}
    answer = (await pair.front_end.ask(document_id=pair.document_id, lift=lift)).json()
    assert "evidence_error" not in answer["lift"]


async def test_where_one_answers_from_another_adapter_the_other_is_asked(pair: Pair) -> None:
    pair.home.answers_from = "0" * 32 + "-" + "0" * 12
    await pair.ask()
    assert pair.asked() == (1, 1)
