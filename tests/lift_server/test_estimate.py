"""Times foretold from times measured, and from what is ahead in the queue."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from redis.exceptions import RedisError

from lift_config.contract import Progress, Speed, speeds_redis_key
from lift_server import outlook
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
    assert await left() == {"sketch": 30, "balanced": 50, "fast": None, "light": None, "max": None}
    for name in "ab":
        await redis.set(f"lift:worker:{name}", "")
    assert await left() == {"sketch": 20, "balanced": 40, "fast": None, "light": None, "max": None}

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
    assert await left() == {"sketch": 0, "balanced": 0, "fast": None, "light": None, "max": None}


async def test_a_recipe_that_comes_after_what_is_under_way(front_end: Any, worker: Any, redis: Any) -> None:
    for recipe, seconds in (("sketch", 10.0), ("balanced", 30.0), ("max", 90.0)):
        await redis.lpush(speeds_redis_key(recipe), Speed(len(TEXT), seconds).to_json())
    await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    state = front_end.app.state.lift
    left_s = await seconds_left(state, await state.records.job(job.key))
    assert left_s["max"] == pytest.approx(30 + 90, abs=1)


async def test_a_document_is_told_its_time_before_its_worker_tells_one(
    front_end: Any, worker: Any, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the version that comes next, by what is ahead; shown alone, in the list and to whoever watches."""
    monkeypatch.setattr(outlook, "LOOK_S", 0.0)
    first = await front_end.upload(TEXT.replace("eleven", "twelve"))

    async def eta_s(document: Any) -> Any:
        return (await front_end.client.get(f"/v1/documents/{document['id']}")).json()["progress"]["eta_s"]

    assert await eta_s(first) is None  # nothing was measured yet
    await redis.lpush(speeds_redis_key("sketch"), Speed(len(TEXT), 10.0).to_json())
    second = await front_end.upload(TEXT)
    assert [await eta_s(first), await eta_s(second)] == [10, 20]
    listed = (await front_end.client.get("/v1/documents")).json()["data"]
    assert [one["progress"]["eta_s"] for one in listed] == [20, 10]
    job = await worker.newest_job()
    async with front_end.client.stream("GET", f"/v1/documents/{second['id']}/events") as events:
        told = json.loads((await anext(events.aiter_lines())).removeprefix("data: "))
    assert told["progress"]["eta_s"] == 20
    job = await worker.claim(job)
    assert await eta_s(second) == 7  # its worker's own word
    job = job.changed(progress=Progress("segment", 0.0, None), received_s=time.time() - 100)
    job.timeline.end("queue", time.time() - 100)
    await worker.write(job)
    assert await eta_s(second) is None  # it takes longer than foretold


async def test_far_back_in_a_queue_no_time_is_told(front_end: Any, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the whole of a long queue read for whoever looks."""
    monkeypatch.setattr(outlook, "LOOK_S", 0.0)
    monkeypatch.setattr(outlook, "MOST_JOBS", 2)
    await redis.lpush(speeds_redis_key("sketch"), Speed(len(TEXT), 10.0).to_json())
    for number in range(3):
        await front_end.upload(f"{TEXT} Number {number}.")
    listed = (await front_end.client.get("/v1/documents")).json()["data"]
    assert [one["progress"]["eta_s"] is None for one in listed] == [True, False, False]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_from_the_text_says_how_long_its_adapter_will_take(
    front_end: Any, worker: Any, redis: Any, stream: bool
) -> None:
    await redis.lpush(speeds_redis_key("sketch"), Speed(len(TEXT), 10.0).to_json())
    document = await front_end.upload(TEXT)

    async def lift() -> Any:
        answer = await front_end.ask(document_id=document["id"], lift={"mode": "auto"}, stream=stream)
        last = answer.text.removesuffix("\n\ndata: [DONE]\n\n").rpartition("data: ")[2] if stream else answer.text
        return json.loads(last)["lift"]

    told = await lift()
    assert (told["answered_from"], told["adapter_eta_s"]) == ("context", 10.0)
    await worker.train()
    told = await lift()
    assert told["answered_from"] == "adapter"
    assert "adapter_eta_s" not in told


async def test_an_answer_outlives_what_would_have_foretold(front_end: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: Any) -> Any:
        raise RedisError

    monkeypatch.setattr(outlook.Outlook, "seen", broken)
    document = await front_end.client.post("/v1/documents", json={"text": TEXT})
    answer = await front_end.ask(document_id=document.json()["id"], lift={"mode": "auto"})
    assert answer.status_code == 200
    assert "adapter_eta_s" not in answer.json()["lift"]
