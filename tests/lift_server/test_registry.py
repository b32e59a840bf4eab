"""Engines that register in Redis: asked as soon as they are there, forgotten some time after they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.lift_server.conftest import BASE, FakeEngine, FrontEnd, served

from lift_config.contract import ENGINES_KEY, EngineRecord, engine_redis_key
from lift_server import registry

REGISTERED = {"registered": True, "api_key": "shared"}
Start = Callable[..., Awaitable[FrontEnd]]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LOOK_S", 0.02)


async def register(redis: Redis, url: str, base_model: str = BASE, revision: str = "main") -> None:
    await redis.sadd(ENGINES_KEY, url)
    await redis.set(engine_redis_key(url), EngineRecord(base_model, revision, 2).to_json())


async def known(front_end: FrontEnd, *urls: str) -> None:
    """Returns once these are the engines it asks."""
    async with asyncio.timeout(5):
        while list(front_end.app.state.lift.engine._urls) != sorted(urls):
            await asyncio.sleep(0.01)


@pytest.fixture
async def front_end(start: Start) -> FrontEnd:
    return await start(engine=REGISTERED, served_name=BASE)


async def test_without_an_engine_it_says_so(front_end: FrontEnd) -> None:
    answer = await front_end.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
    assert answer.headers["retry-after"]
    ready = await front_end.client.get("/ready")
    assert (ready.status_code, ready.json()["parts"]["engines"]) == (503, [])
    assert (await front_end.upload("The answer is 42."))["status"] == "queued"


async def test_one_that_was_there_before_is_asked_at_once(start: Start, redis: Redis, engine: FakeEngine) -> None:
    await register(redis, engine.url)
    front_end = await start(engine=REGISTERED, served_name=BASE)
    assert (await front_end.ask()).status_code == 200


async def test_engines_come_and_go(
    front_end: FrontEnd, redis: Redis, engine: FakeEngine, worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await register(redis, engine.url)
    await known(front_end, engine.url)
    document_id = (await front_end.upload("The answer is 42."))["id"]
    await worker.train()
    assert (await front_end.ask(document_id=document_id)).json()["lift"]["answered_from"] == "adapter"
    async with served(FakeEngine()) as other:
        other.known = engine.known
        await register(redis, other.url)
        await known(front_end, engine.url, other.url)
        await redis.delete(engine_redis_key(engine.url))  # its lease has ended
        await known(front_end, other.url)
        before = len(engine.asked)
        assert (await front_end.ask(document_id=document_id)).json()["lift"]["answered_from"] == "adapter"
        assert (len(engine.asked), len(other.asked)) == (before, 1)
    assert f"engine {engine.url} is registered no more" in caplog.text


async def test_one_with_another_base_model_is_not_asked(
    front_end: FrontEnd, redis: Redis, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await register(redis, "http://10.0.0.5:8100", base_model="another")
    await register(redis, "http://10.0.0.6:8100", revision="older")
    await register(redis, engine.url)
    await known(front_end, engine.url)
    assert caplog.text.count("it serves another base model or revision") == 2


async def test_a_redis_that_is_away_or_lost_its_data_costs_no_engine(
    front_end: FrontEnd, redis: Redis, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(redis, engine.url)
    await known(front_end, engine.url)
    really, looks, is_away = registry.registered, 0, True

    async def registered(client: Redis) -> dict[str, EngineRecord]:
        nonlocal looks
        looks += 1
        if is_away:
            raise RedisConnectionError("gone")
        return await really(client)

    async def look(times: int) -> None:
        first = looks
        async with asyncio.timeout(5):
            while looks < first + times:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(registry, "registered", registered)
    await look(2 * registry.MISSES)
    monkeypatch.setattr(registry, "MISSES", 1000)
    await redis.delete(ENGINES_KEY)
    is_away = False
    await look(5)
    assert (await front_end.ask()).status_code == 200
