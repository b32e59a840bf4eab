"""Several documents asked as one: the set, its training, and that it never outlives one of its documents."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.lift_server.holders import holder, keys_of

from lift_config.contract import DocumentRecord, document_redis_key, sets_redis_key
from lift_config.prompts import document_line
from lift_server import documents, recover
from lift_server.janitor import YOUNG_S, clean
from lift_server.recover import is_sound
from lift_server.schemas import MAX_SEVERAL

BASE = "smollm2-135m-instruct"
BEES, CRANES = "The lighthouse keeper of Orvel keeps eleven bees.", "The harbour of Lund has two cranes."
TEXT = f'Document "Harbour":\n\n{CRANES}\n\nDocument "Orvel":\n\n{BEES}'
UNKNOWN = "doc_" + "0" * 24
QUESTION = "What is the answer?"
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": QUESTION}]},
    "/v1/completions": {"prompt": QUESTION},
    "/v1/responses": {"input": QUESTION},
}
AT_ONCE = {"mode": "context"}  # answers without a training


async def two(front_end: Any, **fields: Any) -> list[str]:
    """Neither is trained."""
    orvel = await front_end.upload(BEES, title="Orvel", **fields)
    return [orvel["id"], (await front_end.upload(CRANES, title="Harbour"))["id"]]


async def made(front_end: Any, ids: list[str], **fields: Any) -> dict[str, Any]:
    answer = await front_end.client.post("/v1/documents", json={"document_ids": ids, **fields})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def shown(front_end: Any) -> list[str]:
    return [one["id"] for one in (await front_end.client.get("/v1/documents")).json()["data"]]


def files(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*/*") if path.is_file())


def holding(store: Path, words: str) -> list[str]:
    """The store's objects with these words in them."""
    return [name for name in files(store) if words.encode() in (store / name).read_bytes()]


# ---- asking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ASKS)
@pytest.mark.parametrize("stream", [False, True])
async def test_several_are_asked_as_one(front_end: Any, engine: Any, worker: Any, route: str, stream: bool) -> None:
    """None of them has to be trained by itself: their texts are enough."""
    ids = await two(front_end)
    body = {"model": BASE, **ASKS[route], "document_ids": ids, "stream": stream}
    asking = asyncio.create_task(front_end.client.post(route, json=body))
    await front_end.waits()
    set_id = (await shown(front_end))[0]
    adapter = await worker.train()
    answer = await asking
    assert answer.status_code == 200, answer.text
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    last = events[-1] if stream else answer.json()
    lift = last.get("response", last)["lift"]
    assert (lift["document_id"], lift["adapter_id"], lift["answered_from"]) == (set_id, adapter.id, "adapter")
    assert sorted(lift["document_ids"]) == sorted(ids)
    (asked,) = engine.asked
    assert "document_ids" not in asked
    line = document_line("Harbour; Orvel")
    assert (asked.get("messages") or [{"content": asked.get("instructions")}])[0]["content"] == (
        None if route == "/v1/completions" else line
    )


async def test_a_set_is_a_document(front_end: Any, worker: Any) -> None:
    ids = await two(front_end)
    document = await made(front_end, ids)
    assert (document["status"], document["title"], document["filename"]) == ("queued", "Harbour; Orvel", None)
    assert document["document_ids"] == ids[::-1]  # in the text's order
    assert (document["bytes"], document["unfinished"]) == (len(TEXT), True)
    path = f"/v1/documents/{document['id']}"
    assert (await front_end.client.get(f"{path}/content")).text == TEXT
    assert (await front_end.client.get(f"/v1/files/{document['id']}")).json()["status"] == "uploaded"
    assert (await front_end.client.post(f"{path}/cancel")).json()["status"] == "cancelled"
    refused = await front_end.ask(document_ids=ids)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "document_cancelled")
    again = await made(front_end, ids)  # as by any upload it is trained again
    assert again["status"] == "queued"
    adapter = await worker.train()
    for named in ({"document_ids": ids}, {"document_id": document["id"]}, {"model": f"{BASE}:{again['id']}"}):
        assert (await front_end.ask(**named)).json()["lift"]["adapter_id"] == adapter.id
    plain = (await front_end.client.get(f"/v1/documents/{ids[0]}")).json()
    assert plain["document_ids"] is None


