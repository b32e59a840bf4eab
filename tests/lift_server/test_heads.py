"""A request's head on the wire: how long it may be, and how long it may take, before anybody is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from lift_server.heads import HEAD_BYTES, BoundedProtocol

FAR = 10 * HEAD_BYTES
OK, TOO_LONG = b"HTTP/1.1 200 ", b"HTTP/1.1 431 "
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


class Hasty(BoundedProtocol):
    head_s = 0.05


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers before it has read a body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def connected(protocol: type[BoundedProtocol] = BoundedProtocol) -> AsyncIterator[tuple[Any, Any]]:
    config = uvicorn.Config(application, port=0, log_config=None, ws="none", lifespan="off", http=protocol)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.servers[0].sockets[0].getsockname()[1])
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()
        await server.shutdown()


async def sent(reader: Any, writer: Any, start: bytes, endless: bytes) -> bytes:
    """What comes back, to the end, where `endless` follows until the other side has enough."""
    writer.write(start)
    try:
        for _ in range(FAR // len(endless)):
            writer.write(endless)
            await writer.drain()
        return bytes(await reader.read())
    except ConnectionError:
        return bytes(reader._buffer)  # closing on what was not read yet breaks the connection


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"GET /", b"a" * 1000),
        (GET, b"X-A: a\r\n" * 100),
        (GET + b"X-A: ", b"a" * 1000),
        (GET, b"a" * 1000),
    ],
    ids=["a URL", "headers", "a header's value", "a header's name"],
)
async def test_what_has_no_end_is_ended(start: bytes, endless: bytes) -> None:
    async with connected() as (reader, writer):
        assert (await sent(reader, writer, start, endless))[: len(TOO_LONG)] in (TOO_LONG, b"")


async def test_a_head_that_is_too_long_is_told_so() -> None:
    async with connected() as (reader, writer):
        writer.write(GET + b"X-A: " + b"a" * HEAD_BYTES + b"\r\n\r\n")
        assert (await reader.read()).startswith(TOO_LONG)


@pytest.mark.parametrize("trailer", [b"X-A: a\r\n" * 100, b"a" * 1000])
async def test_trailers_count_too(trailer: bytes) -> None:
    async with connected() as (reader, writer):
        answer = await sent(reader, writer, GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", trailer)
        assert answer.startswith(OK) or not answer


async def test_heads_within_the_limit_and_bodies_beyond_it_are_let_through() -> None:
    """Each request counts anew."""
    head = GET + b"X-A: " + b"a" * (HEAD_BYTES - 100) + b"\r\n"
    async with connected() as (reader, writer):
        for _ in range(3):
            writer.write(head + b"Content-Length: %d\r\n\r\n" % FAR + b"b" * FAR)
            assert (await reader.readuntil(b"ok")).startswith(OK)


@pytest.mark.parametrize("start", [b"", b"GET / HT", GET], ids=["nothing", "a beginning", "no end"])
async def test_a_head_that_does_not_come_closes_the_connection(start: bytes) -> None:
    async with connected(Hasty) as (reader, writer):
        writer.write(start)
        assert await reader.read() == b""


async def test_the_next_head_has_its_time_too() -> None:
    async with connected(Hasty) as (reader, writer):
        writer.write(GET + b"\r\n")
        await reader.readuntil(b"ok")
        writer.write(b"GET / HT")
        assert await reader.read() == b""


async def test_an_idle_connection_is_left_to_the_keep_alive() -> None:
    async with connected(Hasty) as (reader, writer):
        writer.write(GET + b"\r\n")
        await reader.readuntil(b"ok")
        loop = asyncio.get_running_loop()
        later = loop.create_future()
        loop.call_later(2 * Hasty.head_s, later.set_result, None)
        await later
        writer.write(GET + b"\r\n")
        assert (await reader.readuntil(b"ok")).startswith(OK)
