"""API keys in the store and in Redis: made, listed, replaced, revoked. The store is the record; front ends read Redis.

Only a secret's sha256 is kept. It is looked up by that, so nothing is compared whose time could tell a part of it; and
with 256 random bits there is nothing to guess, so a slow hash, which passwords need, would only cost time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
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

from lift_config.contract import (
    DEFAULT_OWNER,
    KEYS_KEY,
    key_path,
    key_redis_key,
    limits_redis_key,
    window_redis_key,
)
from lift_config.settings import LimitSettings
from lift_server.errors import RateLimited
from lift_server.locks import Locks
from lift_server.store import WritesInOrder, in_time

log = logging.getLogger(__name__)

PREFIX = "sk-lift-"  # some clients want `sk-`; scanners for leaked secrets know it
READ_AT_ONCE = 50
REPLACED = "replaced"  # kind of window: what was replaced stays, so it must not be done at will
REPLACED_MS = 3_600_000


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
    """One key without its secret. Several may have one owner. Times are Unix seconds.

    Where its holder replaced the secret there are several records of one id, of which at most one is not revoked.
    """

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
        self._lock = Locks(redis) if redis is not None else None
        self._write_in_order = WritesInOrder()
        self.exist = False  # as far as this process has seen; never taken back, or a loss of Redis would open it

    async def create(self, name: str, owner: str | None, limits: Limits) -> tuple[str, KeyRecord]:
        """The secret, which nobody can learn again, and its record. ValueError for an owner that has no key."""
        owners = {record.owner for record in await self.all()} | {DEFAULT_OWNER}
        if owner is not None and owner not in owners:
            raise ValueError(f"no such owner: {owner}; known: {', '.join(sorted(owners))}")
        secret = _new_secret()
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

    async def replace_secret(self, key: KeyRecord) -> tuple[str, KeyRecord]:
        """A new secret in place of the one shown, whose record is revoked; id, owner and limits stay. RateLimited
        within an hour of the last time; LookupError where it is revoked, also by somebody at the same moment."""
        assert self._redis, "a running server's"
        assert self._lock
        window = window_redis_key(REPLACED, key.id)
        async with self._lock(f"key {key.id}"):
            await self._active(key)
            if (left_ms := await self._redis.pttl(window)) > 0:
                left_s = math.ceil(left_ms / 1000)
                raise RateLimited("1 new secret per hour", kind="requests", retry_after_s=left_s)
            secret = _new_secret()
            fresh = replace(key, digest=digest_of(secret))
            await self._put(fresh)  # first: cut off here, the old one is still good, and nobody knows the new one
            try:
                await self._active(key)
            except LookupError:  # by `revoke`, which may have looked before there was a fresh one
                await self._put(_revoked(fresh))
                raise
            await self._put(_revoked(key))
            await self._redis.set(window, 1, px=REPLACED_MS)
        return secret, fresh

    async def revoke(self, key_id: str) -> KeyRecord:
        """The record stays, so that an installation that had keys never falls open. LookupError for an unknown id.

        Without a lock, so that it works without Redis: it looks again until nothing is left that `replace_secret` put
        in between.
        """
        while (record := await self._current(key_id)).revoked_s is None:
            await self._put(_revoked(record))
        await self.copy()
        return record

    async def listed(self) -> list[KeyRecord]:
        """One of each key, the oldest first: the record that is not revoked, else the one that was last."""
        ordered = sorted(await self.all(), key=lambda one: (one.revoked_s is None, one.revoked_s or 0))
        return sorted({one.id: one for one in ordered}.values(), key=lambda one: one.created_s)

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

    async def _current(self, key_id: str) -> KeyRecord:
        found = next((record for record in await self.listed() if record.id == key_id), None)
        if found is None:
            raise LookupError(f"no such key: {key_id}")
        return found

    async def _active(self, key: KeyRecord) -> None:
        """LookupError where the store has it as revoked."""
        record = await self._read(key_path(key.digest))
        if record is None or record.revoked_s is not None:
            raise LookupError(f"the key is revoked: {key.id}")

    async def _put(self, record: KeyRecord) -> None:
        """StoreUnavailable where the store hangs."""
        path = key_path(record.digest)
        await self._write_in_order(path, lambda: obstore.put_async(self._store, path, record.to_json().encode()))
        await self.copy()

    async def _read(self, path: str) -> KeyRecord | None:
        """None for a spoilt one, which must not keep all others from being let in, and for one that was deleted.
        StoreUnavailable where the store hangs."""
        try:
            async with in_time():
                content = bytes(await (await obstore.get_async(self._store, path)).bytes_async())
            return KeyRecord.from_json(content)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            log.exception("%s in the store is not a key's record", path)
            return None


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _revoked(record: KeyRecord) -> KeyRecord:
    return replace(record, revoked_s=time.time())


def _by_owner(records: Iterable[KeyRecord]) -> dict[str, Limits]:
    """Documents belong to owners: of an owner's keys the newest one that is not revoked says how many."""
    ordered = sorted(records, key=lambda record: (record.revoked_s is None, record.created_s))
    return {record.owner: record.limits for record in ordered}