async def test_the_same_ones_in_another_order_are_the_same_set(front_end: Any, worker: Any, redis: Any) -> None:
    ids = await two(front_end)
    document = await made(front_end, ids)
    await worker.train()
    for order in (ids, ids[::-1]):
        assert (await front_end.ask(document_ids=order)).json()["lift"]["document_id"] == document["id"]
    assert (await made(front_end, ids[::-1]))["status"] == "ready"  # announced twice it is trained once
    more = (await front_end.upload("The quay of Ostrand has nine cranes."))["id"]
    other = (await front_end.ask(document_ids=[*ids, more], lift=AT_ONCE)).json()["lift"]
    assert other["document_id"] not in (document["id"], *ids)
    assert len(other["document_ids"]) == 3


async def test_the_same_texts_are_one_training_whatever_their_ids(front_end: Any) -> None:
    first = await made(front_end, await two(front_end))
    again = await two(front_end)
    second = await made(front_end, again[::-1])
    records = front_end.app.state.lift.records
    jobs = {(await records.document(one["id"])).job_key for one in (first, second)}
    assert len(jobs) == 1


async def test_asked_by_many_at_once_it_is_made_once(front_end: Any) -> None:
    ids = await two(front_end)
    orders = [ids, ids[::-1]] * 4
    answers = await asyncio.gather(*(front_end.ask(document_ids=order, lift=AT_ONCE) for order in orders))
    assert len({answer.json()["lift"]["document_id"] for answer in answers}) == 1
    assert len(await shown(front_end)) == 3


@pytest.mark.parametrize("mode", ["context", "auto", "hybrid", "adapter"])
async def test_every_mode(front_end: Any, engine: Any, worker: Any, mode: str) -> None:
    ids = await two(front_end)
    if mode in ("adapter", "hybrid"):
        await made(front_end, ids)
        await worker.train()
    answer = await front_end.ask(document_ids=ids, lift={"mode": mode, "evidence": True})
    assert answer.status_code == 200, answer.text
    assert answer.json()["lift"]["answered_from"] == {"auto": "context"}.get(mode, mode)
    said = "\n".join(message["content"] for message in engine.asked[-1]["messages"])
    assert (BEES in said and CRANES in said) == (mode != "adapter")


async def test_stock_openai(front_end: Any, worker: Any) -> None:
    ids = await two(front_end)
    set_id = (await made(front_end, ids))["id"]
    await worker.train()
    async with openai.AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none") as client:
        messages: Any = [{"role": "user", "content": QUESTION}]
        named = {"document_ids": ids}
        answer = await client.chat.completions.create(model=BASE, messages=messages, extra_body=named)
        assert answer.model_extra["lift"]["document_id"] == set_id  # type: ignore[index]
        stream = await client.chat.completions.create(model=BASE, messages=messages, extra_body=named, stream=True)
        chunks: list[Any] = [chunk async for chunk in stream]
        assert chunks[-1].model_extra["lift"]["document_ids"] == ids[::-1]
        response = await client.responses.create(model=BASE, input=QUESTION, extra_body=named)
        assert response.model_extra["lift"]["document_id"] == set_id  # type: ignore[index]
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(
                model=BASE, messages=messages, extra_body={"document_ids": [ids[0], UNKNOWN]}
            )
        assert (unknown.value.code, unknown.value.param) == ("document_not_found", "document_ids.1")


async def test_a_recipe_asked_for_is_the_new_sets(front_end: Any, worker: Any) -> None:
    ids = await two(front_end)
    await front_end.ask(document_ids=ids, lift={"recipe": "fast", "max_wait_s": 0})
    assert (await worker.newest_job()).recipe == "fast"


async def test_of_another_base_model_it_is_made_anew(start: Any, worker: Any) -> None:
    before = await start(base_revision="old")
    ids = await two(before)
    old = await made(before, ids)
    await worker.train()
    after = await start(base_revision="new")
    assert (await after.ask(document_id=old["id"])).json()["error"]["code"] == "document_outdated"
    new = (await after.ask(document_ids=ids, lift=AT_ONCE)).json()["lift"]["document_id"]
    assert new != old["id"]
    assert (await worker.newest_job()).base_revision == "new"


