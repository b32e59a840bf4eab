"""The outermost layer: when a request began, its id on every answer, what a browser wants to know of it, and the
envelope around what nobody caught."""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lift_server.cors import cors_headers, preflight
from lift_server.errors import as_api_error

REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")  # W3C

_current_id: ContextVar[str] = ContextVar("request_id", default="-")


class Envelope:
    """ASGI middleware; plain, since Starlette's base class would stand between a stream and its client."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})["received_s"] = time.time()
        request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        _current_id.set(request_id)  # each request runs in a task of its own
        begun, began_s = False, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["openai-processing-ms"] = str(round(1000 * (time.perf_counter() - began_s)))
                headers.update(cors_headers(scope))
            await send(message)

        try:
            await (preflight(scope) or self.app)(scope, receive, send_with_id)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the HTTP edge: nothing may leave without the envelope
            answer = as_api_error(error)
            if not begun:
                await answer.response()(scope, receive, send_with_id)


def request_id() -> str:
    """Of the request that this code, or what started it, runs for; `-` outside of any."""
    return _current_id.get()


class WithRequestId(logging.Filter):
    """For a handler: lets everything through, with `request_id` for its format."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id()
        return True


def received_s(request: Request) -> float:
    """When the request's first byte was read, Unix seconds: where TTFT and time to ready begin."""
    began: float = request.state.received_s
    return began


def traceparent(request: Request) -> str | None:
    """The client's place in a trace, where its header is well-formed."""
    given = request.headers.get("traceparent", "")
    return given if TRACEPARENT.fullmatch(given) else None


def _request_id(given: str | None) -> str:
    return given if given and REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
