"""Whose turn it is in bulk: the next of those that wait comes into the stream, where a worker claims it.

In: lift:turns. Out: an entry of lift:jobs:bulk, and which turn it was. Owners alternate, since the server gives the
jobs of each a turn one after the other (lift_server.bulk). What a worker that dies leaves here is in one of the two
places, never in neither.
"""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from lift_config.contract import BULK_STREAM, JOB_FIELD, LAST_TURN_KEY, TURNS_KEY, job_redis_key, turns_redis_key


async def admit(redis: Redis) -> bool:
    """Whether there was one. Its owner's next moves up to the turn after, if what was between them is gone."""

    async def move(pipe: Pipeline) -> bool:
        first: Any = await pipe.zrange(TURNS_KEY, 0, 0, withscores=True)
        if not first:
            pipe.multi()  # type: ignore[no-untyped-call]
            return False
        key, turn = first[0]
        owner: Any = await pipe.hget(job_redis_key(key.decode()), "owner")
        of_owner = [turns_redis_key(json.loads(owner))] if owner else []  # else deleted this moment
        following: Any = await pipe.zrange(of_owner[0], 0, 1, withscores=True) if of_owner else []
        early = {heir: turn + 1 for heir, later in following if heir != key and later > turn + 1}
        pipe.multi()  # type: ignore[no-untyped-call]
        for ranking in (TURNS_KEY, *of_owner):
            pipe.zrem(ranking, key)
            if early:
                pipe.zadd(ranking, early, xx=True)
        pipe.set(LAST_TURN_KEY, turn)
        pipe.xadd(BULK_STREAM, {JOB_FIELD: key})
        return True

    is_there: bool = await redis.transaction(move, TURNS_KEY, value_from_callable=True)
    return is_there
