"""What waits for its turn in bulk comes into the stream one by one, and wakes who is idle."""

import asyncio
from typing import Any

from redis.asyncio import Redis
from tests.lift_workers.conftest import Enqueue

from lift_config.contract import BELL_STREAM, BULK_STREAM, JOB_FIELD, TURNS_KEY, job_redis_key, turns_redis_key
from lift_workers.jobs import Queue
from lift_workers.turns import admit


async def wait_in_line(redis: Redis, key: str, turn: float, owner: str = "default") -> None:
    await redis.zadd(TURNS_KEY, {key: turn})
    await redis.zadd(turns_redis_key(owner), {key: turn})
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
    while await admit(redis):
        pass
    assert await admitted(redis) == [key * 32 for key in "acbd"]
    assert await redis.keys("lift:turns*") == []


async def test_one_without_a_record_keeps_nobody_off(redis: Redis, enqueue: Enqueue) -> None:
    job = await enqueue(key="b" * 32, is_bulk=True)
    await redis.zadd(TURNS_KEY, {"gone": 1})
    await wait_in_line(redis, job.key, 2)
    await redis.delete("lift:jobs")
    claim = await Queue(redis, "a", 60.0).claim()
    assert claim
    assert claim.job.key == job.key


async def test_two_workers_at_once_admit_one_each(redis: Redis, enqueue: Enqueue) -> None:
    for number in range(9):
        await enqueue(key=str(number) * 32, is_bulk=True)
        await wait_in_line(redis, str(number) * 32, number)
    await asyncio.gather(*(admit(redis) for _ in range(9)))
    assert sorted(await admitted(redis)) == [str(number) * 32 for number in range(9)]
