"""/v1/documents/{id}/events: what a watcher is told, and when it is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, AsyncStream

from lift_config.contract import document_redis_key
from lift_server import events

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


class Watcher:
    """A client of the events of one document: data as objects, comments and [DONE] as text."""

    def __init__(self, front_end: Any, document_id: str, **query: str) -> None:
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.create_task(self._listen(front_end, document_id, query))

    async def told(self) -> Any:
        return await asyncio.wait_for(self._told.get(), 5)

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def ended(self) -> None:
        await asyncio.wait_for(self._task, 5)
        assert self._told.empty()

    async def _listen(self, front_end: Any, document_id: str, query: dict[str, str]) -> None:
        async with front_end.client.stream("GET", f"/v1/documents/{document_id}/events", params=query) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    self._told.put_nowait(json.loads(line.removeprefix("data: ")))
                elif line:
                    self._told.put_nowait(line)


def waiting(front_end: Any) -> int:
    """How many listen for changes."""
    return sum(map(len, front_end.app.state.lift.watcher._waiting.values()))


@pytest.fixture
def watch(front_end: Any) -> Any:
    return lambda document: Watcher(front_end, document["id"])


async def shown(front_end: Any, document: Any) -> Any:
    return (await front_end.client.get(f"/v1/documents/{document['id']}")).json()


async def test_every_change_until_nothing_more_comes(front_end: Any, worker: Any, watch: Any) -> None:
    document = await front_end.upload(TEXT)
    watcher = watch(document)
    assert await watcher.told() == document
    job = await worker.claim(await worker.newest_job())
    training = await watcher.told()
    assert (training["status"], training["progress"]["phase"]) == ("training", "train")
    await worker.publish(job, "fast")
    ready = await watcher.told()
    assert (ready["status"], ready["unfinished"], ready["adapter"]["recipe"]) == ("ready", True, "fast")
    await worker.publish(await worker.job(job.key))
    last = await watcher.told()
    assert (last["unfinished"], last["adapter"]["recipe"]) == (False, "balanced")
    assert last == await shown(front_end, document)
    assert await watcher.told() == "data: [DONE]"
    await watcher.ended()
    assert waiting(front_end) == 0


async def test_what_has_ended_is_told_once(front_end: Any, worker: Any, watch: Any) -> None:
    ready = await front_end.upload(TEXT)
    await worker.train()
    failed = await front_end.upload(TEXT + " And more.")
    await worker.fail(await worker.claim(await worker.newest_job()), "nothing to learn")
    cancelled = await front_end.upload(TEXT + " And still more.")
    await front_end.client.post(f"/v1/documents/{cancelled['id']}/cancel")
    for document, status in ((ready, "ready"), (failed, "failed"), (cancelled, "cancelled")):
        watcher = watch(document)
        assert (await watcher.told())["status"] == status
        assert await watcher.told() == "data: [DONE]"
        await watcher.ended()


async def test_a_cancel_ends_it(front_end: Any, watch: Any) -> None:
    document = await front_end.upload(TEXT)
    watcher = watch(document)
    await watcher.told()
    await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
    assert (await watcher.told())["status"] == "cancelled"
    assert await watcher.told() == "data: [DONE]"


async def test_a_deletion_ends_it_though_the_job_goes_on(front_end: Any, worker: Any, watch: Any) -> None:
    first, second = await front_end.upload(TEXT), await front_end.upload(TEXT)
    watchers = [watch(first), watch(second)]
    assert [await watcher.told() for watcher in watchers] == [first, second]
    await front_end.client.delete(f"/v1/documents/{first['id']}")
    assert await watchers[0].told() == {"id": first["id"], "object": "document.deleted", "deleted": True}
    assert await watchers[0].told() == "data: [DONE]"
    await worker.claim(await worker.newest_job())
    while isinstance(told := await watchers[1].told(), str):
        assert told == ": queued"  # something happened, to another document
    assert told["status"] == "training"
    await watchers[1].leave()


async def test_it_is_kept_alive(front_end: Any, watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RECHECK_S", 0.01)
    document = await front_end.upload(TEXT)
    watcher = watch(document)
    assert await watcher.told() == document
    assert [await watcher.told() for _ in range(3)] == [": queued"] * 3
    await watcher.leave()


async def test_many_watchers_are_one_subscription_and_those_that_go_are_noticed(
    front_end: Any, worker: Any, redis: Any, watch: Any
) -> None:
    document = await front_end.upload(TEXT)
    watchers = [watch(document) for _ in range(30)]
    for watcher in watchers:
        await watcher.told()
    assert (await redis.pubsub_numsub("lift:changed"))[0][1] == 1
    assert waiting(front_end) == 30
    for watcher in watchers[:29]:
        await watcher.leave()
    async with asyncio.timeout(1):
        while waiting(front_end) > 1:
            await asyncio.sleep(0)
    await worker.claim(await worker.newest_job())
    assert (await watchers[29].told())["status"] == "training"
    await watchers[29].leave()


async def test_what_breaks_is_told_as_an_event(front_end: Any, worker: Any, redis: Any, watch: Any) -> None:
    """The headers are gone."""
    document = await front_end.upload(TEXT)
    watcher = watch(document)
    await watcher.told()
    await redis.hset(document_redis_key(document["id"]), "created_s", "spoilt")
    await redis.publish("lift:changed", (await worker.newest_job()).key)
    assert (await watcher.told())["error"]["code"] == "internal_error"
    assert await watcher.told() == "data: [DONE]"
    await watcher.ended()


async def test_openai_python_reads_it(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    async with AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none", max_retries=0) as client:
        stream: AsyncIterator[Any] = await client.get(
            f"/documents/{document['id']}/events", cast_to=object, stream=True, stream_cls=AsyncStream[object]
        )
        statuses = []
        async for told in stream:
            statuses.append(told["status"])
            if told["status"] == "queued":
                await worker.train()
        assert (statuses[0], statuses[-1]) == ("queued", "ready")
