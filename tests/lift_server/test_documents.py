"""Documents after their upload: pages, content, cancel, delete, expiry; and what a deletion leaves behind."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from lift_config.contract import AdapterRecord, JobRecord, SynthesisUsage, document_redis_key, job_redis_key
from lift_server import documents, hotload

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


async def ready(front_end: Any, worker: Any, text: str = TEXT) -> tuple[str, AdapterRecord]:
    document = await front_end.upload(text)
    return document["id"], await worker.train()


def files(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*/*") if path.is_file())


async def test_a_ready_document(front_end: Any, worker: Any) -> None:
    document_id, adapter = await ready(front_end, worker)
    document = (await front_end.client.get(f"/v1/documents/{document_id}")).json()
    assert document["status"] == "ready"
    assert document["tokens"] == 11
    assert document["adapter"] == {
        "id": adapter.id, "version": 1, "base_model": "smollm2-135m-instruct",
        "recipe": "balanced", "rank": 16, "bytes": adapter.size_bytes,
    }  # fmt: skip
    (version,) = document["adapters"]
    assert version.pop("ready_s") > 0
    assert version == document["adapter"] | {"tasks": 12, "steps": 40}
    assert document["unfinished"] is False
    assert document["synthesis"] == {
        "requests": 0, "prompt_tokens": 0, "computed_prompt_tokens": 0, "generated_tokens": 0,
    }  # fmt: skip
    assert document["timeline"].keys() == {"queue", "train"}


async def test_progress_is_live(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    await worker.claim(await worker.newest_job())
    document = (await front_end.client.get(f"/v1/documents/{document['id']}")).json()
    assert document["status"] == "training"
    assert document["progress"] == {
        "phase": "train", "fraction": 0.5, "eta_s": 7.0, "segments": 3, "tasks": 12, "steps": 40,
    }  # fmt: skip
    assert document["timeline"]["train"]["end_s"] is None


async def test_pages(front_end: Any) -> None:
    ids = [(await front_end.upload(f"{TEXT} Number {n}."))["id"] for n in range(5)]
    get = front_end.client.get
    first = (await get("/v1/documents?limit=2")).json()
    assert [document["id"] for document in first["data"]] == [ids[4], ids[3]]
    assert (first["object"], first["first_id"], first["last_id"], first["has_more"]) == ("list", ids[4], ids[3], True)
    second = (await get(f"/v1/documents?limit=3&after={ids[3]}")).json()
    assert [document["id"] for document in second["data"]] == [ids[2], ids[1], ids[0]]
    assert second["has_more"] is False
    oldest = (await get("/v1/documents?order=asc&limit=100")).json()
    assert [document["id"] for document in oldest["data"]] == ids
    empty = (await get(f"/v1/documents?after={ids[0]}")).json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_content_is_the_original(front_end: Any) -> None:
    original = TEXT.replace(" ", "\r\n").encode("utf-16")
    answer = await front_end.client.post("/v1/documents", files={"file": ("a.txt", original)})
    content = await front_end.client.get(f"/v1/documents/{answer.json()['id']}/content")
    assert content.content == original
    assert content.headers["content-type"] == "text/plain; charset=utf-16"


async def test_unknown_and_malformed_ids(front_end: Any) -> None:
    for bad in ("doc_" + "0" * 24, "doc_x", "x" * 10_000, "doc_%00", "..%5C..", "%2e%2e"):
        for method, path in (("GET", ""), ("GET", "/content"), ("POST", "/cancel"), ("DELETE", "")):
            answer = await front_end.client.request(method, f"/v1/documents/{bad}{path}")
            assert answer.status_code == 404, (bad, method, path)
            assert answer.json()["error"]["code"] in ("document_not_found", "not_found")


async def test_cancel(front_end: Any, worker: Any, redis: Any, store: Path) -> None:
    document = await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    async with redis.pubsub() as changed:
        await changed.subscribe("lift:changed")
        for _ in range(2):  # the second time changes nothing
            answer = await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
            assert answer.json()["status"] == "cancelled"
        await changed.get_message(timeout=5)
        message = await changed.get_message(timeout=5)
        assert message["data"].decode() == job.key  # how the worker hears of it
    assert (await worker.job(job.key)).fence == job.fence
    assert '"cancelled"' in (store / f"jobs/{job.key}.json").read_text()


async def test_what_is_ready_cannot_be_cancelled(front_end: Any, worker: Any) -> None:
    document_id, _ = await ready(front_end, worker)
    answer = await front_end.client.post(f"/v1/documents/{document_id}/cancel")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "document_not_active")


async def test_the_way_from_the_first_version_to_the_last(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    usage = SynthesisUsage(requests=3, prompt_tokens=300, computed_prompt_tokens=40, generated_tokens=90)
    first = await worker.publish(job.changed(synthesis=usage), "fast")
    look = f"/v1/documents/{document['id']}"
    shown = (await front_end.client.get(look)).json()
    assert (shown["status"], shown["unfinished"], shown["adapter"]["id"]) == ("ready", True, first.id)
    assert shown["synthesis"] == dataclasses.asdict(usage)
    assert shown["timeline"]["refine"]["end_s"] is None
    last = await worker.publish(await worker.job(job.key))
    shown = (await front_end.client.get(look)).json()
    assert (shown["status"], shown["unfinished"], shown["adapter"]["id"]) == ("ready", False, last.id)
    assert [(version["version"], version["recipe"]) for version in shown["adapters"]] == [(1, "fast"), (2, "balanced")]


async def test_a_cheaper_version_that_comes_later_is_not_the_adapter(front_end: Any, worker: Any) -> None:
    document_id, best = await ready(front_end, worker)
    job = await worker.newest_job()
    await worker.publish(job, "fast")
    shown = (await front_end.client.get(f"/v1/documents/{document_id}")).json()
    assert [version["recipe"] for version in shown["adapters"]] == ["balanced", "fast"]
    assert shown["adapter"]["id"] == best.id


async def test_cancel_of_a_refinement(front_end: Any, worker: Any, redis: Any, store: Path) -> None:
    """The document stays what it is; the worker finds that nothing more is wanted."""
    document = await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    first = await worker.publish(job, "fast")
    cancel = f"/v1/documents/{document['id']}/cancel"
    async with redis.pubsub() as changed:
        await changed.subscribe("lift:changed")
        shown = (await front_end.client.post(cancel)).json()
        await changed.get_message(timeout=5)
        assert (await changed.get_message(timeout=5))["data"].decode() == job.key
    assert (shown["status"], shown["unfinished"], shown["adapter"]["id"]) == ("ready", False, first.id)
    assert shown["timeline"]["refine"]["end_s"] is not None
    stored = await worker.job(job.key)
    assert (stored.unfinished, stored.fence) == (False, job.fence)
    assert JobRecord.from_json((store / f"jobs/{job.key}.json").read_text()) == stored
    assert (await front_end.client.post(cancel)).json()["error"]["code"] == "document_not_active"
    assert (await front_end.ask(document_id=document["id"])).json()["lift"]["adapter_id"] == first.id


async def test_a_failed_refinement_shows_its_error(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    first = await worker.publish(job, "fast")
    await worker.fail(await worker.job(job.key), "the trainer died")
    shown = (await front_end.client.get(f"/v1/documents/{document['id']}")).json()
    assert (shown["status"], shown["unfinished"], shown["error"]["message"]) == ("ready", False, "the trainer died")
    assert (await front_end.ask(document_id=document["id"])).json()["lift"]["adapter_id"] == first.id


async def test_delete_of_a_document_with_several_versions(front_end: Any, worker: Any, engine: Any, store: Any) -> None:
    document = await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    first = await worker.publish(job, "fast")
    last = await worker.publish(await worker.job(job.key))
    await front_end.client.delete(f"/v1/documents/{document['id']}")
    assert sorted(engine.removed) == sorted([first.id, last.id])
    assert files(store) == []


async def test_delete_leaves_nothing(front_end: Any, worker: Any, redis: Any, engine: Any, store: Path) -> None:
    document_id, adapter = await ready(front_end, worker)
    answer = await front_end.client.delete(f"/v1/documents/{document_id}")
    assert answer.json() == {"id": document_id, "object": "document.deleted", "deleted": True}
    assert files(store) == []
    left = {
        b"lift:whole",
        b"lift:store",
        b"lift:jobs",
    }  # an entry in the stream: the worker that claims it finds no record
    assert set(await redis.keys("lift:*")) == left
    assert engine.removed == [adapter.id]
    for path in ("", "/content"):
        assert (await front_end.client.get(f"/v1/documents/{document_id}{path}")).status_code == 404
    assert (await front_end.client.delete(f"/v1/documents/{document_id}")).status_code == 404
    assert (await front_end.ask(document_id=document_id)).status_code == 404


async def test_delete_keeps_what_another_document_uses(front_end: Any, worker: Any, engine: Any, store: Path) -> None:
    first, adapter = await ready(front_end, worker)
    second = (await front_end.upload(TEXT))["id"]
    await front_end.client.delete(f"/v1/documents/{first}")
    assert engine.removed == []
    answer = await front_end.ask(document_id=second)
    assert answer.json()["lift"]["adapter_id"] == adapter.id
    await front_end.client.delete(f"/v1/documents/{second}")
    assert engine.removed == [adapter.id]
    assert files(store) == []


async def test_delete_of_a_document_in_training(front_end: Any, worker: Any, redis: Any, store: Path) -> None:
    """Its record goes, so nothing the worker still writes is accepted; the channel tells it."""
    document = await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    async with redis.pubsub() as changed:
        await changed.subscribe("lift:changed")
        await front_end.client.delete(f"/v1/documents/{document['id']}")
        await changed.get_message(timeout=5)
        message = await changed.get_message(timeout=5)
        assert message["data"].decode() == job.key
    assert not await redis.exists(job_redis_key(job.key))
    assert files(store) == []


async def test_delete_waits_for_the_answer_in_flight(
    front_end: Any, worker: Any, engine: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routing stops at once; the adapter goes after its last token. A folder gone too early kills vLLM."""
    monkeypatch.setattr(hotload, "REMOVAL_S", 0.01)
    document_id, adapter = await ready(front_end, worker)
    engine.gate = asyncio.Event()
    asking = asyncio.create_task(front_end.ask(document_id=document_id, stream=True))
    await engine.streaming.wait()
    assert (await front_end.client.delete(f"/v1/documents/{document_id}")).status_code == 200
    assert (await front_end.ask(document_id=document_id)).status_code == 404
    assert engine.removed == []
    assert any(name.startswith("adapters/") for name in files(store))
    (removal,) = front_end.app.state.lift.hotload._tasks
    engine.gate.set()
    assert "[DONE]" in (await asking).text
    await removal
    assert engine.removed == [adapter.id]
    assert files(store) == []


