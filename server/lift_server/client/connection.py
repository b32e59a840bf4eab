"""The server over HTTP, as the commands use it. In: its address and a key. Out: JSON, streams, CommandErrors."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

import aiohttp

from lift_config.settings import ServerSettings
from lift_server.exits import UNTRAINED_CODES, CommandError, UnreachableError, UntrainedError, UsageError

CONNECT_S = 10.0
PAGE = 100  # the most that a list gives at once
SHOWN_CHARACTERS = 500  # of an answer that is no envelope
START = "start the server with `lift-serve up`, or name its address with --url"
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """Where it is, without a slash at the end, and the key to show."""

    address: str
    key: str | None = None


def server_address(given: str) -> str:
    """As people write it: with or without http://, a slash at the end, or the /v1 that OpenAI's clients want."""
    url = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number
        is_sound = False
    if not is_sound or parts.query or parts.fragment:
        raise UsageError(f"--url: {given!r} is no address; one is http://host:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def own_address(server: ServerSettings) -> str:
    """Where a server with these settings is called on its own machine."""
    host = ANY_HOST.get(server.host, server.host)
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"


def document_route(document_id: str, below: str = "") -> str:
    """What is no id is still a single part of the path, and gets the server's own 404."""
    return f"/v1/documents/{quote(document_id, safe='')}{below}"


class Connection:
    """Requests to one server. No time limit once it is reached: a question may wait for its document's training."""

    def __init__(self, server: Server) -> None:
        self.address = server.address
        headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        self._session = aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @asynccontextmanager
    async def reply(self, method: str, route: str, **sent: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """UnreachableError where nothing answers, or no more."""
        try:
            async with self._session.request(method, self.address + route, **sent) as answer:
                yield answer
        except aiohttp.InvalidURL as error:
            raise UsageError(f"{self.address} is no address") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UnreachableError(_unreachable(self.address, error), START) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            said = str(error) or type(error).__name__
            raise UnreachableError(
                f"the connection to {self.address} broke ({said})", "see the server's log"
            ) from error

    @asynccontextmanager
    async def accepted(self, method: str, route: str, **sent: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A reply that is no refusal."""
        async with self.reply(method, route, **sent) as answer:
            if answer.status != 200:
                raise refused(answer.status, await answer.text(errors="replace"))
            yield answer

    async def json(self, method: str, route: str, **sent: Any) -> Json:
        async with self.accepted(method, route, **sent) as answer:
            return await read_object(answer)

    async def documents(self) -> list[Json]:
        """All of the owner's, newest first, a page at a time."""
        found: list[Json] = []
        query: dict[str, str] = {"limit": str(PAGE)}
        while True:
            page = await self.json("GET", "/v1/documents", params=query)
            found += page["data"]
            if not page.get("has_more"):
                return found
            query["after"] = page["last_id"]


def refused(status: int, body: str) -> CommandError:
    """In the server's own words, whatever stands in for it (a proxy) says something else."""
    try:
        envelope = json.loads(body)["error"]
        message, code = str(envelope["message"]), envelope.get("code")
        return UntrainedError(message, code, envelope) if code in UNTRAINED_CODES else CommandError(message, envelope)
    except (ValueError, KeyError, TypeError):
        return CommandError(f"HTTP {status}: {body.strip()[:SHOWN_CHARACTERS] or 'no reason was given'}")


async def read_object(answer: aiohttp.ClientResponse) -> Json:
    """As LIFT's and OpenAI's all say what they are; another program's answers do not."""
    body = await answer.text(errors="replace")
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict) or "object" not in value:
        raise CommandError(f"{answer.url.origin()} answers, but not as LIFT Serve does: {body.strip()[:100]!r}")
    return value


def _unreachable(address: str, error: aiohttp.ClientError | TimeoutError) -> str:
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"Cannot connect to host {parts.hostname}:{port} ({_reason(error)})"


def _reason(error: aiohttp.ClientError | TimeoutError) -> str:
    cause = getattr(error, "os_error", None)
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:.0f} s"
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:  # asyncio's own words repeat the address
        return os.strerror(cause.errno)
    return str(getattr(cause, "strerror", None) or error)
