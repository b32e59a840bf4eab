"""Redis: reached, new enough, evicting and saving as it should, its clock; in it workers' leases and dead letters."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from lift_config.settings import Settings
from lift_server import gauges
from lift_server.doctor.finding import CHECK_S, Finding, fail, ok, warn
from lift_server.launcher.embedded import embedded_url
from lift_server.peer import is_loopback
from lift_server.registry import workers

LEAST_VERSION = (6, 2)
SKEW_S = 1.0


async def redis(settings: Settings) -> list[Finding]:
    """The one for records and jobs. Where it is away nothing else in it is looked at."""
    url = settings.redis_url or embedded_url(settings.home.resolve())
    if url is None:
        what = f"none is named, and none was ever started in {settings.home}"
        return [fail("redis", what, "run `lift-serve up`, or set REDIS_URL")]
    async with _opened(url) as client:
        try:
            info: dict[str, Any] = await client.info()
        except (RedisError, OSError) as error:
            fix = "see that REDIS_URL is right and it runs" if settings.redis_url else "run `lift-serve up`"
            return [fail("redis", f"{_place(client)}: {error}", fix)]
        return [
            _reached(client, info),
            _eviction(info, has_blobs=not settings.redis.blobs_url),
            await _persistence(client, info),
            await clock(client),
            await _workers(client, settings),
            await _letters(client),
            *([] if settings.redis.blobs_url else signatures(client, settings, "redis")),
        ]


async def blobs(settings: Settings) -> list[Finding]:
    """The second one, where adapters have one of their own."""
    async with _opened(settings.redis.blobs_url) as client:
        try:
            info: dict[str, Any] = await client.info()
        except (RedisError, OSError) as error:
            return [fail("blobs", f"{_place(client)}: {error}", "see that redis.blobs_url is right and it runs")]
    policy, told = info["maxmemory_policy"], signatures(client, settings, "blobs")
    if info["maxmemory"] and policy == "noeviction":
        return [
            warn("blobs", "refuses adapters once it is full", "set its maxmemory-policy to allkeys-lru"),
            *told,
        ]
    return [ok("blobs", f"{_place(client)}, {policy}"), *told]


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=CHECK_S / 2,
        socket_connect_timeout=CHECK_S / 2,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        yield client


def _place(client: Redis) -> str:
    """Without the password that its URL has."""
    options = client.connection_pool.connection_kwargs
    return options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def signatures(client: Redis, settings: Settings, part: str) -> list[Finding]:
    """Nothing to say of a Redis that is this machine's own."""
    if settings.adapter_secrets:
        return [ok(part, "adapters in it are signed")]
    options = client.connection_pool.connection_kwargs
    host = options.get("host", "localhost")
    if options.get("path") or host == "localhost" or is_loopback(host):
        return []
    fix = "set adapter_secrets, the same for workers and engines, where others can write to it"
    return [warn(part, f"{_place(client)} is not on this machine, and adapters are not signed", fix)]


def _reached(client: Redis, info: dict[str, Any]) -> Finding:
    what = f"{_place(client)} answers, version {info['redis_version']}"
    if tuple(int(part) for part in info["redis_version"].split(".")[:2]) < LEAST_VERSION:
        return fail("redis", what, "6.2 is the least that works")
    return ok("redis", what)


def _eviction(info: dict[str, Any], *, has_blobs: bool) -> Finding:
    """Jobs and records never expire, so only `allkeys-…` can throw them away."""
    policy, is_bounded = info["maxmemory_policy"], bool(info["maxmemory"])
    what = f"maxmemory-policy is {policy}"
    if policy.startswith("allkeys"):
        return fail("redis", f"{what}: jobs and records may be thrown away", "set it to volatile-lru, or noeviction")
    if policy == "noeviction" and is_bounded and has_blobs:
        return warn("redis", f"{what}: adapters fill it until nothing can be written", "set it to volatile-lru")
    return ok("redis", what)


async def _persistence(client: Redis, info: dict[str, Any]) -> Finding:
    """The store is the record; what Redis loses is rebuilt, which takes a start."""
    if "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        return fail("redis", "could not write its file the last time", "see its log; its disk may be full")
    try:
        saves = (await client.config_get("save")).get("save", "")
    except RedisError:  # services that run Redis for others keep this to themselves
        saves = "unknown"
    if not info.get("aof_enabled") and not saves:
        fix = "set appendonly to yes; without it everything is read from the store after a restart"
        return warn("redis", "writes no file", fix)
    return ok("redis", "append-only file" if info.get("aof_enabled") else f"saves: {saves}")


async def clock(client: Redis) -> Finding:
    """Phases of one document are timed by several machines."""
    before_s = time.time()
    seconds, microseconds = await client.time()
    skew_s = seconds + microseconds / 1e6 - (before_s + time.time()) / 2
    what = f"its clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    if abs(skew_s) > SKEW_S:
        return warn("redis", what, "synchronize both (NTP); times and phases of documents are off")
    return ok("redis", what)


async def _workers(client: Redis, settings: Settings) -> Finding:
    names = await workers(client)
    if not names:
        fix = "start one: `lift-serve up`, or `lift-serve worker`; its log says why it ended"
        return fail("workers", "none holds a lease: nothing is trained", fix)
    what = f"{len(names)} with a lease: {', '.join(names)}"
    if len(names) < settings.workers:
        return warn("workers", f"{what}; workers: {settings.workers}", "see the logs of those that are away")
    return ok("workers", what)


async def _letters(client: Redis) -> Finding:
    queues = await gauges.queues(client)
    if queues is None:
        return fail("jobs", "Redis does not say how many wait", "see its log")
    what = f"{sum(queues.waiting.values())} waiting, {sum(queues.taken.values())} taken"
    if queues.dead_letters:
        fix = "`lift-serve dead-letters list` says why, `… retry` queues them again"
        return warn("jobs", f"{what}, {queues.dead_letters} given up after every attempt", fix)
    return ok("jobs", what)
