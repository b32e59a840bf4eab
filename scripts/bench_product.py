"""A server for a benchmark: found or started, asked like any client would ask it, its memory watched.

In: a URL or none, texts, questions. Out: documents as the server tells of them, answers with their times.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench_common import HOME, ROOT, free_ports
from lift_server.launcher.processes import Mark, members

START_S = 900  # of vLLM, with a large model
POLL_S = 0.25
MAX_TOKENS = 16
MAX_WAIT_S = 86_400
CONFIG = ROOT / "config" / "lift.yaml"
PAGE_BYTES = os.sysconf("SC_PAGESIZE")

Json = dict[str, Any]

UP = (str(Path(sys.executable).with_name("lift-serve")), "up")
REPLAYING = (sys.executable, str(ROOT / "scripts" / "bench_up.py"))


class RefusedError(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, error: Json) -> None:
        super().__init__(f"{status} {error.get('code')}: {error.get('message')}")
        self.code = error.get("code")


@asynccontextmanager
async def product(
    url: str | None, home: Path | None, random_model: Path | None = None
) -> AsyncIterator[tuple[str, Path | None]]:
    """The address and the home of the server at `url`, or of one that lives as long as the block; with `random_model`
    for its base model, its tasks are recorded ones (bench_worker.py)."""
    if url:
        yield url.rstrip("/"), home
        return
    settings = {"LIFT_BASE_MODEL": random_model} if random_model else {}
    async with started(HOME / "bench-ttft", settings, REPLAYING if random_model else UP) as (url, home):
        yield url, home


@asynccontextmanager
async def started(
    home: Path, settings: Mapping[str, object], command: Sequence[str] = UP
) -> AsyncIterator[tuple[str, Path]]:
    """A server of its own with `settings` (environment variables) beside those of the environment."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (HOME / "models").mkdir(exist_ok=True)
    (home / "models").symlink_to(HOME / "models")  # the base model is prepared once for all
    server_port, engine_port = free_ports(2)
    ports = {"LIFT_SERVER__PORT": server_port, "LIFT_ENGINE__PORT": engine_port}
    given = {"LIFT_HOME": home, **ports, **settings}
    with (home / "up.log").open("w") as log:
        up = subprocess.Popen(
            command,
            env={"LIFT_CONFIG": str(CONFIG), **os.environ, **{name: str(value) for name, value in given.items()}},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{server_port}"
        await _ready(url, up, home / "up.log")
        yield url, home
    finally:
        up.terminate()
        up.wait()


async def _ready(url: str, up: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    async with aiohttp.ClientSession() as http:
        while up.poll() is None and time.monotonic() < deadline_s:
            with suppress(aiohttp.ClientError):
                async with http.get(f"{url}/ready") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(POLL_S)  # nothing announces that it is ready
    raise SystemExit(f"the server did not start: see {log}")


@dataclass(frozen=True)
class Reply:
    """`first_token_s` after `sent_s`, both on time.monotonic(); `lift`: what the answer says of itself."""

    sent_s: float
    first_token_s: float
    lift: Json

    @property
    def ttft_s(self) -> float:
        return self.first_token_s - self.sent_s


class Client:
    """Documents and streamed questions. `recipe` None: the server's own."""

    def __init__(self, http: aiohttp.ClientSession, recipe: str | None) -> None:
        self._http, self._recipe = http, recipe

    async def model(self) -> str:
        """The base model's name; it stands first in the list."""
        return str((await self._json("GET", "/v1/models"))["data"][0]["id"])

    async def upload(self, title: str, text: str) -> str:
        body = {"title": title, "text": text} | ({"recipe": self._recipe} if self._recipe else {})
        return str((await self._json("POST", "/v1/documents", json=body))["id"])

    async def finished(self, document_id: str) -> Json:
        """The document once no training is wanted any more. RefusedError where that is since it failed."""
        while (document := await self._json("GET", f"/v1/documents/{document_id}"))["unfinished"]:
            await asyncio.sleep(POLL_S)
        if document["status"] != "ready":
            raise RefusedError(200, document["error"] or {"code": document["status"]})
        return document

    async def ask(self, model: str, document_id: str, question: str, mode: str = "adapter") -> Reply:
        """A streamed question, greedy and short."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "document_id": document_id,
            "lift": {"mode": mode, "max_wait_s": MAX_WAIT_S},
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "stream": True,
        }
        sent_s, first_s, lift = time.monotonic(), None, Json()
        async with self._http.post("/v1/chat/completions", json=body) as answer:
            await _check(answer)
            async for chunk in _chunks(answer):
                if first_s is None and any(choice["delta"].get("content") for choice in chunk["choices"]):
                    first_s = time.monotonic()
                lift = chunk.get("lift", lift)
        if first_s is None:
            raise RefusedError(200, {"code": "no_token", "message": "the answer has no token"})
        return Reply(sent_s, first_s, lift)

    async def _json(self, method: str, path: str, **options: Any) -> Json:
        async with self._http.request(method, path, **options) as answer:
            await _check(answer)
            values: Json = await answer.json()
            return values


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 400:
        raise RefusedError(answer.status, (await answer.json())["error"])


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[Json]:
    async for line in answer.content:
        data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b"[DONE]"
        if data != b"[DONE]":
            chunk = json.loads(data)
            if "error" in chunk:
                raise RefusedError(200, chunk["error"])
            yield chunk


class Memory:
    """The most memory that each part of the server at `home` had in residence while the block lasted."""

    def __init__(self, home: Path | None) -> None:
        self._home = home
        self.peak_mb: dict[str, float] = {}

    async def __aenter__(self) -> Memory:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while self._home:
            for name, now_mb in resident_mb(self._home / "pids.json").items():
                self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), now_mb)
            await asyncio.sleep(POLL_S)


def process(home: Path, part: str) -> int:
    """The first process of `part`."""
    [pid] = [values["pid"] for values in json.loads((home / "pids.json").read_text("utf-8")) if values["name"] == part]
    return int(pid)


def resident_mb(pids: Path) -> dict[str, float]:
    """By part, with all its processes. Pages that two of them share count twice."""
    found: dict[str, float] = defaultdict(float)
    for values in json.loads(pids.read_text("utf-8")):
        for pid in members(Mark(**values)):
            with suppress(FileNotFoundError, ProcessLookupError):
                found[values["name"]] += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
    return dict(found)
