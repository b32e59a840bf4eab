"""`lift-serve keys create | list | revoke`: in: settings and arguments; out: what to print.

Works beside a running server, whose Redis learns of it at once, and without one: then only the store is written.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lift_config.settings import Settings
from lift_server.keys import KeyRecord, Keys, Limits
from lift_server.launcher.embedded import embedded_url
from lift_server.store import open_store

ALONE = "no server is running here: the next one to start takes it over"


@dataclass(frozen=True)
class Told:
    """`output` is the result, `aside` for the person alone. `is_done` is false where a server may not know of it."""

    output: str
    aside: str
    is_done: bool = True


async def run(settings: Settings, args: Namespace) -> Told:
    """ValueError, LookupError for arguments that name nothing."""
    async with _redis(settings) as redis:
        keys = Keys(redis, open_store(settings.resolved_store_url))
        if args.action == "create":
            told = await _create(keys, args)
        elif args.action == "revoke":
            record = await keys.revoke(args.id)
            output = _json(_shown(record)) if args.json else ""
            told = Told(output, f"{record.id} ({record.name}) is revoked; answers under way are finished")
        else:
            records = await keys.listed()
            told = Told(_listed(records) if args.json else "\n".join(_line(record) for record in records), "")
    where = f"store: {settings.resolved_store_url}; {ALONE if redis is None else 'Redis: told'}"
    is_done = redis is not None or not settings.redis_url or args.action != "revoke"
    return Told(told.output, f"{told.aside}\n{where}".strip(), is_done)


async def _create(keys: Keys, args: Namespace) -> Told:
    if not args.name.isprintable() or not 0 < len(args.name) <= 100:
        raise ValueError("NAME: 1 to 100 printable characters")
    limits = Limits(**{name: getattr(args, name) for name in asdict(Limits())})
    secret, record = await keys.create(args.name, args.owner, limits)
    output = _json(_shown(record) | {"key": secret}) if args.json else secret
    return Told(output, f"{record.id}, owner {record.owner}. The key is shown this once: keep it now.")


def _listed(records: list[KeyRecord]) -> str:
    return _json({"object": "list", "data": [_shown(record) for record in records]})


def _shown(record: KeyRecord) -> dict[str, Any]:
    """Without the digest: what it is looked up by is nobody's business."""
    return {name: value for name, value in asdict(record).items() if name != "digest"}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


def _line(record: KeyRecord) -> str:
    given = {name: value for name, value in asdict(record.limits).items() if value is not None}
    parts = (
        record.id,
        record.owner,
        _day(record.created_s),
        f"revoked {_day(record.revoked_s)}" if record.revoked_s else "active",
        " ".join(f"{name}={value}" for name, value in given.items()),
        record.name,
    )
    return "  ".join(part for part in parts if part)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


@asynccontextmanager
async def _redis(settings: Settings) -> AsyncIterator[Redis | None]:
    """The one that a server here uses; None where it does not answer."""
    url = settings.redis_url or embedded_url(settings.home.resolve())
    if url is None:
        yield None
        return
    async with Redis.from_url(url, decode_responses=True) as redis:
        yield redis if await _answers(redis) else None


async def _answers(redis: Redis) -> bool:
    try:
        await redis.ping()
    except (RedisError, OSError):
        return False
    return True
