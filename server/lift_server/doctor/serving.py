"""What answers questions: each engine with the engines' key, and the server, which tells of each part as it sees it."""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lift_config.settings import Settings
from lift_server.client.connection import Connection, Server
from lift_server.doctor.finding import Finding, fail, ok, warn
from lift_server.engine import Engine
from lift_server.errors import ApiError
from lift_server.exits import CommandError, UnreachableError
from lift_server.launcher.embedded import embedded_url
from lift_server.registry import registered

REDIS_S = 5.0
SERVER_LOG = "see the server's log"


async def registered_engines(settings: Settings) -> list[Finding]:
    """What Redis tells; whether it can be reached is another check's."""
    url = settings.redis_url or embedded_url(settings.home.resolve()) or ""
    try:
        async with Redis.from_url(url, decode_responses=True, socket_timeout=REDIS_S) as redis:
            told = [url for url, record in (await registered(redis)).items() if record]
    except (RedisError, ValueError, OSError) as error:
        return [fail("engines", f"Redis does not tell which there are: {error}", "see redis above")]
    if not told:
        fix = "start one with engine.registered and the same REDIS_URL; it registers once vLLM is up"
        return [fail("engines", "none is registered", fix)]
    return [finding for url in told for finding in await engine(settings, url)]


async def engine(settings: Settings, url: str) -> list[Finding]:
    part = f"engine {url}"
    engines = Engine((url,), settings.engine.api_key)
    try:
        if not all(await engines.healthy()):
            fix = "start it (vLLM takes a minute), see its log, or correct engine.urls"
            return [fail(part, "/health does not answer", fix)]
        return [_serves(settings, part, await engines.served(url))]
    except ApiError as error:
        return [fail(part, error.message, "see its log")]
    finally:
        await engines.close()


def _serves(settings: Settings, part: str, names: list[str] | None) -> Finding:
    if names is None and not settings.engine.api_key:
        return ok(part, "answers; its model is behind the key that `lift-serve up` made for itself")
    if names is None:
        return fail(part, "refuses engine.api_key", "give engines, workers and server the same one")
    if settings.model_name not in names:
        what = f"serves {', '.join(names[:3]) or 'nothing'}, not {settings.model_name}"
        return fail(part, what, "give all processes the same base_model and served_name, then start it again")
    return ok(part, f"answers, serves {settings.model_name}")


async def server(at: Server) -> list[Finding]:
    """By what anybody may ask; then whether the key, or this machine, is let in."""
    part = f"server {at.address}"
    async with Connection(at) as connection:
        try:
            async with connection.accepted("GET", "/health"):
                pass
            return [*await _ready(connection, part), await _let_in(connection, part)]
        except UnreachableError as error:
            return [fail(part, error.what, error.fix)]
        except CommandError as error:
            return [fail(part, str(error), SERVER_LOG)]


async def _ready(connection: Connection, part: str) -> list[Finding]:
    """Not ready is an answer too; a proxy may keep it from the public, as it should."""
    async with connection.reply("GET", "/ready") as answer:
        body = await answer.text(errors="replace")
    if answer.status in (401, 403, 404):
        return [warn(part, "answers; how its parts are is not told here", "ask from within, past the proxy")]
    try:
        return _parts(part, json.loads(body)["parts"])
    except (ValueError, KeyError, TypeError):
        return [fail(part, f"answers, but not as LIFT Serve does: {body.strip()[:100]!r}", "correct its address")]


def _parts(part: str, parts: dict[str, Any]) -> list[Finding]:
    away = [number for number, answers in enumerate(parts["engines"]) if not answers]
    engines = f"{len(parts['engines']) - len(away)} of {len(parts['engines'])} engines answer it"
    return [
        ok(part, "answers; it reaches Redis")
        if parts["redis"]
        else fail(part, "answers, but does not reach Redis", "see that its REDIS_URL is right"),
        fail(part, engines, f"see the logs of engine {', '.join(map(str, away))}") if away else ok(part, engines),
        ok(part, f"it sees {parts['workers']} workers")
        if parts["workers"]
        else fail(part, "it sees no worker", "start one, see its log"),
        *(
            []
            if parts.get("disk", True)
            else [fail(part, "it takes no uploads: its disk is nearly full", "make room, or see server.min_free_bytes")]
        ),
        *(
            []
            if parts.get("writes", True)
            else [fail(part, "it takes no uploads: the store took no write", "see its log, and the store's rights")]
        ),
    ]


async def _let_in(connection: Connection, part: str) -> Finding:
    try:
        models = await connection.json("GET", "/v1/models")
    except CommandError as error:
        if error.envelope.get("code") in ("invalid_api_key", "api_keys_required"):
            return warn(part, str(error), "give --key or LIFT_API_KEY; `lift-serve keys create NAME` makes one")
        return fail(part, str(error), SERVER_LOG)
    return ok(part, f"lets us in; base model {models['data'][0]['id']}")
