"""uvicorn's protocol, with limits on a request's head: before it is read nobody knows who asks.

In: what a connection sends. Out: requests to the application; 431 for a head that is too long, and a connection that
takes too long over one is closed. uvicorn by itself gathers both without end.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 64 * 1024  # URL and headers, and trailers behind a body


class BoundedProtocol(HttpToolsProtocol):
    head_s = 30.0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_bytes = 0  # of the message that is being read, as far as the parser told
        self._untold_bytes = 0  # that it keeps to itself: a name or a value without an end
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        self._untold_bytes += len(data)
        super().data_received(data)
        if self._untold_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse()
        if self.cycle is not before:
            self._stop_waiting()
        elif before is None or before.response_complete:  # also the rest of a body that nobody reads any more
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > HEAD_BYTES:
            self._refuse()
        else:
            super().send_400_response(msg)

    # ---- what the parser tells ----

    def on_message_begin(self) -> None:
        self._head_bytes = self._untold_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._untold_bytes = 0
        super().on_body(body)

    def _count(self, size_bytes: int) -> None:
        self._untold_bytes = 0
        self._head_bytes += size_bytes
        if self._head_bytes > HEAD_BYTES:
            raise httptools.HttpParserError("too long")

    # ---- how it ends ----

    def _refuse(self) -> None:
        """Without a word where an answer to an earlier request is under way: this one would get into it."""
        if self.cycle is None or self.cycle.response_complete:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def _await_head(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.head_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
