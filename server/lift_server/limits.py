"""A key's requests and tokens a minute, counted in Redis so that every front end agrees; told in OpenAI's headers.

A window begins with the first use and lasts a minute by Redis's clock. In it a request counts as it comes; tokens are
charged when they are known, and a question is let in while any are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from lift_config.contract import window_redis_key
from lift_config.settings import LimitSettings
from lift_server.errors import RateLimited

WINDOW_MS = 60_000
REQUESTS, TOKENS = "requests", "tokens"


@dataclass(frozen=True)
class Window:
    """What is used of a limit, and for how long that stands. `is_full`: one more is too many."""

    kind: str
    limit: int
    used: int
    left_ms: int
    is_full: bool

    def headers(self) -> dict[str, str]:
        return {
            f"x-ratelimit-limit-{self.kind}": str(self.limit),
            f"x-ratelimit-remaining-{self.kind}": str(max(0, self.limit - self.used)),
            f"x-ratelimit-reset-{self.kind}": duration(self.left_ms),
        }

    def refuse(self) -> None:
        """RateLimited where it is full."""
        if self.is_full:
            retry_after_s = max(1, math.ceil(self.left_ms / 1000))
            raise RateLimited(f"{self.limit} {self.kind} per minute", kind=self.kind, retry_after_s=retry_after_s)


def ask(pipe: Pipeline, name: str, limits: LimitSettings) -> None:
    """Count the request and read what was used, in the pipeline's own round trip; one transaction, or the window
    might end in between and what is counted then would stay for ever."""
    if limits.requests_per_minute:
        key = window_redis_key(REQUESTS, name)
        pipe.set(key, 0, px=WINDOW_MS, nx=True)
        pipe.incr(key)
        pipe.pttl(key)
    if limits.tokens_per_minute:
        key = window_redis_key(TOKENS, name)
        pipe.get(key)
        pipe.pttl(key)


def read(replies: Sequence[Any], limits: LimitSettings) -> list[Window]:
    """The replies to `ask`."""
    windows = []
    if limit := limits.requests_per_minute:
        _, used, left_ms, *replies = replies
        windows.append(Window(REQUESTS, limit, used, left_ms, is_full=used > limit))
    if limit := limits.tokens_per_minute:
        used, left_ms = int(replies[0] or 0), max(0, replies[1])
        windows.append(Window(TOKENS, limit, used, left_ms, is_full=used >= limit))
    return windows


async def charge(redis: Redis, name: str, tokens: int) -> None:
    key = window_redis_key(TOKENS, name)
    async with redis.pipeline() as pipe:
        pipe.set(key, 0, px=WINDOW_MS, nx=True)
        pipe.incrby(key, tokens)
        await pipe.execute()


def duration(milliseconds: int) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 1m0s."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest_ms = divmod(milliseconds, 60_000)
    return f"{minutes}m" * bool(minutes) + f"{rest_ms / 1000:g}s"
