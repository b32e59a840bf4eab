"""/v1/uploads: a file in parts, as stock openai-python sends it, and every way it can go wrong."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from lift_config.contract import UPLOAD_OPEN_S, upload_redis_key
from lift_server import parts

TEXT = b"The lighthouse keeper of Orvel keeps eleven bees. " * 40
MD5 = hashlib.md5(TEXT, usedforsecurity=False).hexdigest()
UNKNOWN = "upload_" + "0" * 24


@pytest.fixture
async def client(front_end: Any) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@contextmanager
def refused(status: int, code: str, param: str | None) -> Iterator[None]:
    with pytest.raises(openai.APIStatusError) as raised:
        yield
    error = raised.value
    assert (error.status_code, error.code, error.param) == (status, code, param)


async def opened(client: AsyncOpenAI, size: int = len(TEXT), **more: Any) -> Any:
    given: dict[str, Any] = {
        "bytes": size, "filename": "orvel.txt", "mime_type": "text/plain", "purpose": "user_data", **more,
    }  # fmt: skip
    return await client.uploads.create(**given)


def stored(store: Path) -> list[Path]:
    """The parts that lie in the store."""
    return sorted(path for path in (store / "uploads").glob("**/*") if path.is_file())


async def test_upload_file_chunked(front_end: Any, client: AsyncOpenAI, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "orvel.md"
    path.write_bytes(TEXT)
    upload = await client.uploads.upload_file_chunked(
        file=path, mime_type="text/markdown", purpose="assistants", part_size=300, md5=MD5
    )
    assert (upload.object, upload.status, upload.bytes, upload.purpose) == (
        "upload", "completed", len(TEXT), "assistants",
    )  # fmt: skip
    assert upload.expires_at - upload.created_at in (UPLOAD_OPEN_S, UPLOAD_OPEN_S + 1)
    file = upload.file
    assert file is not None
    assert (file.filename, file.bytes, file.purpose, file.status) == ("orvel.md", len(TEXT), "assistants", "uploaded")
    assert (await client.files.content(file.id)).content == TEXT
    assert (await front_end.client.get(f"/v1/documents/{file.id}")).json()["sha256"] == hashlib.sha256(TEXT).hexdigest()
    assert stored(store) == []


async def test_parts_at_the_same_time_and_in_another_order(client: AsyncOpenAI) -> None:
    upload = await opened(client)
    thirds = [TEXT[:500], TEXT[500:900], TEXT[900:]]
    sent = await asyncio.gather(*(client.uploads.parts.create(upload.id, data=third) for third in reversed(thirds)))
    assert {(part.object, part.upload_id) for part in sent} == {("upload.part", upload.id)}
    part_ids = [part.id for part in reversed(sent)]
    completed = await client.uploads.complete(upload.id, part_ids=part_ids, md5=MD5.upper())
    assert completed.file is not None
    assert (await client.files.content(completed.file.id)).content == TEXT


async def test_what_may_come_with_it(front_end: Any, client: AsyncOpenAI) -> None:
    fields = {"title": "Orvel", "recipe": "fast", "metadata": {"team": "a"}}
    expires_after = {"anchor": "created_at", "seconds": 3600}
    upload = await opened(client, filename="dir/orvel.txt", expires_after=expires_after, extra_body=fields)
    assert upload.filename == "orvel.txt"
    part = await client.uploads.parts.create(upload.id, data=TEXT)
    file = (await client.uploads.complete(upload.id, part_ids=[part.id])).file
    assert file is not None
    document = (await front_end.client.get(f"/v1/documents/{file.id}")).json()
    assert (document["title"], document["metadata"]) == ("Orvel", {"team": "a"})
    assert document["expires_at"] - document["created_at"] in (3600, 3601)


async def test_a_part_that_is_sent_again(client: AsyncOpenAI, store: Path) -> None:
    """Its answer was lost, so the client names the later one only; how often is bounded by the announced bytes."""
    upload = await opened(client)
    again = [(await client.uploads.parts.create(upload.id, data=TEXT)).id for _ in range(3)]
    with refused(400, "invalid_value", "data"):
        await client.uploads.parts.create(upload.id, data=b"x")
    assert len(stored(store)) == 3
    completed = await client.uploads.complete(upload.id, part_ids=again[2:])
    assert completed.status == "completed"
    assert stored(store) == []


async def test_what_does_not_fit_together_can_be_mended(client: AsyncOpenAI) -> None:
    upload = await opened(client)
    first = (await client.uploads.parts.create(upload.id, data=TEXT[:510])).id
    for part_ids in ([first], [first, first], [first, "part_x"], [first, "../documents"], []):
        with refused(400, "invalid_value", "part_ids"):
            await client.uploads.complete(upload.id, part_ids=part_ids)
    second = (await client.uploads.parts.create(upload.id, data=TEXT[510:])).id
    with refused(400, "invalid_value", "md5"):
        await client.uploads.complete(upload.id, part_ids=[second, first], md5=MD5)
    with refused(400, "invalid_value", "md5"):
        await client.uploads.complete(upload.id, part_ids=[first, second], md5="secret")
    assert (await client.uploads.complete(upload.id, part_ids=[first, second], md5=MD5)).status == "completed"


async def test_parts_that_make_no_document(client: AsyncOpenAI, redis: Any, store: Path) -> None:
    """The upload stays open for others, or to be cancelled."""
    upload = await opened(client, 8)
    part = await client.uploads.parts.create(upload.id, data=b"\x89PNG\x00\x00\x00\x00")
    with refused(415, "unsupported_format", "part_ids"):
        await client.uploads.complete(upload.id, part_ids=[part.id])
    assert not await redis.keys("lift:doc*")
    assert (await client.uploads.cancel(upload.id)).status == "cancelled"
    assert stored(store) == []


async def test_after_its_end(client: AsyncOpenAI, store: Path) -> None:
    completed, cancelled = await opened(client), await opened(client)
    part = await client.uploads.parts.create(completed.id, data=TEXT)
    await client.uploads.parts.create(cancelled.id, data=TEXT)
    made = await client.uploads.complete(completed.id, part_ids=[part.id])
    assert await client.uploads.complete(completed.id, part_ids=[part.id]) == made  # as an SDK does: no answer had come
    for _ in range(2):  # the second time changes nothing
        assert (await client.uploads.cancel(cancelled.id)).model_dump() == {
            **cancelled.model_dump(), "status": "cancelled",
        }  # fmt: skip
    for upload in (completed, cancelled):
        with refused(409, "upload_not_pending", "upload_id"):
            await client.uploads.parts.create(upload.id, data=TEXT)
    with refused(409, "upload_not_pending", "upload_id"):
        await client.uploads.complete(cancelled.id, part_ids=[part.id])
    with refused(409, "upload_not_pending", "upload_id"):
        await client.uploads.cancel(completed.id)
    assert stored(store) == []
    assert len((await client.files.list()).data) == 1
    assert made.file is not None
    await client.files.delete(made.file.id)
    with refused(404, "document_not_found", "document_id"):
        await client.uploads.complete(completed.id, part_ids=[part.id])


async def test_completed_twice_at_once_it_is_one_document(client: AsyncOpenAI) -> None:
    upload = await opened(client)
    part = await client.uploads.parts.create(upload.id, data=TEXT)
    both = await asyncio.gather(
        *(client.uploads.complete(upload.id, part_ids=[part.id]) for _ in range(2)), return_exceptions=True
    )
    assert {"Upload"} <= {type(one).__name__ for one in both} <= {"ConflictError", "Upload"}  # an SDK asks again
    assert len((await client.files.list()).data) == 1


async def age(redis: Any, upload_id: str, **fields: Any) -> None:
    mapping = {name: json.dumps(value) for name, value in fields.items()}
    await redis.hset(upload_redis_key(upload_id), mapping=mapping)


async def test_expired_ones_and_those_of_others(client: AsyncOpenAI, redis: Any) -> None:
    expired, foreign = await opened(client), await opened(client)
    await age(redis, expired.id, created_s=time.time() - UPLOAD_OPEN_S)
    await age(redis, foreign.id, owner="another")
    cases = [
        (expired.id, 409, "upload_not_pending"),
        *((bad, 404, "upload_not_found") for bad in (foreign.id, UNKNOWN)),
    ]
    for upload_id, status, code in cases:
        with refused(status, code, "upload_id"):
            await client.uploads.parts.create(upload_id, data=TEXT * 1000)  # answered though not read
        with refused(status, code, "upload_id"):
            await client.uploads.complete(upload_id, part_ids=["part_1"])
        with refused(status, code, "upload_id"):
            await client.uploads.cancel(upload_id)


async def test_parts_left_behind_are_swept(front_end: Any, client: AsyncOpenAI, redis: Any, store: Path) -> None:
    upload = await opened(client)
    for half in (TEXT[:1000], TEXT[1000:]):
        await client.uploads.parts.create(upload.id, data=half)
    await redis.flushall()
    old, young = stored(store)
    hour_ago = time.time() - UPLOAD_OPEN_S - 1
    os.utime(old, (hour_ago, hour_ago))
    await parts.sweep(front_end.app.state.lift)
    assert stored(store) == [young]


async def test_nothing_of_it_stays_in_redis_for_ever(client: AsyncOpenAI, redis: Any) -> None:
    upload = await opened(client)
    await client.uploads.parts.create(upload.id, data=TEXT)
    keys = await redis.keys("lift:upload*")
    assert len(keys) == 3
    for key in keys:
        assert 0 < await redis.ttl(key) <= 2 * UPLOAD_OPEN_S


async def test_the_bounds(client: AsyncOpenAI, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_OPEN", 2)
    monkeypatch.setattr(parts, "MAX_PARTS", 2)
    first, second = await opened(client), await opened(client)
    with refused(429, "too_many_uploads", None):
        await opened(client)
    for _ in range(2):
        await client.uploads.parts.create(first.id, data=b"x")
    with refused(400, "invalid_value", "data"):
        await client.uploads.parts.create(first.id, data=b"x")
    await client.uploads.cancel(first.id)
    third = await opened(client)
    await redis.zadd("lift:uploads:default", {second.id: time.time() - 1})  # it expired
    await opened(client)
    assert third.status == "pending"


async def test_the_announced_size(start: Any, client: AsyncOpenAI) -> None:
    with refused(413, "too_large", "bytes"):
        await opened(client, 16 * 2**20 + 1)
    upload = await opened(client, 10)
    with pytest.raises(openai.APIStatusError, match="10 bytes") as raised:
        await client.uploads.parts.create(upload.id, data=b"x" * 11)
    assert (raised.value.status_code, raised.value.code) == (413, "too_large")


BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "no bytes": ({"bytes": None}, "bytes"),
    "zero bytes": ({"bytes": 0}, "bytes"),
    "negative bytes": ({"bytes": -1}, "bytes"),
    "bytes as text": ({"bytes": "100"}, "bytes"),
    "half a byte": ({"bytes": 1.5}, "bytes"),
    "no file name": ({"filename": ""}, "filename"),
    "a folder": ({"filename": "../"}, "filename"),
    "NUL as file name": ({"filename": "\0"}, "filename"),
    "file name of 10 kB": ({"filename": "x" * 10_000}, "filename"),
    "lone surrogate as file name": ({"filename": "\ud800"}, "filename"),
    "no media type": ({"mime_type": ""}, "mime_type"),
    "a purpose of others": ({"purpose": "batch"}, "purpose"),
    "unknown field": ({"colour": "red"}, "colour"),
    "unknown recipe": ({"recipe": "secret"}, "recipe"),
    "another base model": ({"base_model": "gpt-6"}, "base_model"),
    "expires too soon": ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
}


async def test_bad_fields(front_end: Any, redis: Any) -> None:
    good = {"bytes": 10, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}
    for name, (fields, param) in BAD_FIELDS.items():
        body = json.dumps(good | fields)
        answer = await front_end.client.post("/v1/uploads", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), name
    assert not await redis.keys("lift:upload*")


async def test_bad_bodies(front_end: Any, client: AsyncOpenAI) -> None:
    upload = await opened(client)
    post = front_end.client.post
    url = f"/v1/uploads/{upload.id}"
    cases = [
        (await post("/v1/uploads", content=b"{"), 400, "invalid_json"),
        (await post("/v1/uploads", files={"data": b"x"}), 415, "unsupported_media_type"),
        (await post("/v1/uploads", json={"x": "y" * 300_000}), 413, "too_large"),
        (await post(f"{url}/parts", json={}), 415, "unsupported_media_type"),
        (await post(f"{url}/parts", files={"file": b"x"}), 400, "invalid_value"),
        (await post(f"{url}/parts", files={"data": b""}), 400, "invalid_value"),
        (await post(f"{url}/parts", content=b"junk", headers={"Content-Type": "multipart/form-data"}), 400,
         "invalid_multipart"),
        (await post(f"{url}/complete", json={"part_ids": "part_1"}), 400, "invalid_value"),
        (await post(f"{url}/complete", json={"part_ids": [1]}), 400, "invalid_value"),
        (await post(f"{url}/complete", json={"part_ids": ["x" * 10_000]}), 400, "invalid_value"),
        (await post(f"{url}/complete", json={"part_ids": ["a"], "file": "b"}), 400, "unknown_parameter"),
        (await front_end.client.get(url), 404, "not_found"),
    ]  # fmt: skip
    for answer, status, code in cases:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), answer.text
        assert set(error) == {"message", "type", "param", "code"}


BAD_IDS = (UNKNOWN + "%0A", "upload_x", "x" * 10_000, "%00", "%2e%2e", "..%2f..%2fjobs", "..%5C..", "a%2Fb", "%ff", "*")


@pytest.mark.parametrize("bad", BAD_IDS, ids=lambda bad: bad[:30])
async def test_ids_that_are_none(front_end: Any, bad: str) -> None:
    for path in ("parts", "complete", "cancel"):
        answer = await front_end.client.post(f"/v1/uploads/{bad}/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) in (
            (404, "upload_not_found"), (404, "not_found"), (405, "method_not_allowed"),
        )  # fmt: skip
