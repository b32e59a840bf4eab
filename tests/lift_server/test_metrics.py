"""What /metrics says, and that it is true."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.lift_server.facts import published_job, refined_job

from lift_config.contract import (
    BULK_STREAM,
    DEAD_LETTERS_KEY,
    DEFAULT_OWNER,
    JOBS_GROUP,
    JOBS_STREAM,
    REFINE_STREAM,
    WORKER_PREFIX,
    Status,
    owner_redis_key,
    turns_redis_key,
)
from lift_config.settings import SloSettings
from lift_server import gauges
from lift_server.metrics import Metrics, Objective

TEXT = "The lighthouse at Varn Point was built in 1874 by Edda Holm."


def values(page: str, name: str) -> dict[tuple[str, ...], float]:
    """A metric's samples by their labels' values, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    }


def shown(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return values(metrics.page(None).decode(), name)


async def scraped(front_end: Any, name: str) -> dict[tuple[str, ...], float]:
    return values((await front_end.client.get("/metrics")).text, name)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(SloSettings(warm_ttft_s=0.5, cold_ttft_s=10))


# ---- documents ------------------------------------------------------------------------------------------------


def test_the_way_to_the_first_version_is_told_once(metrics: Metrics) -> None:
    job = published_job()
    metrics.published(job, job.adapters[0])
    refined = refined_job()
    metrics.published(refined, refined.adapters[1])
    assert shown(metrics, "lift_phase_seconds_count") == {
        (phase,): 1.0 for phase in ("queue", "segment", "synthesize", "train", "publish", "refine")
    }
    sums = shown(metrics, "lift_phase_seconds_sum")
    assert (sums["train",], sums["refine",]) == (5.0, 20.0)
    assert shown(metrics, "lift_time_to_ready_seconds_sum") == {("fast",): 9.0, ("balanced",): 29.0}


@pytest.mark.parametrize("seen_at_once", [False, True])
def test_synthesis_is_counted_once_over_all_versions(metrics: Metrics, seen_at_once: bool) -> None:
    early, late = published_job(), refined_job()
    metrics.published(late if seen_at_once else early, early.adapters[0])
    metrics.published(late, late.adapters[1])
    assert shown(metrics, "lift_synthesis_requests_total") == {(): 40.0}
    assert shown(metrics, "lift_synthesis_tokens_total") == {
        ("prompt",): 4000.0,
        ("computed_prompt",): 900.0,
        ("generated",): 1300.0,
    }


# ---- promises -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "seconds", "is_answered", "is_our_fault", "expected"),
    [
        (Objective.WARM_TTFT, 0.5, True, False, (1, 1)),
        (Objective.WARM_TTFT, 0.6, True, False, (1, 0)),
        (Objective.COLD_TTFT, 0.6, True, False, (1, 1)),
        (Objective.COLD_TTFT, 11, True, False, (1, 0)),
        (Objective.WARM_TTFT, 0.1, False, True, (1, 0)),  # an error of ours, however quick
        (Objective.WARM_TTFT, 0.1, False, False, (0, 0)),  # refused, or gone, in good time
        (Objective.COLD_TTFT, 11, False, False, (1, 0)),  # gone after it was too late
    ],
)
def test_goodput(
    metrics: Metrics,
    objective: Objective,
    seconds: float,
    is_answered: bool,
    is_our_fault: bool,
    expected: tuple[int, int],
) -> None:
    metrics.promised(objective, seconds, is_answered=is_answered, is_our_fault=is_our_fault)
    counted = shown(metrics, "lift_slo_total"), shown(metrics, "lift_slo_good_total")
    assert tuple(total[objective.value,] for total in counted) == expected
    other = next(one for one in Objective if one is not objective)
    assert [total[other.value,] for total in counted] == [0, 0]


async def test_questions_are_counted_by_how_they_end(front_end: Any, worker: Any, engine: Any) -> None:
    document_id = (await front_end.upload(TEXT))["id"]
    await worker.train()
    assert (await front_end.ask(document_id=document_id, stream=True)).status_code == 200
    assert (await front_end.ask(document_id=document_id)).status_code == 200
    assert (await front_end.ask(document_id="doc_" + "0" * 24)).status_code == 404
    engine.stream_error = {"error": {"message": "broken", "type": "server_error", "code": 500}}
    assert "engine_error" in (await front_end.ask(document_id=document_id, stream=True)).text
    chat = "/v1/chat/completions"
    assert await scraped(front_end, "lift_questions_total") == {
        (chat, "ok"): 2.0,
        (chat, "document_not_found"): 1.0,
        (chat, "engine_error"): 1.0,
    }
    # The whole answer's time is no time to first token; the broken answer's first token came in time.
    assert (await scraped(front_end, "lift_slo_total"))["warm_ttft",] == 2.0
    assert (await scraped(front_end, "lift_slo_good_total"))["warm_ttft",] == 2.0


async def test_a_question_that_waits_has_the_cold_promise(front_end: Any, worker: Any) -> None:
    document_id = (await front_end.upload(TEXT))["id"]
    asking = asyncio.create_task(front_end.ask(document_id=document_id, stream=True))
    await front_end.waits()
    await worker.train()
    assert "[DONE]" in (await asking).text
    assert await scraped(front_end, "lift_slo_good_total") == {("cold_ttft",): 1.0, ("warm_ttft",): 0.0}


