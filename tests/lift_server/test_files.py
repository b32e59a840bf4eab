"""/v1/files and /v1/models as stock openai-python calls them: a file is a document, and the other way round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from lift_config.contract import document_redis_key, job_redis_key

TEXT = b"The lighthouse keeper of Orvel keeps eleven bees."
BASE = "smollm2-135m-instruct"
# As they stand in a path: an encoded dot or slash is the server's to refuse, not the client's to take away.
BAD_IDS = (
    "doc_" + "0" * 24,
    "doc_" + "0" * 24 + "%0A",
    "doc_" + "A" * 24,
    "doc_x",
    "x" * 10_000,
    "doc_%00",
    "%2e%2e",
    "..%2f..%2foriginals",
    "..%5C..",
    "a%2Fb",
    "%ff%fe",
    "%F0%9F%90%9D",
    "*",
    "%20",
)


@pytest.fixture
async def client(front_end: Any) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@contextmanager
def refused(status: int, code: str, param: str | None) -> Iterator[None]:
    """By openai-python's exception for the status, with an envelope that says this."""
    with pytest.raises(openai.APIStatusError) as raised:
        yield
    error = raised.value
    assert (error.status_code, error.code, error.param) == (status, code, param)


async def create(client: AsyncOpenAI, content: bytes = TEXT, **more: Any) -> Any:
    given: dict[str, Any] = {"file": ("orvel.md", content), "purpose": "user_data", **more}
    return await client.files.create(**given)


async def test_a_file_is_a_document(front_end: Any, client: AsyncOpenAI) -> None:
    file = await create(client, purpose="assistants")
    assert file.id.startswith("doc_")
    assert file.model_dump() == {
        "id": file.id, "object": "file", "bytes": len(TEXT), "created_at": file.created_at, "expires_at": None,
        "filename": "orvel.md", "purpose": "assistants", "status": "uploaded", "status_details": None,
    }  # fmt: skip
    assert await client.files.retrieve(file.id) == file
    assert (await client.files.content(file.id)).content == TEXT
    document = (await front_end.client.get(f"/v1/documents/{file.id}")).json()
    assert (document["filename"], document["status"], document["created_at"]) == (
        "orvel.md", "queued", file.created_at,
    )  # fmt: skip


async def test_what_may_come_with_a_file(front_end: Any, client: AsyncOpenAI, worker: Any) -> None:
    """SDKs send objects key by key: `expires_after[seconds]`, `metadata[team]`."""
    file = await create(
        client,
        expires_after={"anchor": "created_at", "seconds": 3600},
        extra_body={"title": "Orvel", "recipe": "fast", "metadata": {"team": "a", "year": "7"}},
    )
    assert file.expires_at - file.created_at in (3600, 3601)
    document = (await front_end.client.get(f"/v1/documents/{file.id}")).json()
    assert (document["title"], document["metadata"]) == ("Orvel", {"team": "a", "year": "7"})
    assert (await worker.newest_job()).recipe == "fast"


async def test_wait_for_processing(client: AsyncOpenAI, worker: Any) -> None:
    waits = [
        asyncio.create_task(client.files.wait_for_processing((await create(client)).id, poll_interval=0.01))
        for _ in range(2)
    ]
    await worker.train()
    assert [(file.status, file.status_details) for file in await asyncio.gather(*waits)] == [("processed", None)] * 2


async def test_waiting_ends_where_the_training_ends_without_a_version(
    front_end: Any, client: AsyncOpenAI, worker: Any
) -> None:
    file = await create(client)
    await worker.fail(await worker.claim(await worker.newest_job()), "nothing to learn")
    failed = await client.files.wait_for_processing(file.id)
    assert (failed.status, failed.status_details) == ("error", "nothing to learn")
    file = await create(client, TEXT + b" And more.")
    await front_end.client.post(f"/v1/documents/{file.id}/cancel")
    cancelled = await client.files.wait_for_processing(file.id)
    assert (cancelled.status, cancelled.status_details) == ("error", "The training was cancelled.")


async def test_a_refinement_that_failed_is_no_error_of_the_file(client: AsyncOpenAI, worker: Any) -> None:
    file = await create(client)
    await worker.train("fast")
    await worker.fail(await worker.newest_job("lift:jobs:refine"), "the trainer died")
    found = await client.files.retrieve(file.id)
    assert (found.status, found.status_details) == ("processed", None)


