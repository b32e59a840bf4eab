"""Who asks, and whether they may: an ASGI middleware in front of every route but OPEN_PATHS.

In: the Authorization header, or the connection where there are no keys. Out: the owner in `request.state.owner`, what
is left of the key's limits on the answer; or 401, 429. A route says what it spent in `request.state.tokens`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lift_config.contract import DEFAULT_OWNER, KEYS_KEY, key_redis_key
from lift_config.settings import LimitSettings
from lift_server import limits
from lift_server.body import drain
from lift_server.errors import ApiError, ApiKeysRequired, InvalidApiKey, StorageUnavailable
from lift_server.keys import KeyRecord, Keys, digest_of
from lift_server.limits import Window
from lift_server.page import FILES
from lift_server.peer import is_local

log = logging.getLogger(__name__)

# For whoever runs it, what the API looks like, the page: no owner, document, adapter or key is named in any of them.
OPEN_PATHS = frozenset({"/health", "/ready", "/metrics", "/openapi.json", *FILES})
NO_TOKENS = ("/v1/documents", "/v1/files", "/v1/uploads", "/v1/keys")  # a POST there asks no engine
NO_SECRET = digest_of("")


@dataclass(frozen=True)
class Caller:
    """`name` is what its windows in Redis are called after: a key's id, so that a new secret begins no new ones."""

    owner: str
    name: str
    limits: LimitSettings
    key: KeyRecord | None = None  # None without keys


class Gate:
    """One round trip to Redis a request: the key's record is read each time, so that one revoked is out at once."""

    def __init__(self, redis: Redis, keys: Keys, defaults: LimitSettings) -> None:
        self._redis = redis
        self.keys = keys
        self._defaults = defaults
        self._anybody = Caller(DEFAULT_OWNER, "open", defaults)
        self._last: dict[str, Caller] = {}  # by digest: what to count in the same round trip

    async def admit(self, request: Request) -> tuple[Caller, list[Window]]:
        """InvalidApiKey, ApiKeysRequired, StorageUnavailable; never open because something is away."""
        digest = digest_of(_secret(request))
        guess = self._last.get(digest) if self.keys.exist else self._anybody
        async with self._redis.pipeline() as pipe:
            pipe.get(KEYS_KEY)
            pipe.get(key_redis_key(digest))
            if guess:
                limits.ask(pipe, guess.name, guess.limits)
            are_copied, found, *counts = await pipe.execute()
        caller = self._caller(request, digest, found, are_copied=bool(are_copied))
        if caller != guess:
            self._last[digest] = caller
            async with self._redis.pipeline() as pipe:
                limits.ask(pipe, caller.name, caller.limits)
                counts = await pipe.execute()
        return caller, limits.read(counts, caller.limits)

    async def charge(self, caller: Caller, tokens: int) -> None:
        """The answer is out already: where Redis is away, nobody is charged."""
        if not tokens or not caller.limits.tokens_per_minute:
            return
        try:
            await limits.charge(self._redis, caller.name, tokens)
        except RedisError:
            log.exception("%d tokens could not be charged", tokens)

    def _caller(self, request: Request, digest: str, found: str | None, *, are_copied: bool) -> Caller:
        self.keys.exist = self.keys.exist or are_copied
        if not self.keys.exist:
            if not is_local(request):
                raise ApiKeysRequired
            return self._anybody
        if not are_copied:
            raise StorageUnavailable  # a Redis that was lost is being filled again (Keys.copy)
        key = KeyRecord.from_json(found) if found else None
        if key is None or key.revoked_s is not None:
            self._last.pop(digest, None)
            raise InvalidApiKey(is_given=digest != NO_SECRET)
        return Caller(key.owner, key.id, key.limits.or_else(self._defaults), key)


class Access:
    """Stands within middleware.Envelope, which answers what is raised here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        gate: Gate = scope["app"].state.lift.gate
        caller, windows = await _admitted(gate, Request(scope, receive))
        rates = _headers(windows)
        scope["state"] |= {"owner": caller.owner, "key": caller.key, "windows": windows}

        charged = 0

        async def charge() -> None:
            nonlocal charged
            tokens = scope["state"].get("tokens", 0) - charged
            charged += tokens
            await gate.charge(caller, tokens)

        async def send_with_rates(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(rates)
            elif not message.get("more_body"):
                await charge()  # who has the end may ask again at once
            await send(message)

        try:
            await self.app(scope, receive, send_with_rates if rates else send)
        finally:
            await charge()  # of an answer that was left


async def _admitted(gate: Gate, request: Request) -> tuple[Caller, list[Window]]:
    """Refused, the body is read on for a moment: closing on a client that still sends would cost it the answer."""
    try:
        caller, windows = await gate.admit(request)
        _refuse(request, windows)
    except (ApiError, RedisError):
        await drain(request.stream())
        raise
    return caller, windows


def _refuse(request: Request, windows: list[Window]) -> None:
    asks = request.method == "POST" and not request.scope["path"].startswith(NO_TOKENS)
    try:
        for window in windows:
            if asks or window.kind != limits.TOKENS:
                window.refuse()
    except ApiError as error:
        error.headers |= _headers(windows)
        raise


def _headers(windows: list[Window]) -> dict[str, str]:
    return {name: value for window in windows for name, value in window.headers().items()}


def _secret(request: Request) -> str:
    """Empty where there is none."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
