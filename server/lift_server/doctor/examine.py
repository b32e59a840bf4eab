"""All checks of an installation, those of a server elsewhere, or whether a deleted document is gone → a line for each
finding, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from lift_config.settings import Settings
from lift_server.client.connection import Server, own_address
from lift_server.doctor import gone, machine, redis, serving, store
from lift_server.doctor.finding import CHECK_S, Finding, State, fail, ok, within
from lift_server.exits import DONE, FAILED, UsageError

Checks = list[tuple[str, Awaitable[list[Finding]]]]


async def report(findings: AsyncIterator[Finding], *, as_json: bool) -> int:
    """FAILED where something fails; a warning alone does not."""
    found = []
    async for finding in findings:
        found.append(finding)
        if not as_json:
            print(finding.line(), flush=True)
    is_ok = all(finding.state != State.FAIL for finding in found)
    if as_json:
        print(json.dumps({"ok": is_ok, "findings": [asdict(finding) for finding in found]}, indent=2))
    return DONE if is_ok else FAILED


async def installation(
    read_settings: Callable[[], Settings], environment: Mapping[str, str], key: str | None
) -> AsyncIterator[Finding]:
    """Where the settings are no good nothing else can be looked at: they name it."""
    try:
        settings = read_settings()
    except UsageError as error:
        yield fail("settings", str(error).removeprefix("settings: "), "correct them; README.md has a table of all")
        return
    yield _settings(environment)
    checks: Checks = [
        ("home", machine.home(settings)),
        ("gpu", machine.gpus(settings)),
        ("recipes", machine.recipes(settings)),
        ("redis", redis.redis(settings)),
        *([("blobs", redis.blobs(settings))] if settings.redis.blobs_url else []),
        ("store", store.store(settings)),
        ("keys", store.keys(settings)),
        *([("engines", serving.registered_engines(settings))] if settings.engine.registered else []),
        *((f"engine {url}", serving.engine(settings, url)) for url in settings.engine_urls),
    ]
    async for finding in _made(checks):
        yield finding
    async for finding in examine(Server(own_address(settings.server), key)):
        yield finding


async def is_gone(settings: Settings, ids: Sequence[str]) -> AsyncIterator[Finding]:
    """Of deleted documents: every place that may have had something of them. UsageError for what is no id."""
    wanted = gone.names(ids)
    checks: Checks = [
        ("store", gone.in_store(settings, wanted)),
        ("redis", gone.in_redis(settings, wanted)),
        *([("blobs", gone.in_blobs(settings, wanted))] if settings.redis.blobs_url else []),
        ("engines", gone.at_engines(settings, wanted)),
    ]
    async for finding in _made(checks, gone.LIMIT_S):
        yield finding


async def examine(at: Server) -> AsyncIterator[Finding]:
    """A server, as it is seen from here."""
    async for finding in _made([(f"server {at.address}", serving.server(at))]):
        yield finding


async def _made(checks: Checks, limit_s: float = CHECK_S) -> AsyncIterator[Finding]:
    """All at once, told in their order."""
    for made in [asyncio.ensure_future(within(part, check, limit_s)) for part, check in checks]:
        for finding in await made:
            yield finding


def _settings(environment: Mapping[str, str]) -> Finding:
    return ok("settings", f"{environment.get('LIFT_CONFIG') or 'no file, defaults'}, and the environment")