async def test_delete_without_an_engine(start: Any, worker: Any, store: Path) -> None:
    """The engine's own copy has to wait; nothing else does."""
    front_end = await start(engine={"urls": ["http://127.0.0.1:9"]})
    document_id, _ = await ready(front_end, worker)
    assert (await front_end.client.delete(f"/v1/documents/{document_id}")).status_code == 200
    assert files(store) == []


async def test_expired_documents_are_gone_at_once_and_swept_later(front_end: Any, redis: Any, store: Path) -> None:
    expires_after = {"anchor": "created_at", "seconds": 3600}
    kept = await front_end.upload(TEXT)
    document = await front_end.upload(TEXT + " And more.", expires_after=expires_after)
    state = front_end.app.state.lift
    record = await state.records.document(document["id"])
    record = dataclasses.replace(record, expires_s=time.time() - 1)
    await redis.hset(document_redis_key(record.id), mapping=record.to_redis())
    assert (await front_end.client.get(f"/v1/documents/{record.id}")).status_code == 404
    listed = (await front_end.client.get("/v1/documents")).json()
    assert [entry["id"] for entry in listed["data"]] == [kept["id"]]
    await documents.sweep(state)
    assert not await redis.exists(document_redis_key(record.id))
    assert [name for name in files(store) if name.startswith("documents/")] == [f"documents/{kept['id']}.json"]


