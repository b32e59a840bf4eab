"""Which version answers, what `lift.recipe` and `lift.ttft_budget_s` train, and what is told where they cannot."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from lift_config.contract import JobRecord, Progress, Speed, job_lease_redis_key, speeds_redis_key
from lift_config.phases import Phase

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
JOBS, REFINE = "lift:jobs", "lift:jobs:refine"


def adapter_id(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["lift"]["adapter_id"]


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def measured(redis: Any, **seconds: float) -> None:
    """Speeds of texts as long as TEXT, by recipe."""
    for recipe, value in seconds.items():
        await redis.lpush(speeds_redis_key(recipe), Speed(len(TEXT), value).to_json())


async def test_the_first_version_answers_until_a_better_one_is_there(front_end: Any, worker: Any, engine: Any) -> None:
    """A question waits for any version; one that is being answered keeps the version it began with."""
    document = await front_end.upload(TEXT)
    waiting = asyncio.create_task(front_end.ask(document_id=document["id"]))
    await front_end.waits()
    first = await worker.train("sketch")
    answer = await waiting
    assert adapter_id(answer) == first.id
    assert "refine" not in answer.json()["lift"]["phases"]  # it goes on, but nobody waits for it
    engine.gate = asyncio.Event()
    running = asyncio.create_task(front_end.ask(document_id=document["id"], stream=True))
    await engine.streaming.wait()
    last = await worker.train(stream=REFINE)
    engine.gate.set()
    assert f'"adapter_id":"{first.id}","adapter_version":1' in (await running).text
    body = (await front_end.ask(document_id=document["id"])).json()
    assert (body["lift"]["adapter_id"], body["lift"]["adapter_version"]) == (last.id, 2)


async def test_a_version_that_is_there_answers_its_recipe(front_end: Any, worker: Any, redis: Any) -> None:
    document = await front_end.upload(TEXT)
    first = await worker.train("sketch")
    last = await worker.train(stream=REFINE)
    for recipe, adapter in (("sketch", first), ("balanced", last)):
        answer = await front_end.ask(document_id=document["id"], lift={"recipe": recipe, "max_wait_s": 0})
        assert adapter_id(answer) == adapter.id
    assert await redis.xlen(JOBS) == 0


async def test_a_recipe_under_way_is_waited_for(front_end: Any, worker: Any, redis: Any) -> None:
    document = await front_end.upload(TEXT)
    await worker.train("sketch")
    await redis.set(job_lease_redis_key((await worker.newest_job(REFINE)).key), "its entry")
    asking = asyncio.create_task(front_end.ask(document_id=document["id"], lift={"recipe": "balanced"}))
    await front_end.waits()
    assert await redis.xlen(JOBS) == 0
    last = await worker.train(stream=REFINE)
    answer = await asking
    assert adapter_id(answer) == last.id
    assert {"accept", "wait", "refine", "load", "prefill"} <= answer.json()["lift"]["phases"].keys()


@pytest.mark.parametrize("recipe", ["balanced", "max"])
async def test_a_refinement_that_waits_is_brought_forward(front_end: Any, worker: Any, redis: Any, recipe: str) -> None:
    """Ahead of other refinements, once for several questions; also where another recipe comes after it."""
    document = await front_end.upload(TEXT)
    await worker.train("sketch")
    before = await worker.newest_job(REFINE)
    question = {"document_id": document["id"], "lift": {"recipe": recipe, "max_wait_s": 0}}
    for _ in range(2):
        assert code(await front_end.ask(**question)) == (409, "document_not_ready")
    assert await redis.xlen(JOBS) == 1
    assert await worker.newest_job() == before


async def test_a_question_from_before_the_first_version_brings_its_refinement_forward(
    front_end: Any, worker: Any, redis: Any
) -> None:
    document = await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    asking = asyncio.create_task(front_end.ask(document_id=document["id"], lift={"recipe": "balanced"}))
    await front_end.waits()
    await worker.publish(job, "sketch")
    await until_queued(redis)
    last = await worker.train()
    assert adapter_id(await asking) == last.id


async def test_a_version_that_came_meanwhile_is_not_trained_again(front_end: Any, worker: Any, redis: Any) -> None:
    await front_end.upload(TEXT)
    job_key = (await worker.train()).id[:32]
    await redis.delete(JOBS)
    job = await front_end.app.state.lift.records.want(job_key, "balanced", time.time())
    assert job == await worker.job(job_key)
    assert not job.unfinished
    assert await redis.xlen(JOBS) == 0


async def test_a_recipe_that_nothing_brings_is_trained(front_end: Any, worker: Any, redis: Any, store: Path) -> None:
    """Once what is under way has ended; ahead of refinements; for several questions once."""
    document = await front_end.upload(TEXT)
    await worker.train("sketch")
    await redis.set(job_lease_redis_key((await worker.newest_job(REFINE)).key), "its entry")
    question = {"document_id": document["id"], "lift": {"recipe": "max"}}
    asking = [asyncio.create_task(front_end.ask(**question)) for _ in range(2)]
    await front_end.waits()
    assert await redis.xlen(JOBS) == 0
    asked_s = time.time()
    await worker.train(stream=REFINE)
    await until_queued(redis)
    job = await worker.newest_job()
    assert (job.recipe, job.status.value, job.unfinished) == ("max", "ready", True)
    assert Phase.REFINE not in job.timeline.spans  # the time since the last version is no refinement
    assert job.received_s <= asked_s
    assert JobRecord.from_json((store / f"jobs/{job.key}.json").read_text()) == job
    best = await worker.train()
    assert [adapter_id(await answer) for answer in asking] == [best.id] * 2
    assert adapter_id(await front_end.ask(document_id=document["id"])) == best.id


async def until_queued(redis: Any) -> None:
    async with asyncio.timeout(5):
        while not await redis.xlen(JOBS):
            await asyncio.sleep(0)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_a_version_whose_training_ends_without_it(front_end: Any, worker: Any, redis: Any, end: str) -> None:
    """The question that waited is told; the next one has it trained again; the default still answers."""
    document = await front_end.upload(TEXT)
    adapter = await worker.train()
    await redis.delete(JOBS)
    question = {"document_id": document["id"], "lift": {"recipe": "max"}}
    asking = asyncio.create_task(front_end.ask(**question))
    await front_end.waits()
    await until_queued(redis)
    if end == "failed":
        await worker.fail(await worker.newest_job(), "the trainer died")
    else:
        await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
    answer = await asking
    assert code(answer) == (409, f"document_{end}")
    assert "'max'" in answer.json()["error"]["message"]
    assert adapter_id(await front_end.ask(document_id=document["id"])) == adapter.id
    impatient = await front_end.ask(document_id=document["id"], lift={"recipe": "max", "max_wait_s": 0})
    assert code(impatient) == (409, "document_not_ready")
    assert await redis.xlen(JOBS) == 2


@pytest.mark.parametrize("lift", [{"recipe": "max"}, {"ttft_budget_s": 5}])
async def test_a_stopped_document_is_not_trained_by_a_question(front_end: Any, redis: Any, lift: Any) -> None:
    document = await front_end.upload(TEXT)
    await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
    assert code(await front_end.ask(document_id=document["id"], lift=lift)) == (409, "document_cancelled")
    assert await redis.xlen(JOBS) == 0


async def test_a_budget_takes_the_best_that_fits(front_end: Any, worker: Any, redis: Any) -> None:
    document = await front_end.upload(TEXT)
    await measured(redis, sketch=5, balanced=30, max=90)
    job = await worker.claim(await worker.newest_job())
    asking = {
        budget_s: asyncio.create_task(front_end.ask(document_id=document["id"], lift={"ttft_budget_s": budget_s}))
        for budget_s in (10, 60)
    }
    await front_end.waits()
    first = await worker.publish(job, "sketch")
    assert adapter_id(await asking[10]) == first.id
    last = await worker.publish(await worker.job(job.key))
    assert adapter_id(await asking[60]) == last.id
    within = await front_end.ask(document_id=document["id"], lift={"ttft_budget_s": 60})
    assert adapter_id(within) == last.id  # what is there costs nothing; `max` would take too long
    patient = await front_end.ask(document_id=document["id"], lift={"ttft_budget_s": 100, "max_wait_s": 0})
    assert code(patient) == (409, "document_not_ready")
    assert (await worker.newest_job()).recipe == "max"


async def test_a_budget_that_nothing_keeps(front_end: Any, worker: Any, redis: Any, engine: Any) -> None:
    document = await front_end.upload(TEXT)
    await measured(redis, sketch=20)
    answer = await front_end.ask(document_id=document["id"], lift={"ttft_budget_s": 10})
    assert code(answer) == (409, "ttft_budget_unmet")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["param"] == "lift.ttft_budget_s"
    others = "balanced not measured yet, fast not measured yet, light not measured yet, max not measured yet"
    assert f"{others}, sketch 20 s" in answer.json()["error"]["message"]
    auto = await front_end.ask(document_id=document["id"], lift={"ttft_budget_s": 10, "mode": "auto"})
    assert auto.json()["lift"]["answered_from"] == "context"
    engine.window = 4
    assert code(await front_end.ask(document_id=document["id"], lift={"ttft_budget_s": 10, "mode": "auto"})) == (
        409,
        "ttft_budget_unmet",
    )


async def test_progress_of_the_version_waited_for_is_told(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    await worker.train("sketch")
    job = await worker.newest_job(REFINE)
    await worker.write(job.changed(progress=Progress("train", 0.25, 9.0)))
    answer = await front_end.ask(document_id=document["id"], lift={"recipe": "balanced", "max_wait_s": 0})
    assert code(answer) == (409, "document_not_ready")
    assert answer.headers["retry-after"] == "9"
    assert "about 9 s left" in answer.json()["error"]["message"]
    assert "'balanced' is not ready" in answer.json()["error"]["message"]
    assert "25% done" in answer.json()["error"]["message"]
