"""Whose turn it is: the next of those that wait for a stream comes into it, where a worker claims it.

In: a stream's turns. Out: an entry of it, and which turn it was. Owners alternate, since the jobs of each get a turn
one after the other (lift_config.turns). What a worker that dies leaves here is in one of the two places, never in
neither.
"""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from lift_config.contract import JOB_FIELD, job_redis_key, last_turn_redis_key, turns_redis_key


async def admit(redis: Redis, stream: str) -> bool:
    """Whether one waited for `stream`. Its owner's next moves up to the turn after, if what was between is gone."""

    turns = turns_redis_key(stream)

    async def move(pipe: Pipeline) -> bool:
        first: Any = await pipe.zrange(turns, 0, 0, withscores=True)
        if not first:
            pipe.multi()  # type: ignore[no-untyped-call]
            return False
        key, turn = first[0]
        owner: Any = await pipe.hget(job_redis_key(key.decode()), "owner")
        of_owner = [turns_redis_key(stream, json.loads(owner))] if owner else []  # else deleted this moment
        following: Any = await pipe.zrange(of_owner[0], 0, 1, withscores=True) if of_owner else []
        early = {heir: turn + 1 for heir, later in following if heir != key and later > turn + 1}
        pipe.multi()  # type: ignore[no-untyped-call]
        for ranking in (turns, *of_owner):
            pipe.zrem(ranking, key)
            if early:
                pipe.zadd(ranking, early, xx=True)
        pipe.set(last_turn_redis_key(stream), turn)
        pipe.xadd(stream, {JOB_FIELD: key})
        return True

    is_there: bool = await redis.transaction(move, turns, value_from_callable=True)
    return is_there
