"""Servers that share a Redis take turns, whatever becomes of the one whose turn it is."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from lift_config.contract import lock_redis_key
from lift_server import locks
from lift_server.locks import Locks

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
NAME = "0" * 32
KEY = lock_redis_key(NAME)


async def test_turns_within_a_server_and_between_two(redis: Redis) -> None:
    order: list[str] = []

    async def take(lock: Locks, name: str) -> None:
        async with lock(NAME):
            order.append(f"{name} begins")
            await redis.ping()
            order.append(f"{name} ends")

    first, second = Locks(redis), Locks(redis)
    await asyncio.gather(*(take(lock, f"{n}") for n, lock in enumerate((first, second, first, second))))
    assert len(order) == 8
    assert [one.split()[0] for one in order[::2]] == [one.split()[0] for one in order[1::2]]
    assert not await redis.exists(KEY)


async def test_another_name_is_not_waited_for(redis: Redis) -> None:
    first, second = Locks(redis), Locks(redis)
    async with first("one"), second("other"), asyncio.timeout(5):
        pass


async def test_what_a_dead_server_held_ends_with_its_lease(redis: Redis) -> None:
    await redis.set(KEY, "a dead server's", px=50)
    async with asyncio.timeout(5), Locks(redis)(NAME):
        assert await redis.get(KEY) != b"a dead server's"


async def test_a_long_turn_is_renewed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.02)
    async with Locks(redis)(NAME):
        await redis.pexpire(KEY, 7000)
        async with asyncio.timeout(5):
            while await redis.pttl(KEY) <= 7000:
                await asyncio.sleep(0.01)


async def test_a_lost_turn_is_told_and_leaves_the_others_alone(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.02)
    async with Locks(redis)(NAME):
        await redis.set(KEY, "another's")
        async with asyncio.timeout(5):
            while "was lost" not in caplog.text:
                await asyncio.sleep(0.01)
    assert await redis.get(KEY) == b"another's"
    assert "was not let go" in caplog.text


async def test_a_redis_that_goes_away_meanwhile_is_told_and_hides_no_error(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: Any) -> None:
        raise RedisConnectionError("gone")

    async def work() -> None:
        async with Locks(redis)(NAME):
            monkeypatch.setattr("redis.asyncio.lock.Lock.do_release", away)
            raise ValueError("the work's own")

    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="the work's own"):
        await work()
    assert "was not let go: gone" in caplog.text


async def test_a_deletion_here_and_an_upload_there_do_not_undo_each_other(start: Any, store: Path) -> None:
    here, there = await start(), await start()
    kept = (await here.upload(TEXT))["id"]
    for _ in range(25):
        deleted, uploaded = await asyncio.gather(here.client.delete(f"/v1/documents/{kept}"), there.upload(TEXT))
        assert deleted.status_code == 200
        kept = uploaded["id"]
        for front_end in (here, there):
            assert (await front_end.client.get(f"/v1/documents/{kept}/content")).status_code == 200
        assert [path.name for path in (store / "originals").iterdir()] == [kept]
        assert len(list((store / "texts").iterdir())) == len(list((store / "jobs").iterdir())) == 1
