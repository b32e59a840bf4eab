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
from lift_engine.registration import RENEW_S
from lift_server import registry

REGISTERED = {"registered": True, "api_key": "shared"}
REAL_LOOK_S = registry.LOOK_S
Start = Callable[..., Awaitable[FrontEnd]]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LOOK_S", 0.02)


async def register(redis: Redis, url: str, base_model: str = BASE, revision: str = "main") -> None:
    await redis.sadd(ENGINES_KEY, url)
    await redis.set(engine_redis_key(url), EngineRecord(base_model, revision).to_json())


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


async def test_what_is_no_record_is_told_and_costs_nothing_else(
    front_end: FrontEnd, redis: Redis, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    for number, record in enumerate(("no JSON", "[]", '{"base_model": "another"}')):
        await redis.sadd(ENGINES_KEY, f"http://10.0.0.{number}:8100")
        await redis.set(engine_redis_key(f"http://10.0.0.{number}:8100"), record)
    await register(redis, engine.url)
    await known(front_end, engine.url)
    for number in range(3):
        assert f"engine http://10.0.0.{number}:8100 is not asked" in caplog.text


async def test_an_address_that_a_killed_engine_left_goes(front_end: FrontEnd, redis: Redis, engine: FakeEngine) -> None:
    await redis.sadd(ENGINES_KEY, "http://10.0.0.5:8100")
    await register(redis, engine.url)
    async with asyncio.timeout(5):
        while await redis.smembers(ENGINES_KEY) != {engine.url.encode()}:
            await asyncio.sleep(0.01)
    await known(front_end, engine.url)


async def test_a_question_outlives_its_engines_registration(
    front_end: FrontEnd, redis: Redis, engine: FakeEngine
) -> None:
    await register(redis, engine.url)
    await known(front_end, engine.url)
    engine.gate = asyncio.Event()
    body = {"model": BASE, "messages": [{"role": "user", "content": "?"}], "stream": True}
    asking = asyncio.create_task(front_end.client.post("/v1/chat/completions", json=body))
    async with asyncio.timeout(5):
        while not engine.asked:
            await asyncio.sleep(0.01)
    await redis.delete(ENGINES_KEY, engine_redis_key(engine.url))
    await known(front_end)
    engine.gate.set()
    assert (await asking).text.endswith("data: [DONE]\n\n")


def test_an_engine_registers_again_before_it_is_forgotten() -> None:
    """After a loss of Redis's data, say. The real constants."""
    assert REAL_LOOK_S * registry.MISSES > RENEW_S + REAL_LOOK_S


async def test_a_redis_that_is_away_or_lost_its_data_costs_no_engine(
    front_end: FrontEnd, redis: Redis, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(redis, engine.url)
    await known(front_end, engine.url)
    really, looks, is_away = registry.registered, 0, True

    async def registered(client: Redis) -> dict[str, EngineRecord | None]:
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
