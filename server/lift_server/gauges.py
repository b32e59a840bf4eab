"""The moment's figures for /metrics: documents, workers, jobs waiting.

In: Redis. Out: counts. What costs in proportion to documents is counted every COUNT_S, not for each scrape.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from lift_config.contract import DEAD_LETTERS_KEY, JOBS_GROUP, turns_redis_key
from lift_server import documents
from lift_server.metrics import STREAMS, Queues
from lift_server.state import State

log = logging.getLogger(__name__)

COUNT_S = 60.0


async def queues(redis: Redis) -> Queues | None:
    """None where Redis is out of reach, or refuses to say. `redis` decodes its responses."""
    pipe = redis.pipeline(transaction=False)
    for stream in STREAMS.values():
        pipe.xlen(stream)
        pipe.zcard(turns_redis_key(stream))
        pipe.xpending(stream, JOBS_GROUP)
    pipe.zcard(DEAD_LETTERS_KEY)
    pipe.zrange(DEAD_LETTERS_KEY, 0, 0, desc=True, withscores=True)
    try:
        *found, dead_letters, newest = map(_answered, await pipe.execute(raise_on_error=False))
    except (RedisError, OSError):
        return None
    taken = {name: _pending(answer) for name, answer in zip(STREAMS, found[2::3], strict=True)}
    counts = zip(STREAMS, found[::3], found[1::3], strict=True)
    waiting = {name: length - taken[name] + turns for name, length, turns in counts}
    return Queues(waiting, taken, dead_letters, newest[0][1] if newest else 0.0)


async def count_for_ever(state: State) -> None:
    while True:
        try:
            await count(state)
        except Exception:  # this loop's edge: Redis may be away; the next round tries again
            log.exception("documents were not counted")
        await asyncio.sleep(COUNT_S)


async def count(state: State) -> None:
    statuses = Counter([job.status async for _, job in documents.in_order(state, None)])
    state.metrics.counted(statuses, await state.records.workers())


def _answered(answer: Any) -> Any:
    """A command's answer; raises its error. Without its group, no worker has looked into a stream yet: None."""
    if not isinstance(answer, Exception):
        return answer
    if isinstance(answer, ResponseError) and str(answer).startswith("NOGROUP"):
        return None
    raise answer


def _pending(answer: Any) -> int:
    return 0 if answer is None else int(answer["pending"])
