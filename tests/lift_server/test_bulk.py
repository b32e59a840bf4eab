"""What waits in lift:jobs:bulk: long texts, and an owner's many; never what somebody else uploads."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis
from tests.lift_server.holders import holder

from lift_config.contract import BULK_STREAM, JOBS_STREAM, STREAMS
from lift_server import bulk

TEXT = "The lighthouse keeper of Orvel keeps {} bees."


async def lengths(redis: Redis) -> list[int]:
    return [await redis.xlen(stream) for stream in STREAMS]


async def test_a_long_text_is_bulk(front_end: Any, worker: Any, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LONG_BYTES", 60)
    await front_end.upload(TEXT.format(11))
    assert await lengths(redis) == [1, 0, 0]
    await front_end.upload(TEXT.format("eleven times eleven, and then some more,"))
    assert await lengths(redis) == [1, 1, 0]
    job = await worker.newest_job(BULK_STREAM)
    assert job.is_bulk
    assert (await front_end.upload(TEXT.format("eleven times eleven, and then some more,")))["status"] == "queued"
    assert await lengths(redis) == [1, 1, 0]  # it waits there already


async def test_an_owners_many_are_bulk_and_another_owners_first_is_not(start: Any, redis: Redis) -> None:
    front_end = await start()
    a, b = await holder(front_end), await holder(front_end)
    for number in range(bulk.MOST_IN_LINE + 2):
        assert (await a.upload(TEXT.format(number))).status_code == 200
    assert await lengths(redis) == [bulk.MOST_IN_LINE, 2, 0]
    assert (await b.upload(TEXT.format("no"))).status_code == 200
    assert await lengths(redis) == [bulk.MOST_IN_LINE + 1, 2, 0]


async def test_bulk_stays_bulk_where_redis_is_rebuilt(
    start: Any, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "LONG_BYTES", 1)
    await (await start()).upload(TEXT.format(11))
    await redis.flushall()
    await start()
    assert await lengths(redis) == [0, 1, 0]
    await redis.delete(BULK_STREAM)
    await start()
    assert await lengths(redis) == [0, 1, 0]
    await start()
    assert await lengths(redis) == [0, 1, 0]


async def test_what_waits_for_whom_is_in_the_estimate(front_end: Any, worker: Any, redis: Redis) -> None:
    """Bulk waits for all of lift:jobs; what is no bulk does not wait for bulk."""
    from lift_server.estimate import _ahead_s

    state = front_end.app.state.lift
    for number in range(bulk.MOST_IN_LINE + 1):
        await front_end.upload(TEXT.format(number))
    job = await worker.newest_job(JOBS_STREAM)
    assert await _ahead_s(state, job, {}) is None  # three before it, of unknown speed
    first = (await redis.xrange(JOBS_STREAM))[0][1][b"job"].decode()
    assert await _ahead_s(state, await worker.job(first), {}) == 0
    assert await _ahead_s(state, await worker.newest_job(BULK_STREAM), {}) is None