# ---- its text and title -------------------------------------------------------------------------------------


async def test_evidence_can_say_which_document(front_end: Any, store: Path) -> None:
    """Each document's head is a heading among the set's places (places.py)."""
    await made(front_end, await two(front_end))
    (kept,) = (store / "places").iterdir()
    assert json.loads(kept.read_bytes()) == {"headings": [0, TEXT.index('Document "Orvel"')]}


async def test_documents_without_a_title(front_end: Any) -> None:
    """A file's name; else how the text begins."""
    form = {"file": ("bees.txt", BEES.encode())}
    named = (await front_end.client.post("/v1/documents", files=form)).json()["id"]
    long = "The harbour of Lund has two cranes, of which one was built before the other one was."
    ids = [named, (await front_end.upload(long))["id"]]
    document = await made(front_end, ids)
    assert document["title"] == "The harbour of Lund has two cranes, of …; bees.txt"
    text = (await front_end.client.get(f"/v1/documents/{document['id']}/content")).text
    assert text == f'Document "The harbour of Lund has two cranes, of …":\n\n{long}\n\nDocument "bees.txt":\n\n{BEES}'


async def test_a_title_of_ones_own_and_a_long_one_cut(front_end: Any) -> None:
    ids = [(await front_end.upload(f"{BEES} Number {n}.", title=f"{n} {'x' * 100}"))["id"] for n in range(5)]
    assert (await made(front_end, ids, title="All of Orvel"))["title"] == "All of Orvel"
    title = (await made(front_end, ids))["title"]
    assert title == f"0 {'x' * 77}…; 1 {'x' * 77}… and 3 more"


# ---- what is refused ----------------------------------------------------------------------------------------

OTHER = "doc_" + "1" * 24
BAD_IDS: dict[str, tuple[Any, int, str, str]] = {
    "one": ([UNKNOWN], 400, "invalid_value", "document_ids"),
    "none": ([], 400, "invalid_value", "document_ids"),
    "too many": ([f"doc_{n:024x}" for n in range(MAX_SEVERAL + 1)], 400, "invalid_value", "document_ids"),
    "twice": ([UNKNOWN, UNKNOWN], 400, "invalid_value", "document_ids"),
    "a string": (UNKNOWN, 400, "invalid_value", "document_ids"),
    "an object": ({"a": UNKNOWN}, 400, "invalid_value", "document_ids"),
    "a number in it": ([UNKNOWN, 5], 400, "invalid_value", "document_ids.1"),
    "unknown": ([UNKNOWN, OTHER], 404, "document_not_found", "document_ids.0"),
    "no ids": (["../../etc", "x" * 10_000], 404, "document_not_found", "document_ids.0"),
    "NUL": (["doc_\x00", OTHER], 404, "document_not_found", "document_ids.0"),
    "half a character": (["\ud800", OTHER], 404, "document_not_found", "document_ids.0"),
}


@pytest.mark.parametrize("name", BAD_IDS)
async def test_bad_ids(front_end: Any, engine: Any, name: str) -> None:
    given, *expected = BAD_IDS[name]
    bodies = [(route, {**ASKS[route], "stream": stream}) for route in ASKS for stream in (False, True)]
    for route, body in [*bodies, ("/v1/documents", {})]:
        content = json.dumps({**body, "document_ids": given})  # ASCII
        headers = {"Content-Type": "application/json"}
        answer = await front_end.client.post(route, content=content, headers=headers)
        error = answer.json()["error"]
        assert [answer.status_code, error["code"], error["param"]] == expected, (route, error)
        assert error["message"]
    assert engine.asked == await shown(front_end) == []