async def test_pages(front_end: Any, client: AsyncOpenAI) -> None:
    """Documents uploaded elsewhere are files of purpose `user_data`."""
    ids = [(await create(client, TEXT + b" %d." % n, purpose="assistants")).id for n in range(4)]
    document = await front_end.upload("A text that came as JSON.")
    newest_first = [document["id"], *reversed(ids)]
    page = await client.files.list()
    assert [file.id for file in page.data] == newest_first
    assert page.has_more is False
    assert [file.id async for file in client.files.list(limit=2)] == newest_first  # three requests
    assert [file.id async for file in client.files.list(limit=3, order="asc")] == newest_first[::-1]
    only = [file.id async for file in client.files.list(limit=1, purpose="assistants")]
    assert only == newest_first[1:]
    (other,) = (await client.files.list(purpose="user_data")).data
    assert (other.id, other.filename, other.purpose) == (document["id"], f"{document['id']}.txt", "user_data")
    raw = (await front_end.client.get(f"/v1/files?limit=2&after={newest_first[0]}")).json()
    assert (raw["object"], raw["first_id"], raw["last_id"], raw["has_more"]) == ("list", ids[3], ids[2], True)
    empty = (await front_end.client.get("/v1/files?purpose=fine-tune")).json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_lists_read_of_a_job_what_they_tell(front_end: Any, client: AsyncOpenAI, redis: Any, worker: Any) -> None:
    """There may be ten thousand, and a record has its timeline, its versions and more."""
    document = await front_end.upload(TEXT.decode())
    job = await worker.newest_job()
    await worker.fail(job, "no task came of it")
    await redis.hdel(job_redis_key(job.key), "timeline", "synthesis", "progress", "adapters")
    (file,) = (await client.files.list()).data
    assert (file.id, file.status, file.status_details) == (document["id"], "error", "no task came of it")
    assert [model.id async for model in client.models.list()] == [BASE]


async def test_deleting_either_deletes_both(front_end: Any, client: AsyncOpenAI) -> None:
    first, second = await create(client), await create(client)
    deleted = await client.files.delete(first.id)
    assert deleted.model_dump() == {"id": first.id, "object": "file", "deleted": True}
    assert (await front_end.client.get(f"/v1/documents/{first.id}")).status_code == 404
    await front_end.client.delete(f"/v1/documents/{second.id}")
    for gone in (first.id, second.id):
        with refused(404, "document_not_found", "document_id"):
            await client.files.retrieve(gone)
    assert (await client.files.list()).data == []


async def test_a_document_of_version_0_1_is_a_file(front_end: Any, client: AsyncOpenAI, redis: Any) -> None:
    """Its record knows no purpose."""
    document = await front_end.upload("A text of long ago.")
    await redis.hdel(document_redis_key(document["id"]), "purpose")
    assert (await client.files.retrieve(document["id"])).purpose == "user_data"


BAD_FIELDS: dict[str, tuple[dict[str, str], str, str]] = {
    "no purpose": ({}, "invalid_value", "purpose"),
    "a purpose of others": ({"purpose": "fine-tune"}, "invalid_value", "purpose"),
    "an invented purpose": ({"purpose": "x" * 10_000}, "invalid_value", "purpose"),
    "unknown field": ({"purpose": "user_data", "colour": "red"}, "unknown_parameter", "colour"),
    "key of no object": ({"purpose": "user_data", "title[a]": "b"}, "unknown_parameter", "title[a]"),
    "key not closed": ({"purpose": "user_data", "metadata[a": "b"}, "unknown_parameter", "metadata[a"),
    "expires too soon": (
        {"purpose": "user_data", "expires_after[anchor]": "created_at", "expires_after[seconds]": "59"},
        "invalid_value", "expires_after.seconds",
    ),
    "expires never": (
        {"purpose": "user_data", "expires_after[anchor]": "created_at", "expires_after[seconds]": "never"},
        "invalid_value", "expires_after.seconds",
    ),
    "no anchor": ({"purpose": "user_data", "expires_after[seconds]": "3600"}, "invalid_value", "expires_after.anchor"),
    "metadata broken": ({"purpose": "user_data", "metadata": "{"}, "invalid_value", "metadata"),
    "metadata a list": ({"purpose": "user_data", "metadata": "[1]"}, "invalid_value", "metadata"),
    "metadata of 33 keys": (
        {"purpose": "user_data", **{f"metadata[{n}]": "x" for n in range(33)}}, "invalid_multipart", "",
    ),
    "metadata of 17 keys": (
        {"purpose": "user_data", **{f"metadata[{n}]": "x" for n in range(17)}}, "invalid_value", "metadata",
    ),
    "unknown recipe": ({"purpose": "user_data", "recipe": "../x"}, "invalid_value", "recipe"),
}  # fmt: skip


