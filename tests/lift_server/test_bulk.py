"""What waits in lift:jobs:bulk: long texts, and an owner's many; never what somebody else uploads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from tests.lift_server.holders import holder

from lift_config.contract import (
    BULK_STREAM,
    JOBS_GROUP,
    JOBS_STREAM,
    REFINE_STREAM,
    STREAMS,
    TURN_STREAMS,
    AdapterRecord,
    Status,
    job_lease_redis_key,
    line_redis_key,
    turns_redis_key,
)
from lift_server import bulk
from lift_workers.fence import JobCancelled
from lift_workers.jobs import Claim, Queue
from lift_workers.turns import admit

BULK_TURNS, REFINE_TURNS = map(turns_redis_key, TURN_STREAMS)
TEXT = "The lighthouse keeper of Orvel keeps {} bees."


async def lengths(redis: Redis) -> list[int]:
    """Of the queue, what waits for its turn in bulk included."""
    first, *others = [await redis.xlen(stream) for stream in STREAMS]
    return [first, await redis.zcard(BULK_TURNS), *others]


async def last_in_bulk(worker: Any) -> Any:
    return await worker.job((await worker.redis.zrange(BULK_TURNS, -1, -1))[0].decode())


async def long_ones(who: Any, count: int) -> list[str]:
    """The documents' ids."""
    answers = [await who.upload(TEXT.format(number)) for number in range(count)]
    return [answer.json()["id"] for answer in answers]


async def claimed(queue: Queue) -> Claim:
    claim = await queue.claim()
    assert claim
    return claim


async def owners_in_order(claims: list[Claim], *names: Any) -> str:
    """Whose jobs they are, a letter each: a for the first of `names`."""
    letters = {one.record.owner: letter for one, letter in zip(names, "abc", strict=False)}
    return "".join(letters[claim.job.owner] for claim in claims)


@pytest.fixture
def all_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LONG_BYTES", 1)


