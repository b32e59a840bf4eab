"""Times foretold from times measured, and from what is ahead in the queue."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lift_config.contract import Speed, speeds_redis_key
from lift_server.estimate import seconds_left, training_s

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


def test_the_line_through_several_lengths() -> None:
    speeds = [Speed(1000, 12.0), Speed(2000, 22.0), Speed(3000, 32.0)]
    assert training_s(2500, speeds) == pytest.approx(27.0)
    assert training_s(100_000, speeds) == pytest.approx(1066.7, rel=0.07)
    assert training_s(100, speeds) == pytest.approx(3.0)


def test_a_line_that_would_end_below_nothing() -> None:
    """Noise: the short text was fast, so the line meets zero before the text does."""
    speeds = [Speed(1000, 1.0), Speed(2000, 20.0)]
    assert training_s(500, speeds) == pytest.approx(0.5)  # the fastest rate seen
    assert training_s(1, speeds) == pytest.approx(0.001)


def test_longer_texts_that_were_faster_tell_nothing_of_length() -> None:
    speeds = [Speed(1000, 30.0), Speed(3000, 10.0)]
    assert training_s(2000, speeds) == pytest.approx(20.0)
    assert training_s(8000, speeds) == pytest.approx(80.0)


def test_one_length_grows_in_proportion_and_does_not_shrink() -> None:
    speeds = [Speed(1000, 9.0), Speed(1000, 11.0)]
    assert training_s(3000, speeds) == pytest.approx(30.0)
    assert training_s(10, speeds) == pytest.approx(10.0)


def test_nothing_measured_is_nothing_known() -> None:
    assert training_s(1000, []) is None


async def test_the_way_of_a_document(front_end: Any, worker: Any, redis: Any) -> None:
    """What is ahead in lift:jobs counts, shared by the workers; what a worker has done already does not."""

    async def left() -> Any:
        state = front_end.app.state.lift
        return await seconds_left(state, await state.records.job(job.key))

    for recipe, seconds in (("sketch", 10.0), ("balanced", 30.0)):
        await redis.lpush(speeds_redis_key(recipe), Speed(len(TEXT), seconds).to_json())
    await front_end.upload(TEXT.replace("eleven", "twelve"))
    await front_end.upload(TEXT.replace("eleven", "twenty"))
    await front_end.upload(TEXT)
    job = await worker.newest_job()
    await front_end.upload(TEXT.replace("eleven", "twenty-one"))
    assert await left() == {"sketch": 30, "balanced": 50, "fast": None, "max": None}
    for name in "ab":
        await redis.set(f"lift:worker:{name}", "")
    assert await left() == {"sketch": 20, "balanced": 40, "fast": None, "max": None}

    job = job.changed(received_s=time.time() - 4)
    job.timeline.start("queue", job.received_s)
    claimed = await worker.claim(job)
    await worker.write(claimed)
    assert (await left())["sketch"] == pytest.approx(10, abs=1)  # counted from its claim
    job.timeline.end("queue", time.time() - 4)
    await worker.write(claimed)
    assert (await left())["sketch"] == pytest.approx(6, abs=1)
    assert (await left())["balanced"] == pytest.approx(26, abs=1)
    await worker.publish(claimed, "sketch")
    now_left = await left()  # the three others come first, then the refinement goes on
    assert now_left["sketch"] == 0
    assert now_left["balanced"] == pytest.approx(30 + 30 / 2, abs=1)  # whole: it may not have begun
    await worker.publish(await worker.job(job.key))
    assert await left() == {"sketch": 0, "balanced": 0, "fast": None, "max": None}


async def test_a_recipe_that_comes_after_what_is_under_way(front_end: Any, worker: Any, redis: Any) -> None:
    for recipe, seconds in (("sketch", 10.0), ("balanced", 30.0), ("max", 90.0)):
        await redis.lpush(speeds_redis_key(recipe), Speed(len(TEXT), seconds).to_json())
    await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    state = front_end.app.state.lift
    left_s = await seconds_left(state, await state.records.job(job.key))
    assert left_s["max"] == pytest.approx(30 + 90, abs=1)
