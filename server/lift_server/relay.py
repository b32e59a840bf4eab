"""An Answer → the client's connection: server-sent events, kept alive while it waits, given up when the client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from lift_server.answer import Answer
from lift_server.errors import EngineStopped, as_api_error
from lift_server.heard import Piece
from lift_server.question import Json

KEEP_ALIVE_S = 2.0  # below any proxy's patience; errors known within it still get their HTTP status
UNREAD_S = 120.0  # a client that stays but takes nothing for so long holds the engine no longer

T = TypeVar("T")


class AnswerStream(Response):
    """The streamed answer. Headers are sent once the engine answers, or after KEEP_ALIVE_S of waiting for it."""

    media_type = "text/event-stream"

    def __init__(self, answer: Answer) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answer = answer
        self._dialect = answer.question.dialect
        self._held: Json | None = None
        self._sending_since_s: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._answer:
                await unless_gone(receive, self._run(scope, self._noted(send)), self._is_not_read())
        finally:
            scope["state"]["tokens"] = self._answer.tokens

    async def _run(self, scope: Scope, send: Send) -> None:
        opening = asyncio.create_task(self._answer.open())
        try:
            await asyncio.wait({opening}, timeout=KEEP_ALIVE_S)
            if opening.done():
                await opening  # an error has its HTTP status: nothing was sent yet
            await self._begin(send)
            await self._events(send, opening)
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        scope["state"]["tokens"] = self._answer.tokens  # before the end: they are charged with it
        await send({"type": "http.response.body", "body": self._dialect.DONE, "more_body": False})

    def _noted(self, send: Send) -> Send:
        """`send`, with a note of since when it has been waiting for the client."""
        clock = asyncio.get_running_loop().time

        async def noted(message: Message) -> None:
            self._sending_since_s = clock()
            await send(message)
            self._sending_since_s = None

        return noted

    async def _is_not_read(self) -> None:
        """Ends when one piece could not be written for UNREAD_S, twice that at most."""
        clock = asyncio.get_running_loop().time
        while self._sending_since_s is None or clock() - self._sending_since_s < UNREAD_S:
            await asyncio.sleep(UNREAD_S)  # a timeout around every piece would cost more than the piece

    async def _begin(self, send: Send) -> None:
        self.headers.update(self._answer.server_timing())
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _events(self, send: Send, opening: asyncio.Task[None]) -> None:
        """Once the headers are gone, an error is an event."""
        try:
            while not opening.done():
                await _write(send, b": training\n\n" if self._answer.is_training else b": loading\n\n")
                await asyncio.wait({opening}, timeout=KEEP_ALIVE_S)
            await opening
            await self._relay(send)
        except Exception as error:  # noqa: BLE001 - the HTTP edge: the headers are gone, the envelope can still be sent
            self._answer.observed.failure = as_api_error(error)
            await _write(send, self._dialect.error_event(self._answer.observed.failure, self._answer.events))

    async def _relay(self, send: Send) -> None:
        """A chunk that may be the last is held until the next one, or the end, tells: `lift` rides on the last."""
        async for pieces in self._answer.pieces():
            ready, has_token = self._ready(pieces)
            if ready:
                await _write(send, ready)
            if has_token:
                self._answer.token_written()
        if self._held is None:
            raise EngineStopped
        lift = await self._finish(send)
        await _write(send, self._dialect.event(self._answer.last(self._held, lift)))

    def _ready(self, pieces: list[Piece]) -> tuple[bytes, bool]:
        """What can be written, in one go: it came at once; and whether there is a token in its chunks."""
        ready, has_token = bytearray(), False
        for piece in pieces:
            if self._held is not None:
                ready += self._dialect.event(self._held)
                has_token = has_token or self._dialect.has_token(self._held)
                self._held = None
            if isinstance(piece, bytes):
                ready += piece
            elif self._dialect.may_be_last(piece):
                self._held = piece
            else:
                ready += self._dialect.event(piece)
                has_token = has_token or self._dialect.has_token(piece)
        return bytes(ready), has_token

    async def _finish(self, send: Send) -> Json:
        """Evidence may take a while; it is given up with the answer."""
        finishing = asyncio.create_task(self._answer.finish())
        try:
            while not (await asyncio.wait({finishing}, timeout=KEEP_ALIVE_S))[0]:
                await _write(send, b": evidence\n\n")
            return await finishing
        finally:
            finishing.cancel()
            await asyncio.gather(finishing, return_exceptions=True)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T], *given_up: Coroutine[Any, Any, None]) -> T:
    """`work`'s result; where the client goes first, or one of `given_up` ends, `work` is cancelled and
    ClientDisconnect raised."""
    task = asyncio.create_task(work)
    gone = [asyncio.create_task(one) for one in (_disconnected(receive), *given_up)]
    try:
        await asyncio.wait({task, *gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        for one in (task, *gone):
            one.cancel()
        await asyncio.gather(task, *gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
