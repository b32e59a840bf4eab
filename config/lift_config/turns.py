"""Turns: in which order owners' jobs come into one of TURN_STREAMS. Owners alternate there (start-time fair queueing).

In: a job's owner, and who waits already. Out: its turn, and the commands that let it wait for it.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from lift_config.contract import last_turn_redis_key, turns_redis_key


async def turn_in(redis: Redis, stream: str, owner: str) -> float:
    """The one after the last of the owner's; an owner without any begins between the two turns that come next, behind
    whoever waits longest and before that owner's second; where nobody waits, after the turn that was taken last, for
    another job under way may have got one by those that waited."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zrange(turns_redis_key(stream, owner), -1, -1, withscores=True)
        pipe.zrange(turns_redis_key(stream), 0, 0, withscores=True)
        pipe.get(last_turn_redis_key(stream))
        found: list[Any] = await pipe.execute()
    last, first, taken = found
    if last:
        return float(last[0][1]) + 1
    return float(first[0][1] if first else taken or 0) + 0.5


def wait_for_turn(pipe: Pipeline, stream: str, job_key: str, owner: str, turn: float) -> None:
    for key in (turns_redis_key(stream), turns_redis_key(stream, owner)):
        pipe.zadd(key, {job_key: turn})