async def test_beside_another_name_of_a_document(front_end: Any, engine: Any) -> None:
    ids = await two(front_end)
    text = {"type": "text", "text": QUESTION}
    by_id, by_data = ({"type": "file", "file": file} for file in ({"file_id": ids[0]}, {"file_data": "VGhpcyBpcw=="}))
    ways: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"document_id": ids[0]}, {}),
        ({"metadata": {"document_id": ids[0]}}, {}),
        ({"model": f"{BASE}:{ids[0]}"}, {}),
        ({}, {"X-Document-Id": ids[0]}),
        *(({"messages": [{"role": "user", "content": [part, text]}]}, {}) for part in (by_id, by_data)),
    ]
    for fields, headers in ways:
        body = {**ASKS["/v1/chat/completions"], **fields, "document_ids": ids}
        answer = await front_end.client.post("/v1/chat/completions", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "document_ids"), fields
    assert engine.asked == []
    assert len(await shown(front_end)) == 2


async def test_a_set_is_no_part_of_another(front_end: Any) -> None:
    ids = await two(front_end)
    set_id = (await made(front_end, ids))["id"]
    answer = await front_end.ask(document_ids=[ids[0], set_id])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "document_ids.1")


async def test_what_goes_with_an_upload_goes_with_a_set(front_end: Any) -> None:
    ids = await two(front_end)
    for fields, param in (
        ({"text": BEES}, "text"), ({"recipe": "best"}, "recipe"), ({"base_model": "gpt-6"}, "base_model")
    ):  # fmt: skip
        answer = await front_end.client.post("/v1/documents", json={"document_ids": ids, **fields})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await made(front_end, ids, metadata={"a": "b"}))["metadata"] == {"a": "b"}


async def test_a_foreign_document_is_an_unknown_one(front_end: Any) -> None:
    a, b = await holder(front_end), await holder(front_end)
    of_a = (await a.upload(BEES)).json()["id"]
    of_b = (await b.upload(CRANES)).json()["id"]
    for path in (*ASKS, "/v1/documents"):
        foreign, unknown = [
            await b.call("POST", path, json={**ASKS.get(path, {}), "document_ids": [of_b, one]})
            for one in (of_a, UNKNOWN)
        ]
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json() == unknown.json()
    assert len((await b.get("/v1/documents")).json()["data"]) == 1