async def test_a_long_text_is_bulk(front_end: Any, worker: Any, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LONG_BYTES", 60)
    await front_end.upload(TEXT.format(11))
    assert await lengths(redis) == [1, 0, 0, 0]
    await front_end.upload(TEXT.format("eleven times eleven, and then some more,"))
    assert await lengths(redis) == [1, 1, 0, 0]
    job = await last_in_bulk(worker)
    assert job.is_bulk
    assert (await front_end.upload(TEXT.format("eleven times eleven, and then some more,")))["status"] == "queued"
    assert await lengths(redis) == [1, 1, 0, 0]  # it waits there already


async def test_an_owners_many_are_bulk_and_another_owners_first_is_not(start: Any, redis: Redis) -> None:
    front_end = await start()
    a, b = await holder(front_end), await holder(front_end)
    for number in range(bulk.MOST_IN_LINE + 2):
        assert (await a.upload(TEXT.format(number))).status_code == 200
    assert await lengths(redis) == [bulk.MOST_IN_LINE, 2, 0, 0]
    assert (await b.upload(TEXT.format("no"))).status_code == 200
    assert await lengths(redis) == [bulk.MOST_IN_LINE + 1, 2, 0, 0]


async def test_bulk_stays_bulk_where_redis_is_rebuilt(
    start: Any, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "LONG_BYTES", 1)
    await (await start()).upload(TEXT.format(11))
    await redis.flushall()
    await start()
    assert await lengths(redis) == [0, 1, 0, 0]
    await redis.delete(BULK_TURNS)
    await start()
    assert await lengths(redis) == [0, 1, 0, 0]
    await start()
    assert await lengths(redis) == [0, 1, 0, 0]


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
    assert await _ahead_s(state, await last_in_bulk(worker), {}) is None


@pytest.mark.usefixtures("all_are_long")
@pytest.mark.parametrize("workers", [1, 2])
async def test_owners_take_turns_in_bulk(start: Any, redis: Redis, workers: int) -> None:
    """One has thirty there when another comes with one, and a third with three."""
    front_end = await start()
    a, b, c = await holder(front_end), await holder(front_end), await holder(front_end)
    queues = [Queue(redis, str(number), 60.0) for number in range(workers)]
    await long_ones(a, 30)
    claims = [await claimed(queue) for queue in queues]
    await long_ones(b, 1)
    await long_ones(c, 3)
    claims += [await claimed(queues[number % workers]) for number in range(30 + 4 - workers)]
    order = (await owners_in_order(claims, a, b, c))[workers:]
    assert order.index("b") <= 2
    assert [order[:number].count("c") for number in (3, 5, 7)] == [1, 2, 3]
    assert (order.count("a"), await lengths(redis)) == (30 - workers, [0, 0, 34, 0])
    assert await redis.keys("*:turns*") == []


@pytest.mark.usefixtures("all_are_long")
async def test_an_owner_that_always_comes_back_keeps_nobody_off(start: Any, redis: Redis) -> None:
    front_end = await start()
    a, b = await holder(front_end), await holder(front_end)
    await long_ones(a, 8)
    claims = []
    for number in range(14):
        await b.upload(TEXT.format(f"b{number}"))  # as soon as its last is taken, or before
        claims.append(await claimed(Queue(redis, "w", 60.0)))
    order = await owners_in_order(claims, a, b)
    assert "aaa" not in order
    assert "bb" not in order


@pytest.mark.usefixtures("all_are_long")
async def test_turns_go_on_where_nobody_waits_for_a_moment(start: Any, redis: Redis) -> None:
    """Else an upload that looked before that moment, and is written after it, waits behind all that come."""
    front_end = await start()
    a, b = await holder(front_end), await holder(front_end)
    *_, last = await long_ones(a, 9)
    job_key = (await front_end.app.state.lift.records.document(last)).job_key
    turn = await redis.zscore(BULK_TURNS, job_key)
    queue = Queue(redis, "w", 60.0)
    for _ in range(8):
        await claimed(queue)
    await redis.zrem(BULK_TURNS, job_key)  # as if it was not written yet
    assert await lengths(redis) == [0, 0, 8, 0]
    await long_ones(b, 3)
    await redis.zadd(BULK_TURNS, {job_key: turn})
    order = await owners_in_order([await claimed(queue) for _ in range(4)], a, b)
    assert order.index("a") <= 1


@pytest.mark.usefixtures("all_are_long")
async def test_a_worker_that_dies_costs_nobody_the_turn(start: Any, redis: Redis) -> None:
    """Between any two steps of its claim."""
    front_end = await start()
    a, b = await holder(front_end), await holder(front_end)
    await long_ones(a, 30)
    dead = Queue(redis, "dead", 60.0)
    begun = (await claimed(dead)).job.key
    assert await dead._next(BULK_STREAM)  # it read an entry, and began nothing
    assert await admit(redis, BULK_STREAM)  # it let one in, and read nothing
    await long_ones(b, 1)
    await redis.delete(job_lease_redis_key(begun))
    held = [one["message_id"] for one in await redis.xpending_range(BULK_STREAM, JOBS_GROUP, "-", "+", 9)]
    await redis.xclaim(BULK_STREAM, JOBS_GROUP, "dead", 0, held, idle=2 * 60_000, justid=True)
    queue = Queue(redis, "w", 60.0)
    claims = [await claimed(queue) for _ in range(31)]
    order = await owners_in_order(claims, a, b)
    assert order.index("b") <= 3 + 2  # behind what was taken before it came
    assert len({claim.job.key for claim in claims}) == 31
    assert await queue.claim() is None


@pytest.mark.usefixtures("all_are_long")
async def test_owners_take_turns_where_redis_was_lost(start: Any, redis: Redis) -> None:
    front_end = await start()
    a, b = await holder(front_end), await holder(front_end)
    await long_ones(a, 30)
    await long_ones(b, 1)
    await redis.flushall()
    await start()
    queue = Queue(redis, "w", 60.0)
    order = await owners_in_order([await claimed(queue) for _ in range(31)], a, b)
    assert order.index("b") <= 2
    assert (order.count("a"), await lengths(redis)) == (30, [0, 0, 31, 0])


@pytest.mark.usefixtures("all_are_long")
@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_what_is_cancelled_or_deleted_takes_no_turn(start: Any, redis: Redis, how: str) -> None:
    """Whoever uploads many by mistake waits no longer for the one that is left. A page sends all deletions at once."""
    front_end = await start(limits={"max_queued": 12})
    a, b = await holder(front_end), await holder(front_end)
    *unwanted, _ = await long_ones(a, 9)
    await long_ones(b, 3)
    assert (await b.upload("One too many.")).status_code == 429
    paths = [f"/v1/documents/{document_id}" for document_id in unwanted]
    calls = [a.call("POST", f"{path}/cancel") if how == "cancel" else a.call("DELETE", path) for path in paths]
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    assert await lengths(redis) == [0, 4, 0, 0]
    queue = Queue(redis, "w", 60.0)
    order = await owners_in_order([await claimed(queue) for _ in range(4)], a, b)
    assert order.index("a") <= 1
    assert await queue.claim() is None


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_what_is_cancelled_or_deleted_is_in_the_queue_no_more(start: Any, redis: Redis, how: str) -> None:
    front_end = await start(limits={"max_queued": 2})
    a = await holder(front_end)
    for number in range(bulk.MOST_IN_LINE + 2):
        document = (await a.upload(TEXT.format(number))).json()
        assert document["status"] == "queued"
        path = f"/v1/documents/{document['id']}"
        await (a.call("POST", f"{path}/cancel") if how == "cancel" else a.call("DELETE", path))
        assert await lengths(redis) == [0, 0, 0, 0]
        assert await redis.exists(line_redis_key(a.record.owner)) == 0
    assert await Queue(redis, "w", 60.0).claim() is None


async def test_what_is_cancelled_in_a_workers_hands_is_the_workers(front_end: Any, redis: Redis) -> None:
    document = await front_end.upload(TEXT.format(11))
    claim = await claimed(Queue(redis, "w", 60.0))
    await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
    assert await lengths(redis) == [1, 0, 0, 0]
    with pytest.raises(JobCancelled):
        await claim.heartbeat()
    await claim.drop()
    assert await lengths(redis) == [0, 0, 0, 0]


async def test_an_entry_that_was_taken_out_before_its_job_began_begins_none(front_end: Any, redis: Redis) -> None:
    """The job is queued again, so its record would let it: but with that entry it would be lost with its worker."""
    document = await front_end.upload(TEXT.format(11))
    slow, other = Queue(redis, "slow", 60.0), Queue(redis, "other", 60.0)
    await slow._create_groups()
    read = await slow._next(JOBS_STREAM)
    assert read
    await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
    await front_end.upload(TEXT.format(11))
    assert await slow._begin(JOBS_STREAM, *read) is None
    assert (await claimed(other)).job.key == read[1]
    assert (await redis.xpending(JOBS_STREAM, JOBS_GROUP))["pending"] == 1


async def test_an_upload_reads_its_owners_line_only(start: Any, redis: Redis) -> None:
    """However many others wait."""
    front_end = await start()
    a, b = await holder(front_end), await holder(front_end)

    async def commands() -> int:
        """For one more upload of b's."""
        await redis.config_resetstat()
        assert (await b.upload(TEXT.format(f"b{await redis.xlen(JOBS_STREAM)}"))).status_code == 200
        return sum(one["calls"] for one in (await redis.info("commandstats")).values())

    alone = await commands()
    for number in range(bulk.MOST_IN_LINE):
        await a.upload(TEXT.format(number))
    assert await commands() <= alone + 2  # its own one that waits


async def test_a_job_that_ended_is_in_no_line(start: Any, redis: Redis, worker: Any) -> None:
    front_end = await start()
    a = await holder(front_end)
    for number in range(bulk.MOST_IN_LINE):
        await a.upload(TEXT.format(number))
    await worker.fail(await worker.claim(await worker.newest_job()), "No task was kept.")
    for number in range(2):
        await a.upload(TEXT.format(f"again {number}"))
    assert (await lengths(redis))[1] == 1


async def to_be_refined(queue: Queue) -> str:
    """The next job, with its first version: it waits for its turn."""
    claim = await claimed(queue)
    draft = AdapterRecord(f"{claim.job.key}-{1:012x}", 1, claim.job.base_model, "sketch", 16, 1, 0.0)
    await claim.finish(claim.job.changed(status=Status.READY, adapters=(draft,)))
    return claim.job.key


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_a_refinement_that_is_cancelled_or_deleted_takes_no_turn(start: Any, redis: Redis, how: str) -> None:
    front_end = await start(limits={"max_queued": 3})
    a, b = await holder(front_end), await holder(front_end)
    queue = Queue(redis, "w", 60.0)
    unwanted = await long_ones(a, 2)
    wanted = [*await long_ones(b, 1)]
    for _ in range(3):
        await to_be_refined(queue)
    assert (await b.upload("One too many.")).status_code == 429
    for document_id in unwanted:
        path = f"/v1/documents/{document_id}"
        await (a.call("POST", f"{path}/cancel") if how == "cancel" else a.call("DELETE", path))
    assert await redis.zcard(REFINE_TURNS) == 1
    assert (await b.upload("Not too many.")).status_code == 200
    await to_be_refined(queue)
    job_key = (await front_end.app.state.lift.records.document(wanted[0])).job_key
    assert (await claimed(queue)).job.key == job_key


async def test_a_refinement_somebody_waits_for_leaves_its_turn(start: Any, redis: Redis) -> None:
    front_end = await start()
    a = await holder(front_end)
    queue = Queue(redis, "w", 60.0)
    await long_ones(a, 2)
    _, last = [await to_be_refined(queue) for _ in range(2)]
    await front_end.app.state.lift.records.want(last, "balanced", 0.0)
    assert (await redis.zcard(REFINE_TURNS), await redis.xlen(JOBS_STREAM)) == (1, 1)
    claim = await claimed(queue)
    assert (claim.job.key, claim.stream) == (last, JOBS_STREAM)


async def test_a_refinement_that_is_uploaded_again_waits_for_its_turn(start: Any, worker: Any, redis: Redis) -> None:
    front_end = await start()
    a, b = await holder(front_end), await holder(front_end)
    queue = Queue(redis, "w", 60.0)
    await long_ones(a, 3)
    for _ in range(3):
        await to_be_refined(queue)
    document = (await b.upload(TEXT.format("no"))).json()
    await worker.train("sketch")
    await b.call("POST", f"/v1/documents/{document['id']}/cancel")
    await redis.delete(JOBS_STREAM, REFINE_STREAM)  # the stand-in leaves its entries there
    assert (await b.upload(TEXT.format("no"))).json()["status"] == "ready"
    assert await redis.zcard(REFINE_TURNS) == 4
    claims = [await claimed(queue) for _ in range(4)]
    assert await owners_in_order(claims, a, b) == "abaa"
