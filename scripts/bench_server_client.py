"""One burst of streamed questions, one way: in: an address, a body, how many; out: when tokens came, CPU, memory.

Chunks are counted in the bytes, without parsing them: the client shares the cores with what it measures.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ROUTE = "/v1/chat/completions"
EVENT_END = b"}\n\n"
FIRST_TOKEN = re.compile(rb'"content":\s?"[^"]')
SENT_AT = re.compile(rb'"content":\s?" (\d+\.\d+)"')  # what the stand-in's tokens say: when they were sent
TOKENS = re.compile(rb'"completion_tokens":\s?(\d+)')
KEPT_BYTES = 4096  # the end of a stream, where the usage stands
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MEMORY_EVERY_S = 0.25
PAGE_BYTES = os.sysconf("SC_PAGESIZE")

Json = dict[str, Any]


class BrokenStreamError(Exception):
    """A stream that did not bring what was asked for."""


@dataclass(frozen=True)
class Plan:
    """So many streams of so many tokens at the same moment. `chunks_per_s`, of each: only the stand-in heeds it."""

    streams: int
    tokens: int
    chunks_per_s: float | None = None

    @property
    def fields(self) -> Json:
        return {"max_tokens": self.tokens} | ({"chunks_per_s": self.chunks_per_s} if self.chunks_per_s else {})


@dataclass(frozen=True)
class Way:
    """To the engine directly, or through the server whose process is `pid`."""

    url: str
    body: Json
    key: str = ""
    pid: int | None = None


@dataclass(frozen=True)
class Burst:
    """What came of it. `cpu_s` and memory (the most it had, and what it had before and after) are the server's; None
    where it was not asked.

    `delays_s`: from a token sent by the stand-in to the same token read here.
    """

    wall_s: float
    chunks: int
    tokens: int
    ttft_s: list[float]
    delays_s: list[float]
    cpu_s: float | None = None
    memory_bytes: int | None = None
    before_bytes: int | None = None
    after_bytes: int | None = None

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s


@dataclass
class _Stream:
    ttft_s: float = 0.0
    chunks: int = 0
    tokens: int = 0
    delays_s: list[float] = field(default_factory=list)


async def burst(http: aiohttp.ClientSession, way: Way, plan: Plan) -> Burst:
    """BrokenStreamError where a stream lacks a token."""
    before, memory = usage(way.pid), _Memory(way.pid)
    began_s = time.monotonic()
    async with memory:
        streams = await asyncio.gather(*(_stream(http, way, plan) for _ in range(plan.streams)))
    wall_s, after = time.monotonic() - began_s, usage(way.pid)
    return Burst(
        wall_s=wall_s,
        chunks=sum(stream.chunks for stream in streams),
        tokens=sum(stream.tokens for stream in streams),
        ttft_s=[stream.ttft_s for stream in streams],
        delays_s=[delay for stream in streams for delay in stream.delays_s],
        cpu_s=None if before is None or after is None else after.cpu_s - before.cpu_s,
        memory_bytes=None if way.pid is None else memory.peak_bytes,
        before_bytes=None if before is None else before.memory_bytes,
        after_bytes=None if after is None else after.memory_bytes,
    )


async def _stream(http: aiohttp.ClientSession, way: Way, plan: Plan) -> _Stream:
    headers = {"Authorization": f"Bearer {way.key}"} if way.key else {}
    seen, tail, sent_s = _Stream(), b"", time.monotonic()
    async with http.post(way.url + ROUTE, json=way.body | plan.fields, headers=headers) as answer:
        if answer.status != 200:
            raise BrokenStreamError(f"{answer.status} {await answer.text()}")
        async for part in answer.content.iter_any():
            now_s = time.monotonic()
            _count(seen, tail[-2:], part, now_s)
            tail = (tail + part)[-KEPT_BYTES:]
            if not seen.ttft_s and FIRST_TOKEN.search(tail):
                seen.ttft_s = now_s - sent_s
    seen.tokens = int((TOKENS.findall(tail) or [b"0"])[-1])
    if seen.tokens != plan.tokens or not seen.ttft_s:
        raise BrokenStreamError(f"{seen.tokens} of {plan.tokens} tokens; it ended with {tail[-300:]!r}")
    return seen


def _count(seen: _Stream, before: bytes, part: bytes, now_s: float) -> None:
    """`before`: the two bytes that came last, since an event's end may come in pieces."""
    seen.chunks += (before + part).count(EVENT_END)
    seen.delays_s += [now_s - float(sent_s) for sent_s in SENT_AT.findall(part)]  # one in two pieces is left out


# ---- the server's process -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """Since the process began, and now."""

    cpu_s: float
    memory_bytes: int


def usage(pid: int | None) -> Usage | None:
    """Of all its threads, as the kernel counts them."""
    if pid is None:
        return None
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return Usage(sum(map(int, ticks)) / TICKS_PER_S, int(pages) * PAGE_BYTES)


class _Memory:
    """The most that the process had in residence while the block lasted."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.peak_bytes = 0

    async def __aenter__(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while (now := usage(self._pid)) is not None:
            self.peak_bytes = max(self.peak_bytes, now.memory_bytes)
            await asyncio.sleep(MEMORY_EVERY_S)  # memory announces nothing
