"""`lift-serve doctor --gone`: that nothing of a deleted document is left: store, Redis, cached adapters, engines.

In: ids of documents, their adapters, or job keys. Out: a finding for each place; it fails with what was found there.
Ids are unique, so whatever has one in its name is of it. An adapter's id begins with its job's key: texts, records and
all versions go by that.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import obstore
from redis.asyncio import Redis

from lift_config.contract import ADAPTER_ID, DOCUMENT_ID
from lift_config.settings import Settings
from lift_server.doctor.finding import Finding, fail, ok
from lift_server.engine import Engine
from lift_server.errors import ApiError
from lift_server.exits import UsageError
from lift_server.launcher.embedded import embedded_url
from lift_server.registry import registered
from lift_server.store import open_store

LIMIT_S = 600.0  # a store of a million objects is listed whole
SHOWN = 20
JOB_KEY = re.compile(r"[0-9a-f]{32}")
FIX = "delete it (`lift-serve rm`); what a crash left the janitor deletes within two hours"


def names(ids: Sequence[str]) -> list[str]:
    """What to look for. UsageError for what is no id."""
    found = []
    for one in ids:
        name = one.partition("-")[0] if ADAPTER_ID.fullmatch(one) else one
        if not (DOCUMENT_ID.fullmatch(name) or JOB_KEY.fullmatch(name)):
            raise UsageError(f"{one!r} is no document's id (doc_…), no adapter's and no job's key")
        found.append(name)
    return found


async def in_store(settings: Settings, wanted: Sequence[str]) -> list[Finding]:
    store = open_store(settings.resolved_store_url)
    paths = [entry["path"] async for batch in obstore.list(store) for entry in batch]
    return [_told("store", wanted, [path for path in paths if _is_of(path, wanted)])]


async def in_redis(settings: Settings, wanted: Sequence[str]) -> list[Finding]:
    """Keys, and members of what is kept under other keys; adapters where they have no Redis of their own."""
    url = settings.redis_url or embedded_url(settings.home.resolve())
    if url is None:
        return [fail("redis", "none is running here", "run `lift-serve up`, or set REDIS_URL")]
    async with Redis.from_url(url, decode_responses=True) as redis:
        return [_told("redis", wanted, [one async for one in _kept(redis, wanted)])]


async def in_blobs(settings: Settings, wanted: Sequence[str]) -> list[Finding]:
    async with Redis.from_url(settings.redis.blobs_url, decode_responses=True) as redis:
        return [_told("blobs", wanted, [one async for one in _keys(redis, wanted)])]


async def at_engines(settings: Settings, wanted: Sequence[str]) -> list[Finding]:
    """What they say that they hold, in memory or their folder. Those that `lift-serve up` started have a key of their
    own: their folders are looked into, which have all that their memory has."""
    folders = [folder for folder in settings.home.glob("engine-*/adapters/*") if _is_of(folder.name, wanted)]
    here = _told("engines here", wanted, [str(folder.relative_to(settings.home)) for folder in folders])
    has_others = settings.engine.api_key or settings.engine.urls or settings.engine.registered
    urls = await _engine_urls(settings) if has_others else []
    return [here, *[await _at_engine(settings, url, wanted) for url in urls]]


async def _at_engine(settings: Settings, url: str, wanted: Sequence[str]) -> Finding:
    part = f"engine {url}"
    engine = Engine((url,), settings.engine.api_key)
    try:
        if not all(await engine.healthy()):
            return fail(part, "/health does not answer, so what it holds is not known", "ask again once it is up")
        return _told(part, wanted, [one async for one in engine.adapters() if _is_of(one, wanted)])
    except ApiError as error:
        return fail(part, error.message, "see its log; what it holds is not known")
    finally:
        await engine.close()


async def _engine_urls(settings: Settings) -> list[str]:
    urls = list(settings.engine_urls)
    redis_url = settings.redis_url or embedded_url(settings.home.resolve())
    if settings.engine.registered and redis_url:
        async with Redis.from_url(redis_url, decode_responses=True) as redis:
            urls += [url for url, record in (await registered(redis)).items() if record and url not in urls]
    return urls


async def _kept(redis: Redis, wanted: Sequence[str]) -> AsyncIterator[str]:
    async for key in _keys(redis, wanted):
        yield key
    for kind in ("ZSET", "SET", "STREAM"):
        async for key in redis.scan_iter("lift:*", count=1000, _type=kind):
            for member in await _members(redis, kind, key, wanted):
                yield f"{key} has {member}"


async def _members(redis: Redis, kind: str, key: str, wanted: Sequence[str]) -> list[str]:
    if kind == "ZSET":
        return [name for name in wanted if await redis.zscore(key, name) is not None]
    if kind == "SET":
        return [name for name in wanted if await redis.sismember(key, name)]
    entries: Any = await redis.xrange(key)
    return [entry for entry, fields in entries if any(_is_of(value, wanted) for value in fields.values())]


async def _keys(redis: Redis, wanted: Sequence[str]) -> AsyncIterator[str]:
    async for key in redis.scan_iter("lift:*", count=1000):
        if _is_of(key, wanted):
            yield key


def _is_of(found: str, wanted: Sequence[str]) -> bool:
    return any(name in found for name in wanted)


def _told(part: str, wanted: Sequence[str], found: Sequence[str]) -> Finding:
    if not found:
        return ok(part, f"nothing of {', '.join(wanted)}")
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return fail(part, f"{', '.join(found[:SHOWN])}{more}", FIX)
