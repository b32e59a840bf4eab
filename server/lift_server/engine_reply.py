"""What vLLM answers with, read: events of a stream, objects, and errors in our envelope.

In: aiohttp's responses, parts of a body. Out: events, JSON objects, ApiErrors.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from lift_server.errors import ApiError, EngineFailure, EngineStopped

DONE = b"data: [DONE]"
TOO_LONG = re.compile(r"maximum (context|model) length|max_model_len", re.IGNORECASE)
CODES = {400: "invalid_request", 404: "model_not_found", 413: "too_large", 422: "invalid_request"}

Json = dict[str, Any]


def read_event(event: bytes) -> Json:
    """A server-sent event's data; an error is raised."""
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    chunk: Json = json.loads(b"\n".join(lines))
    if chunk.get("error") or chunk.get("type") == "error":
        raise engine_error(500, chunk if chunk.get("error") else {"error": chunk})
    return chunk


async def events(reply: aiohttp.ClientResponse, heard: Callable[[], None]) -> AsyncIterator[list[bytes]]:
    """The events of a server-sent stream, without the blank line after each, as many at a time as have come.
    Comments and `[DONE]` are left out; what follows it is read to the end, so that the connection can be used again."""
    rest = b""
    try:
        async for part in reply.content.iter_any():
            heard()
            *events, rest = (rest + part).split(b"\n\n")
            if told := [event for event in events if event[:1] not in (b"", b":") and event != DONE]:
                yield told
    except aiohttp.ClientError as error:
        raise EngineStopped from error


async def as_object(reply: aiohttp.ClientResponse) -> Json:
    """The body as an object; an empty one where it is something else."""
    try:
        body = json.loads(await reply.read())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def engine_error(status: int, body: Json) -> ApiError:
    """vLLM's error in our envelope: its `code` is a number, and some of its errors are a bare string."""
    error = body.get("error", {})
    details: Json = error if isinstance(error, dict) else {"message": str(error)}
    if isinstance(details.get("code"), int):
        status = details["code"]
    message = str(details.get("message") or "The inference engine could not answer.")
    param = details.get("param")
    if status in (401, 403) or status >= 500:  # a wrong key between us and the engine is not the client's doing
        return EngineFailure(502, f"The inference engine failed: {message}", code="engine_error")
    code = "context_length_exceeded" if TOO_LONG.search(message) else CODES.get(status, "invalid_request")
    return ApiError(status, message, code=code, param=param if isinstance(param, str) else None)


def load_error(status: int, body: Json) -> ApiError:
    error = engine_error(status, body)
    if status == 404:
        return EngineFailure(503, "The document's adapter cannot be found by the engine.", code="adapter_unavailable")
    return EngineFailure(
        502, f"The document's adapter could not be loaded: {error.message}", code="adapter_load_failed"
    )