async def test_bad_fields(front_end: Any, redis: Any) -> None:
    for name, (fields, code, param) in BAD_FIELDS.items():
        answer = await front_end.client.post("/v1/files", files={"file": ("a.txt", TEXT)}, data=fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"] or "") == (400, code, param), name
    assert not await redis.keys("lift:doc*")


async def test_bad_requests(front_end: Any, client: AsyncOpenAI) -> None:
    with refused(400, "empty_document", "file"):
        await create(client, b"")
    with refused(415, "unsupported_format", "file"):
        await create(client, b"\x89PNG and so on")
    with refused(415, "unsupported_media_type", None):
        await client.post("/files", cast_to=object, body={"purpose": "user_data"})
    for query in ("limit=0", "limit=10001", "limit=x", "order=up", "after=doc_x", "after=%00", "purpose=secret"):
        answer = await front_end.client.get(f"/v1/files?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.split("=")[0])
    answer = await front_end.client.post("/v1/files", data={"purpose": "user_data"}, files={"other": b"x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    assert (await front_end.client.patch("/v1/files")).json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("bad", BAD_IDS, ids=lambda bad: bad[:30])
async def test_ids_that_are_none(front_end: Any, bad: str) -> None:
    paths = [("GET", f"/v1/files/{bad}"), ("GET", f"/v1/files/{bad}/content"), ("DELETE", f"/v1/files/{bad}")]
    paths += [("GET", f"/v1/documents/{bad}/adapter"), ("GET", f"/v1/documents/{bad}/events")]
    for method, path in paths:
        answer = await front_end.client.request(method, path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) in (
            (404, "document_not_found"), (404, "not_found"), (405, "method_not_allowed"),
        ), path  # fmt: skip
        assert "originals" not in error["message"]


async def test_too_large(start: Any) -> None:
    front_end = await start(server={"max_upload_bytes": 100})
    async with AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none", max_retries=0) as client:
        with refused(413, "too_large", None):
            await create(client, TEXT * 3)


# ---- /v1/models -------------------------------------------------------------------------------------------


async def test_models(start: Any, worker: Any) -> None:
    """Ids may have slashes; a picker finds a name to show."""
    front_end = await start(served_name="org/model:7b")
    async with AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none", max_retries=0) as client:
        titled = await create(client, extra_body={"title": "Bees of Orvel"})
        await worker.train()
        named = await create(client, TEXT + b" More.")
        await worker.train()
        await create(client, TEXT + b" Not ready.")
        models = [model async for model in client.models.list()]
        expected = ["org/model:7b", f"org/model:7b:{named.id}", f"org/model:7b:{titled.id}"]
        assert [model.id for model in models] == expected
        names = ["org/model:7b", "orvel.md", "Bees of Orvel"]
        assert [(model.to_dict()["name"], model.object, model.owned_by) for model in models] == [
            (name, "model", "lift-serve") for name in names
        ]
        for model in models:
            assert await client.models.retrieve(model.id) == model  # openai-python encodes the slash
            plain = await front_end.client.get(f"/v1/models/{model.id}")
            assert plain.json()["id"] == model.id
            encoded = model.id.replace("/", "%2F").replace(":", "%3A")
            assert (await front_end.client.get(f"/v1/models/{encoded}")).json()["id"] == model.id


@pytest.mark.parametrize("bad", [*BAD_IDS, "", f"{BASE}:", f"{BASE}:doc_x", f"{BASE}%2F", f"{BASE}:..%2f"])
async def test_models_that_are_none(front_end: Any, bad: str) -> None:
    answer = await front_end.client.get(f"/v1/models/{bad}")
    assert (answer.status_code, answer.json()["error"]["code"]) in ((404, "model_not_found"), (404, "not_found"))
    assert len(answer.content) < 1000
