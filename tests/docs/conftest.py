"""A server as docs/ speaks of it, and a folder to run its blocks in: the front end with the stand-in engine, and a
worker that takes every job as it comes, draft first."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.lift_server.conftest import FakeEngine, FakeWorker, FrontEnd, engine, front_end, start, store, worker

from lift_config.contract import BELL_STREAM, JOBS_STREAM, STREAMS, TURN_STREAMS, WORKER_PREFIX, job_redis_key
from lift_config.recipe import load_recipes
from lift_workers.turns import admit

__all__ = ["engine", "front_end", "start", "store", "worker"]

ADDRESS = "http://127.0.0.1:8000"  # as every page has it
VLLM = "http://127.0.0.1:8001"  # a vLLM without us
TITLE = "Station log"
TEXT = "The lighthouse at Varn Point was built in 1874 by Edda Holm. The keeper's dog is called Brisket."
NO_MORE = "no more"
BLOCK_S = 60
BLOCK_MS = 1000  # below the client's own patience for an answer


@pytest.fixture
async def trained(worker: FakeWorker) -> AsyncIterator[None]:
    """Whatever is uploaded, by a worker that has its lease."""
    await worker.redis.set(f"{WORKER_PREFIX}docs", 1)
    task = asyncio.create_task(train_all(worker))
    yield
    await worker.redis.xadd(JOBS_STREAM, {"job": NO_MORE})  # a cancellation could be swallowed by the client
    await task


async def train_all(worker: FakeWorker) -> None:
    seen: dict[Any, Any] = dict.fromkeys((BELL_STREAM, *STREAMS), "0")
    while True:
        for stream, entries in await worker.redis.xread(seen, block=BLOCK_MS):
            for entry, fields in entries:
                seen[stream.decode()] = entry
                if stream.decode() == BELL_STREAM:
                    await admit_all(worker)
                elif (job_key := fields[b"job"].decode()) == NO_MORE:
                    return
                elif await worker.redis.exists(job_redis_key(job_key)):  # else deleted meanwhile
                    await train(worker, job_key)


async def admit_all(worker: FakeWorker) -> None:
    while any([await admit(worker.redis, stream) for stream in TURN_STREAMS]):
        pass


async def train(worker: FakeWorker, job_key: str) -> None:
    job = await worker.job(job_key)
    drafts = () if job.adapters else load_recipes()[job.recipe].drafts
    await worker.publish(await worker.claim(job), *drafts[:1])


class Place:
    """A folder in which a page's blocks are run, one after the other, as in one terminal."""

    def __init__(self, folder: Path, front_end: FrontEnd, engine: FakeEngine) -> None:
        self.folder, self.front_end, self.engine = folder, front_end, engine
        self.document_id = ""
        (folder / ".venv").symlink_to(sys.prefix)

    async def upload(self) -> str:
        document = await self.front_end.upload(TEXT, title=TITLE, recipe="sketch")
        self.document_id = document["id"]
        return self.document_id

    async def run(self, command: list[str], code: str, suffix: str = "") -> str:
        """`code`, on this server, by `command` with the file's name; AssertionError with all it said where it fails."""
        script = self.folder / f"block{suffix}"
        script.write_text(self.here(code))
        process = await asyncio.create_subprocess_exec(
            *command,
            str(script),
            cwd=self.folder,
            env=self.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), BLOCK_S)
        assert process.returncode == 0, said.decode()
        return said.decode()

    def here(self, code: str) -> str:
        """Addresses, and the id that a reader has to put in."""
        code = code.replace(ADDRESS, self.front_end.url).replace(VLLM, self.engine.url)
        return code.replace("doc_…", self.document_id) if self.document_id else code

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFT_", "REDIS"))}
        settings = self.front_end.settings
        return kept | {
            "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), kept["PATH"]]),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "LIFT_HOME": str(settings.home),
            "LIFT_SERVER__PORT": self.front_end.url.rpartition(":")[2],
            "REDIS_URL": settings.redis_url,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched at import
        }


@pytest.fixture
def place(tmp_path: Path, front_end: FrontEnd, engine: FakeEngine, trained: None) -> Place:
    folder = tmp_path / "checkout"
    folder.mkdir()
    return Place(folder, front_end, engine)