async def test_a_client_that_goes_is_no_error(front_end: Any, engine: Any) -> None:
    engine.gate = asyncio.Event()
    asking = asyncio.create_task(front_end.ask())
    await engine.streaming.wait()
    asking.cancel()
    await asyncio.wait_for(engine.aborted.wait(), 5)
    for _ in range(100):  # the server notices in its own time
        if outcomes := await scraped(front_end, "lift_questions_total"):
            break
    assert outcomes == {("/v1/chat/completions", "disconnected"): 1.0}


async def test_the_time_to_first_token_is_the_clients(front_end: Any) -> None:
    """What the server says lies within what the client saw: between sending the question and the first token."""
    began_s = time.monotonic()
    body = {"model": front_end.settings.model_name, "stream": True, "messages": [{"role": "user", "content": "Well?"}]}
    async with front_end.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        seen_s = [time.monotonic() - began_s async for line in answer.aiter_lines() if '"content":"The"' in line]
    (reported_s,) = (await scraped(front_end, "lift_time_to_first_token_seconds_sum")).values()
    assert 0 < reported_s <= seen_s[0]
    assert seen_s[0] - reported_s < 0.25


# ---- the moment -----------------------------------------------------------------------------------------------


async def test_jobs_are_counted_by_stream(front_end: Any, redis: Any) -> None:
    for stream, count in ((JOBS_STREAM, 3), (BULK_STREAM, 4), (REFINE_STREAM, 2)):
        for _ in range(count):
            await redis.xadd(stream, {"job": "none"})
    assert await scraped(front_end, "lift_jobs_waiting") == {("first",): 3.0, ("bulk",): 4.0, ("refine",): 2.0}
    await redis.zadd(turns_redis_key(BULK_STREAM), {"waiting": 1.0})
    assert (await scraped(front_end, "lift_jobs_waiting"))[("bulk",)] == 5.0
    await redis.delete(turns_redis_key(BULK_STREAM))
    await redis.xgroup_create(JOBS_STREAM, JOBS_GROUP, id="0")
    await redis.xreadgroup(JOBS_GROUP, "a worker", {JOBS_STREAM: ">"}, count=1)
    assert await scraped(front_end, "lift_jobs_waiting") == {("first",): 2.0, ("bulk",): 4.0, ("refine",): 2.0}
    assert await scraped(front_end, "lift_jobs_taken") == {("first",): 1.0, ("bulk",): 0.0, ("refine",): 0.0}
    assert await scraped(front_end, "lift_dead_letters") == {(): 0.0}
    await redis.zadd(DEAD_LETTERS_KEY, {"one": 1_800_000_000.5, "before": 1_700_000_000.0})
    assert await scraped(front_end, "lift_dead_letters") == {(): 2.0}
    assert await scraped(front_end, "lift_last_dead_letter_timestamp_seconds") == {(): 1_800_000_000.5}
    assert await scraped(front_end, "lift_redis_up") == {(): 1.0}


@pytest.mark.parametrize("stream", [JOBS_STREAM, DEAD_LETTERS_KEY])
async def test_a_redis_that_refuses_a_command_is_down(front_end: Any, redis: Any, stream: str) -> None:
    await redis.set(stream, "no stream")
    assert await scraped(front_end, "lift_redis_up") == {(): 0.0}


async def test_documents_and_workers_are_counted_aside(front_end: Any, worker: Any, redis: Any) -> None:
    state = front_end.app.state.lift
    await front_end.upload(TEXT)
    await worker.train()
    await front_end.upload(TEXT + " It is white.")
    await redis.set(WORKER_PREFIX + "host-0", "")
    await gauges.count(state)
    counts = {status.value: 0.0 for status in Status} | {"ready": 1.0, "queued": 1.0}
    assert await scraped(front_end, "lift_documents") == {(status,): count for status, count in counts.items()}
    assert await scraped(front_end, "lift_workers") == {(): 1.0}


async def test_a_scrape_looks_at_no_document(front_end: Any, redis: Any) -> None:
    """Its cost must not grow with them."""

    async def commands() -> int:
        before = (await redis.info("commandstats")).copy()
        await front_end.client.get("/metrics")
        after = await redis.info("commandstats")
        reads = ("cmdstat_hgetall", "cmdstat_zrange", "cmdstat_scan")
        return sum(after.get(name, {"calls": 0})["calls"] - before.get(name, {"calls": 0})["calls"] for name in reads)

    while not await scraped(front_end, "lift_documents"):
        pass  # the first count aside is still under way
    await redis.zadd(owner_redis_key(DEFAULT_OWNER), {f"doc_{number:024x}": number for number in range(500)})
    assert await commands() == 0


def test_without_redis_the_page_says_so(metrics: Metrics) -> None:
    metrics.counted(Counter({Status.READY: 3}), workers=1)
    page = metrics.page(None).decode()
    assert "lift_redis_up 0.0" in page
    assert 'lift_jobs_waiting{stream="first"} NaN' in page
