"""What waits for its turn in bulk comes into the stream one by one, and wakes who is idle."""

import asyncio
from typing import Any

from redis.asyncio import Redis
from tests.lift_workers.conftest import Enqueue

from lift_config.contract import (
    BELL_STREAM,
    BULK_STREAM,
    JOB_FIELD,
    REFINE_STREAM,
    AdapterRecord,
    Status,
    job_redis_key,
    turns_redis_key,
)
from lift_workers.jobs import Queue
from lift_workers.turns import admit

DRAFT = AdapterRecord("a" * 45, 1, "tiny", "sketch", 16, 1, 0.0)


async def wait_in_line(redis: Redis, key: str, turn: float, owner: str = "default") -> None:
    for turns in (turns_redis_key(BULK_STREAM), turns_redis_key(BULK_STREAM, owner)):
        await redis.zadd(turns, {key: turn})
    await redis.xadd(BELL_STREAM, {JOB_FIELD: ""}, maxlen=1, approximate=False)


async def admitted(redis: Redis) -> list[str]:
    entries: Any = await redis.xrange(BULK_STREAM)
    return [fields[JOB_FIELD.encode()].decode() for _, fields in entries]


async def test_an_idle_worker_wakes_for_bulk(redis: Redis, enqueue: Enqueue) -> None:
    job = await enqueue(is_bulk=True)
    await redis.flushall()
    queue = Queue(redis, "a", 60.0)
    assert await queue.claim() is None
    waiting = asyncio.create_task(queue.wait(60))
    await redis.hset(job_redis_key(job.key), mapping=dict(job.to_redis().items()))
    await wait_in_line(redis, job.key, 1)
    async with asyncio.timeout(5):
        await waiting
    claim = await queue.claim()
    assert claim
    assert (claim.job.key, claim.stream) == (job.key, BULK_STREAM)
    assert await queue.claim() is None
    await queue.close()


async def test_an_owners_next_moves_up_where_what_was_between_is_gone(redis: Redis, enqueue: Enqueue) -> None:
    for key, turn in (("a", 1), ("c", 900), ("d", 901)):
        await enqueue(key=key * 32, is_bulk=True)
        await wait_in_line(redis, key * 32, turn)
    await enqueue(key="b" * 32, owner="b", is_bulk=True)
    await wait_in_line(redis, "b" * 32, 2.5, "b")
    while await admit(redis, BULK_STREAM):
        pass
    assert await admitted(redis) == [key * 32 for key in "acbd"]
    assert await redis.keys("*:turns*") == []


async def test_one_without_a_record_keeps_nobody_off(redis: Redis, enqueue: Enqueue) -> None:
    job = await enqueue(key="b" * 32, is_bulk=True)
    await redis.zadd(turns_redis_key(BULK_STREAM), {"gone": 1})
    await wait_in_line(redis, job.key, 2)
    await redis.delete("lift:jobs")
    claim = await Queue(redis, "a", 60.0).claim()
    assert claim
    assert claim.job.key == job.key


async def test_two_workers_at_once_admit_one_each(redis: Redis, enqueue: Enqueue) -> None:
    for number in range(9):
        await enqueue(key=str(number) * 32, is_bulk=True)
        await wait_in_line(redis, str(number) * 32, number)
    await asyncio.gather(*(admit(redis, BULK_STREAM) for _ in range(9)))
    assert sorted(await admitted(redis)) == [str(number) * 32 for number in range(9)]


async def first_version(queue: Queue) -> str:
    """Of the next job, which is to be refined."""
    claim = await queue.claim()
    assert claim
    await claim.finish(claim.job.changed(status=Status.READY, adapters=(DRAFT,)))
    return claim.job.key


async def test_owners_take_turns_in_refinements(redis: Redis, enqueue: Enqueue) -> None:
    """One has four documents with a first version when another comes with two."""
    queue = Queue(redis, "w", 60.0)
    for key, owner in zip("abcdef", ("many", "many", "many", "many", "few", "few"), strict=True):
        await enqueue(key=key * 32, owner=owner, recipe="balanced")
        assert await first_version(queue) == key * 32
    claims = [await queue.claim() for _ in range(6)]
    assert [claim.job.key[0] for claim in claims if claim] == ["a", "e", "b", "f", "c", "d"]
    assert {claim.stream for claim in claims if claim} == {REFINE_STREAM}
    assert await redis.keys("*:turns*") == []
    assert await queue.claim() is None


async def test_a_refinement_that_gave_way_has_its_turn_still(redis: Redis, enqueue: Enqueue) -> None:
    queue = Queue(redis, "w", 60.0)
    for key, owner in zip("ab", ("many", "few"), strict=True):
        await enqueue(key=key * 32, owner=owner, recipe="balanced")
        await first_version(queue)
    claim = await queue.claim()
    assert claim
    await claim.release(is_attempt=False)
    again = await queue.claim()
    assert again
    assert (again.job.key, again.attempt) == (claim.job.key, 1)
