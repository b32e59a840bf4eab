"""API keys in the store and in Redis: made, listed, revoked. The store is the record; every front end reads Redis.

Only a secret's sha256 is kept. It is looked up by that, so nothing is compared whose time could tell a part of it; and
with 256 random bits there is nothing to guess, so a slow hash, which passwords need, would only cost time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Self

import obstore
from obstore.store import ObjectStore
from redis.asyncio import Redis
from redis.exceptions import WatchError

from lift_config.contract import DEFAULT_OWNER, KEYS_KEY, key_path, key_redis_key, limits_redis_key
from lift_config.settings import LimitSettings

log = logging.getLogger(__name__)

PREFIX = "sk-lift-"  # some clients want `sk-`; scanners for leaked secrets know it
READ_AT_ONCE = 50


@dataclass(frozen=True)
class Limits:
    """What a key says of itself; None: as the settings say. 0: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    documents: int | None = None
    bytes: int | None = None
    training: int | None = None

    def or_else(self, defaults: LimitSettings) -> LimitSettings:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return defaults.model_copy(update=given)


@dataclass(frozen=True)
class KeyRecord:
    """One key without its secret. Several may have one owner. Times are Unix seconds."""

    id: str
    digest: str
    name: str
    owner: str
    created_s: float
    revoked_s: float | None = None
    limits: Limits = Limits()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        values = json.loads(text)
        return cls(**values | {"limits": Limits(**values["limits"])})


class Keys:
    """`redis` has decoded responses; None: nothing runs, and a server copies the store when it starts."""

    def __init__(self, redis: Redis | None, store: ObjectStore) -> None:
        self._redis = redis
        self._store = store
        self.exist = False  # as far as this process has seen; never taken back, or a loss of Redis would open it

    async def create(self, name: str, owner: str | None, limits: Limits) -> tuple[str, KeyRecord]:
        """The secret, which nobody can learn again, and its record. ValueError for an owner that has no key."""
        owners = {record.owner for record in await self.all()} | {DEFAULT_OWNER}
        if owner is not None and owner not in owners:
            raise ValueError(f"no such owner: {owner}; known: {', '.join(sorted(owners))}")
        secret = PREFIX + secrets.token_urlsafe(32)
        record = KeyRecord(
            id=f"key_{secrets.token_hex(6)}",
            digest=digest_of(secret),
            name=name,
            owner=owner or f"own_{secrets.token_hex(12)}",
            created_s=time.time(),
            limits=limits,
        )
        await self._put(record)
        return secret, record

    async def revoke(self, key_id: str) -> KeyRecord:
        """The record stays, so that an installation that had keys never falls open. LookupError for an unknown id."""
        record = next((record for record in await self.all() if record.id == key_id), None)
        if record is None:
            raise LookupError(f"no such key: {key_id}")
        record = replace(record, revoked_s=record.revoked_s or time.time())
        await self._put(record)
        return record

    async def all(self) -> list[KeyRecord]:
        """As the store has them, the oldest first."""
        records: list[KeyRecord] = []
        async for batch in obstore.list(self._store, "keys", chunk_size=READ_AT_ONCE):
            paths = [entry["path"] for entry in batch if entry["path"].endswith(".json")]
            found = await asyncio.gather(*(self._read(path) for path in paths))
            records += [record for record in found if record]
        return sorted(records, key=lambda record: record.created_s)

    async def copy(self) -> None:
        """The store → Redis, as a whole: whatever was made or revoked meanwhile begins it anew."""
        copied = False
        while not copied:
            with suppress(WatchError):
                await self._copy()
                copied = True

    async def _copy(self) -> None:
        if self._redis is None:
            return
        async with self._redis.pipeline() as pipe:
            await pipe.watch(KEYS_KEY)
            if not (records := await self.all()):
                return
            self.exist = True
            pipe.multi()  # type: ignore[no-untyped-call]
            for record in records:
                pipe.set(key_redis_key(record.digest), record.to_json())
            for owner, limits in _by_owner(records).items():
                pipe.set(limits_redis_key(owner), json.dumps(asdict(limits)))
            pipe.incr(KEYS_KEY)
            await pipe.execute()

    async def _put(self, record: KeyRecord) -> None:
        await obstore.put_async(self._store, key_path(record.digest), record.to_json().encode())
        await self.copy()

    async def _read(self, path: str) -> KeyRecord | None:
        """None for a spoilt one, which must not keep all others from being let in."""
        found = await obstore.get_async(self._store, path)
        try:
            return KeyRecord.from_json(bytes(await found.bytes_async()))
        except (ValueError, TypeError, KeyError):
            log.exception("%s in the store is not a key's record", path)
            return None


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _by_owner(records: Iterable[KeyRecord]) -> dict[str, Limits]:
    """Documents belong to owners: of an owner's keys the newest one that is not revoked says how many."""
    ordered = sorted(records, key=lambda record: (record.revoked_s is None, record.created_s))
    return {record.owner: record.limits for record in ordered}
