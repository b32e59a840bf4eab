"""An Answer → the client's connection: server-sent events, kept alive while it waits, given up when the client goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lift_server.answer import Answer, has_token
from lift_server.errors import as_api_error
from lift_server.question import Json

KEEP_ALIVE_S = 2.0  # below any proxy's patience; errors known within it still get their HTTP status
DONE = b"data: [DONE]\n\n"

T = TypeVar("T")


class AnswerStream(Response):
    """The streamed answer. Headers are sent once the engine answers, or after KEEP_ALIVE_S of waiting for it."""

    media_type = "text/event-stream"

    def __init__(self, answer: Answer) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._answer:
            await unless_gone(receive, self._run(send))

    async def _run(self, send: Send) -> None:
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
        await send({"type": "http.response.body", "body": DONE, "more_body": False})

    async def _begin(self, send: Send) -> None:
        self.headers.update(self._answer.server_timing())
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _events(self, send: Send, opening: asyncio.Task[None]) -> None:
        """What openai-python raises from a stream is a data event with `error`."""
        try:
            while not opening.done():
                await _write(send, b": training\n\n" if self._answer.is_training else b": loading\n\n")
                await asyncio.wait({opening}, timeout=KEEP_ALIVE_S)
            await opening
            await self._relay(send)
        except Exception as error:  # noqa: BLE001 - the HTTP edge: the headers are gone, the envelope can still be sent
            self._answer.observed.failure = as_api_error(error)
            await _write(send, _event(self._answer.observed.failure.envelope()))

    async def _relay(self, send: Send) -> None:
        """A chunk that may be the last is held until the next one, or the end, tells: `lift` rides on the last."""
        held: Json | None = None
        async for chunk in self._answer.chunks():
            if held is not None:
                await self._write_chunk(send, held)
            held = chunk if _may_be_last(chunk) else None
            if held is None:
                await self._write_chunk(send, chunk)
        lift = await self._finish(send)
        if held is not None:
            await _write(send, _event(held | {"lift": lift}))

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

    async def _write_chunk(self, send: Send, chunk: Json) -> None:
        await _write(send, _event(chunk))
        if has_token(chunk):
            self._answer.token_written()


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """`work`'s result; where the client goes first, `work` is cancelled and ClientDisconnect raised."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


def _event(data: Json) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _may_be_last(chunk: Json) -> bool:
    """A finish, or the usage that follows it with no choices; with several choices more may follow."""
    choices = chunk.get("choices") or []
    return not choices or any(choice.get("finish_reason") for choice in choices)