@pytest.mark.parametrize("jumped_s", [-3600, 3600])
async def test_a_clock_that_jumped_deletes_nothing(
    front_end: Any, redis: Any, monkeypatch: pytest.MonkeyPatch, jumped_s: float
) -> None:
    """What has not expired is hidden while the clock is ahead, and there again when it is right."""
    document = await front_end.upload(TEXT, expires_after={"anchor": "created_at", "seconds": 3600})
    path, clock = f"/v1/documents/{document['id']}", time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jumped_s)
    assert (await front_end.client.get(path)).status_code == (404 if jumped_s > 0 else 200)
    await documents.sweep(front_end.app.state.lift)
    monkeypatch.setattr(time, "time", clock)
    assert (await front_end.client.get(path)).status_code == 200


@pytest.mark.parametrize("step", ["discard", "_remove_from_redis"])
async def test_the_sweep_ends_a_deletion_that_was_cut_off(
    front_end: Any, worker: Any, redis: Any, store: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before the store's record went, or after it: what is still shown must be what Redis could be rebuilt with."""
    document_id, _ = await ready(front_end, worker)

    async def cut_off(*_: object, **__: object) -> None:
        raise RedisConnectionError("Redis was killed")

    state = front_end.app.state.lift
    with monkeypatch.context() as patch:
        patch.setattr(state.records, step, cut_off)
        assert (await front_end.client.delete(f"/v1/documents/{document_id}")).status_code == 503
    assert (await front_end.client.get(f"/v1/documents/{document_id}")).status_code == 404
    await documents.sweep(state)
    assert not await redis.keys("lift:document:*")
    assert [name for name in files(store) if name.startswith(("documents/", "originals/"))] == []


async def test_one_that_cannot_be_deleted_keeps_no_other_from_being_swept(
    front_end: Any, redis: Any, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = front_end.app.state.lift
    ids = [(await front_end.upload(f"{TEXT} Number {number}."))["id"] for number in range(3)]
    for document_id in ids:
        await state.records.expire(await state.records.document(document_id))
    (store / f"originals/{ids[0]}").unlink()
    (store / f"originals/{ids[0]}/a").mkdir(parents=True)  # a folder: the store cannot delete it
    await documents.sweep(state)
    assert [name for name in files(store) if "doc_" in name] == []
    assert f"{ids[0]} has expired and was not deleted" in caplog.text


async def test_models(front_end: Any, worker: Any) -> None:
    base = "smollm2-135m-instruct"
    document_id, _ = await ready(front_end, worker)
    queued = await front_end.upload(TEXT + " And more.")
    listed = (await front_end.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [base, f"{base}:{document_id}"]
    assert (await front_end.client.get(f"/v1/models/{base}")).json()["id"] == base
    assert (await front_end.client.get(f"/v1/models/{base}:{document_id}")).json()["owned_by"] == "lift-serve"
    for unknown in (f"{base}:{queued['id']}", document_id, "gpt-6", "a/b"):
        answer = await front_end.client.get(f"/v1/models/{unknown}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_ready_wants_every_part(front_end: Any, redis: Any) -> None:
    assert (await front_end.client.get("/ready")).json() == {
        "ready": False,
        "parts": {
            "redis": True,
            "blobs": True,
            "store": True,
            "engines": [True],
            "workers": 0,
            "disk": True,
            "writes": True,
        },
    }
    await redis.set("lift:worker:a", "1")
    answer = await front_end.client.get("/ready")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


async def away(front_end: Any) -> list[str]:
    """The parts that do not answer; /ready itself always does."""
    answer = await front_end.client.get("/ready")
    told = answer.json()
    assert (answer.status_code, told["ready"]) == (503, False)
    return [name for name, answers in told["parts"].items() if answers is False]


async def test_ready_asks_the_redis_of_adapters(start: Any, redis: Any) -> None:
    """Also one that takes connections and never answers."""
    await redis.set("lift:worker:a", "1")

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as silent:
        for port in (9, silent.sockets[0].getsockname()[1]):
            assert await away(await start(redis={"blobs_url": f"redis://127.0.0.1:{port}"})) == ["blobs"]


async def test_ready_asks_the_store(front_end: Any, redis: Any, store: Path) -> None:
    await redis.set("lift:worker:a", "1")
    shutil.rmtree(store)
    store.write_text("no folder any more")
    assert await away(front_end) == ["store"]
