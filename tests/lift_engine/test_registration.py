"""An engine is found in Redis as long as it lives, whatever becomes of Redis meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from lift_config.contract import ENGINE_LEASE_S, ENGINES_KEY, EngineRecord, engine_redis_key
from lift_engine import registration
from lift_engine.registration import stay_registered

URL = "http://10.0.0.5:8100"
KEY = engine_redis_key(URL)
RECORD = EngineRecord("base", "main")


class FakeCore:
    errored = False


@pytest.fixture
async def core(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeCore]:
    """That of an engine which registers itself, until the test ends."""
    monkeypatch.setattr(registration, "RENEW_S", 0.02)
    core = FakeCore()
    staying = asyncio.create_task(stay_registered(redis, URL, RECORD, core))
    await until(redis, lambda told, _: told is not None)
    yield core
    staying.cancel()
    with suppress(asyncio.CancelledError):
        await staying
    assert not await redis.exists(KEY)
    assert not await redis.exists(ENGINES_KEY)


async def until(redis: Redis, holds: Callable[[Any, Any], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds(await redis.get(KEY), await redis.smembers(ENGINES_KEY)):
            await asyncio.sleep(0.01)


async def test_it_is_there_with_a_lease(redis: Redis, core: FakeCore) -> None:
    assert EngineRecord.from_json(str(await redis.get(KEY), "utf-8")) == RECORD
    assert await redis.smembers(ENGINES_KEY) == {URL.encode()}
    assert ENGINE_LEASE_S * 900 < await redis.pttl(KEY) <= ENGINE_LEASE_S * 1000


async def test_it_is_there_again_after_redis_lost_its_data(redis: Redis, core: FakeCore) -> None:
    await redis.flushall()
    await until(redis, lambda told, members: told is not None and bool(members))


async def test_it_goes_when_the_core_is_dead(redis: Redis, core: FakeCore) -> None:
    core.errored = True
    await until(redis, lambda told, members: told is None and not members)


async def test_a_redis_that_is_away_is_told_and_waited_for(
    redis: Redis, core: FakeCore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: Any) -> None:
        raise RedisConnectionError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(registration, "_renew", away)
        async with asyncio.timeout(5):
            while "not renewed: gone" not in caplog.text:
                await asyncio.sleep(0.01)
        await redis.flushall()
    await until(redis, lambda told, _: told is not None)


async def test_it_ends_where_redis_swallows_the_cancellation(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """As redis-py does in Python 3.11 where it meets the end of a connection's time-out."""
    renew, begun, answered = registration._renew, asyncio.Event(), asyncio.Event()

    async def swallowing(*given: Any) -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await answered.wait()
        await renew(*given)

    monkeypatch.setattr(registration, "_renew", swallowing)
    staying = asyncio.create_task(stay_registered(redis, URL, RECORD, FakeCore()))
    await begun.wait()
    staying.cancel()
    asyncio.get_running_loop().call_later(0.05, answered.set)
    await asyncio.wait([staying], timeout=1)
    assert staying.cancelled()
    assert not await redis.exists(KEY)