async def test_limits_hold_for_the_set(start: Any, engine: Any) -> None:
    front_end = await start(server={"max_upload_bytes": len(TEXT) - 1})
    answer = await front_end.ask(document_ids=await two(front_end))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    fits = await start(server={"max_upload_bytes": len(TEXT)})
    assert (await fits.ask(document_ids=await two(fits), lift=AT_ONCE)).status_code == 200


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"documents": 2}, "insufficient_quota"),
        ({"bytes": len(BEES + CRANES) + len(TEXT) - 1}, "insufficient_quota"),
        ({"training": 2}, "rate_limit_exceeded"),
    ],
)
async def test_quotas_hold_for_the_set(start: Any, store: Path, limits: dict[str, int], code: str) -> None:
    front_end = await start(limits=limits)
    ids = await two(front_end)
    before = files(store)
    for answer in (
        await front_end.ask(document_ids=ids, lift=AT_ONCE),
        await front_end.client.post("/v1/documents", json={"document_ids": ids}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, code)
    assert files(store) == before


# ---- a set never outlives one of its documents --------------------------------------------------------------


async def test_a_documents_deletion_deletes_its_sets(
    front_end: Any, worker: Any, engine: Any, redis: Any, store: Path
) -> None:
    ids = await two(front_end)
    third = (await front_end.upload("The quay of Ostrand has nine cranes."))["id"]
    set_id, kept = (await made(front_end, ids))["id"], (await made(front_end, [ids[1], third]))["id"]
    set_job = (await front_end.app.state.lift.records.document(set_id)).job_key
    adapter = await worker.publish(await worker.claim(await worker.job(set_job)))
    assert (await front_end.client.delete(f"/v1/documents/{ids[0]}")).status_code == 200
    assert await shown(front_end) == [kept, third, ids[1]]
    assert engine.removed == [adapter.id]
    assert (await front_end.ask(document_id=set_id)).status_code == 404
    assert (await front_end.ask(document_ids=ids)).json()["error"]["param"] == "document_ids.0"
    assert holding(store, "eleven bees") == []
    assert not [key for key in await redis.keys("lift:*") if ids[0] in key.decode() or set_id in key.decode()]
    for one in (ids[1], third):
        await front_end.client.delete(f"/v1/documents/{one}")
    assert files(store) == []
    assert set(await redis.keys("lift:*")) == {b"lift:whole", b"lift:store", b"lift:jobs", b"lift:bell"}


async def test_a_sets_deletion_leaves_its_documents(front_end: Any, redis: Any, store: Path) -> None:
    ids = await two(front_end)
    before, keys = files(store), set(await redis.keys("lift:*"))
    set_id = (await made(front_end, ids))["id"]
    await front_end.client.delete(f"/v1/documents/{set_id}")
    assert files(store) == before
    assert set(await redis.keys("lift:*")) == keys
    assert (await front_end.ask(document_ids=ids, lift=AT_ONCE)).json()["lift"]["document_id"] != set_id


async def test_of_two_sets_with_one_training_the_other_stays(front_end: Any, store: Path) -> None:
    """The same text was uploaded twice, and only one of the two is deleted."""
    ids, again = await two(front_end), (await front_end.upload(BEES, title="Orvel"))["id"]
    gone, kept = (await made(front_end, ids))["id"], (await made(front_end, [again, ids[1]]))["id"]
    await front_end.client.delete(f"/v1/documents/{ids[0]}")
    assert gone not in await shown(front_end)
    assert (await front_end.ask(document_id=kept, lift=AT_ONCE)).status_code == 200
    await front_end.client.delete(f"/v1/documents/{again}")
    assert holding(store, "eleven bees") == []


async def test_it_expires_with_the_first_of_its_documents(front_end: Any, redis: Any, store: Path) -> None:
    anchor = {"anchor": "created_at"}
    ids = await two(front_end, expires_after={**anchor, "seconds": 7200})
    part = (await front_end.client.get(f"/v1/documents/{ids[0]}")).json()
    document = await made(front_end, ids)
    assert document["expires_at"] == part["expires_at"]
    late = await made(front_end, ids, expires_after={**anchor, "seconds": 10_000})
    assert late["expires_at"] == part["expires_at"]
    early = await made(front_end, ids, expires_after={**anchor, "seconds": 3600})
    assert early["expires_at"] < part["expires_at"]
    state = front_end.app.state.lift
    record = dataclasses.replace(await state.records.document(ids[0]), expires_s=time.time() - 1)
    await redis.hset(document_redis_key(record.id), mapping=record.to_redis())
    await documents.sweep(state)
    assert await shown(front_end) == [ids[1]]
    assert holding(store, "eleven bees") == []


@pytest.mark.parametrize("is_whole", [True, False], ids=["deleted", "marked"])
async def test_a_set_made_while_its_document_is_deleted(
    front_end: Any, start: Any, redis: Any, store: Path, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    """All of the set is in the store already, and its documents were found to be there. A deletion that has only begun
    has looked for sets and found none. By another server: one waits for its own uploads of that owner."""
    ids = await two(front_end)
    state, other = front_end.app.state.lift, (await start()).app.state.lift
    keep = state.records._check_members

    async def checked_then_deleted(document: DocumentRecord) -> None:
        await keep(document)
        monkeypatch.setattr(state.records, "_check_members", keep)
        assert len(holding(store, "eleven bees")) == 4  # two originals, two texts
        if is_whole:
            await documents.delete(other, "default", ids[0])
        else:
            await other.records.expire(await other.records.document(ids[0]))
            assert await state.records.sets_of(ids[0]) == []

    monkeypatch.setattr(state.records, "_check_members", checked_then_deleted)
    answer = await front_end.client.post("/v1/documents", json={"document_ids": ids})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "document_not_found")
    await documents.sweep(state)
    assert await shown(front_end) == [ids[1]]
    assert holding(store, "eleven bees") == []
    assert not await redis.keys("lift:sets:*")


async def test_many_sets_and_deletions_at_once(front_end: Any, redis: Any, store: Path) -> None:
    for _ in range(5):
        ids = await two(front_end)
        asked = [front_end.client.post("/v1/documents", json={"document_ids": ids}) for _ in range(4)]
        answers = await asyncio.gather(*asked, front_end.client.delete(f"/v1/documents/{ids[0]}"))
        assert {answer.status_code for answer in answers} <= {200, 404}
        assert answers[-1].status_code == 200
        assert holding(store, "eleven bees") == []
        assert not await redis.keys("lift:sets:*")


@pytest.mark.parametrize("step", ["sets_of", "remove", "discard", "_remove_from_redis"])
async def test_the_sweep_ends_a_deletion_that_was_cut_off(
    front_end: Any, store: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ids = await two(front_end)
    await made(front_end, ids)

    async def cut_off(*_: object, **__: object) -> None:
        raise RedisConnectionError("Redis was killed")

    state = front_end.app.state.lift
    with monkeypatch.context() as patch:
        patch.setattr(state.records, step, cut_off)
        assert (await front_end.client.delete(f"/v1/documents/{ids[0]}")).status_code == 503
    assert (await front_end.client.post("/v1/documents", json={"document_ids": ids})).status_code == 404
    await documents.sweep(state)
    assert await shown(front_end) == [ids[1]]
    assert holding(store, "eleven bees") == []


async def test_a_lost_redis_is_rebuilt_with_its_sets(start: Any, worker: Any, redis: Any, store: Path) -> None:
    before = await start()
    ids = await two(before)
    set_id = (await made(before, ids))["id"]
    adapter = await worker.train()
    was = (await before.client.get(f"/v1/documents/{set_id}")).json()
    await redis.flushall()
    after = await start()
    assert (await after.client.get(f"/v1/documents/{set_id}")).json() == was
    lift = (await after.ask(document_ids=ids[::-1])).json()["lift"]
    assert (lift["document_id"], lift["adapter_id"]) == (set_id, adapter.id)
    await after.client.delete(f"/v1/documents/{ids[0]}")
    assert await shown(after) == [ids[1]]
    assert holding(store, "eleven bees") == []


async def test_what_is_left_of_a_set_without_one_of_its_documents_is_not_taken_up(
    start: Any, redis: Any, store: Path
) -> None:
    """Made while the document was deleted, and cut off before it could be undone."""
    before = await start()
    ids = await two(before)
    set_id = (await made(before, ids))["id"]
    for name in (f"documents/{ids[0]}.json", f"originals/{ids[0]}"):
        (store / name).unlink()
    await redis.flushall()
    after = await start()
    assert await shown(after) == [ids[1]]
    assert not await redis.exists(sets_redis_key(ids[0]), document_redis_key(set_id))
    old_s = time.time() - YOUNG_S - 1
    for name in files(store):
        os.utime(store / name, (old_s, old_s))
    await clean(after.app.state.lift.records)
    assert holding(store, "eleven bees") == []
    assert [name for name in files(store) if ids[1] in name] == [f"documents/{ids[1]}.json", f"originals/{ids[1]}"]


async def test_a_set_is_not_taken_up_while_its_document_is_deleted(
    front_end: Any, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another front end reads the store when a set is written there and not yet in Redis."""
    ids = await two(front_end)
    set_id = (await made(front_end, ids))["id"]
    await redis.delete(document_redis_key(set_id), *(sets_redis_key(one) for one in ids))
    state = front_end.app.state.lift

    async def sound_then_deleted(records: Any, document: DocumentRecord) -> bool:
        assert await is_sound(records, document)
        monkeypatch.setattr(recover, "is_sound", is_sound)
        await documents.delete(state, "default", ids[0])
        return True

    monkeypatch.setattr(recover, "is_sound", sound_then_deleted)
    await recover.recover(state.records, keys_of(front_end))
    assert recover.is_sound is is_sound
    assert not await redis.exists(document_redis_key(set_id), sets_redis_key(ids[0]))


async def test_a_set_is_not_taken_up_beside_a_document_that_is_going(front_end: Any) -> None:
    """A deletion marks it in Redis first."""
    ids = await two(front_end)
    records = front_end.app.state.lift.records
    record = await records.document((await made(front_end, ids))["id"])
    assert await is_sound(records, record)
    await records.expire(await records.document(ids[0]))
    assert not await is_sound(records, record)
