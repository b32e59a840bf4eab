"""A store that is read-only, full or hangs: requests end, what cannot be done is refused and leaves nothing, and what
needs no store goes on. A stand-in for S3, and a folder's own troubles."""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import s3 as stand_in
from tests.s3 import BUCKET, FakeS3, Trouble, writes

from lift_config.contract import CLOCK_PATH, STORE_ID_PATH
from lift_server import documents

TEXT = "The lighthouse at Varn Point was built in 1874."
OIL = "The lamp burns rapeseed oil."
WHOLE = {"filename": "a.txt", "purpose": "user_data", "bytes": len(OIL), "mime_type": "text/plain"}
UNAVAILABLE = (503, "store_unavailable")


def told(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeS3]:
    async with stand_in.serving() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        yield s3


@pytest.fixture
async def server(s3: FakeS3, front_end: Any, worker: Any, redis: Any, store: Path, start: Any) -> tuple[Any, str]:
    """A server on S3, and its trained document."""
    document = await front_end.upload(TEXT)
    await worker.train()
    await redis.delete("lift:jobs")
    await redis.set("lift:worker:a", "1")
    s3.take(store)
    return await start(store_url=f"s3://{BUCKET}"), document["id"]


def kept(s3: FakeS3) -> set[str]:
    return set(s3.objects) - {CLOCK_PATH, STORE_ID_PATH}


async def test_s3_serves_like_a_folder(server: tuple[Any, str], s3: FakeS3, worker: Any, start: Any) -> None:
    front_end, document_id = server
    added = await front_end.upload(OIL, title="The lamp")
    upload = (await front_end.client.post("/v1/uploads", json=WHOLE)).json()
    part = await front_end.client.post(f"/v1/uploads/{upload['id']}/parts", files={"data": OIL.encode()})
    completed = await front_end.client.post(
        f"/v1/uploads/{upload['id']}/complete", json={"part_ids": [part.json()["id"]]}
    )
    whole = completed.json()["file"]["id"]
    again = await start(store_url=f"s3://{BUCKET}")
    content = await again.client.get(f"/v1/files/{added['id']}/content")
    assert content.text == OIL
    assert (await again.client.get(f"/v1/files/{whole}/content")).text == OIL
    assert (await again.ask(document_id=document_id)).status_code == 200
    for one in (document_id, added["id"], whole):
        assert (await again.client.delete(f"/v1/documents/{one}")).status_code == 200
    assert not kept(s3)


async def test_a_read_only_store_takes_no_uploads_and_answers_questions(
    server: tuple[Any, str], s3: FakeS3, start: Any
) -> None:
    _, document_id = server
    s3.meets = writes(Trouble.REFUSED)
    front_end = await start(store_url=f"s3://{BUCKET}")  # it starts, too
    before = kept(s3)
    assert (await front_end.client.get("/ready")).json()["parts"]["writes"] is True  # nobody has tried yet
    upload = (await front_end.client.post("/v1/uploads", json=WHOLE)).json()
    for path, sent in (
        ("/v1/documents", {"json": {"text": OIL}}),
        (f"/v1/uploads/{upload['id']}/parts", {"files": {"data": b"abc"}}),
    ):
        assert told(await front_end.client.post(path, **sent)) == UNAVAILABLE, path
    assert kept(s3) == before
    assert (await front_end.ask(document_id=document_id)).status_code == 200
    ready = await front_end.client.get("/ready")
    assert (ready.status_code, ready.json()["parts"]["store"], ready.json()["parts"]["writes"]) == (200, True, False)


async def test_that_it_takes_writes_again_is_found_out_without_an_upload(server: tuple[Any, str], s3: FakeS3) -> None:
    front_end, _ = server
    records, before = front_end.app.state.lift.records, kept(s3)
    s3.meets = writes(Trouble.REFUSED)
    await front_end.client.post("/v1/documents", json={"text": OIL})
    s3.recover()
    await records.try_to_write()
    assert (await front_end.client.get("/ready")).json()["parts"]["writes"] is True
    assert kept(s3) == before


async def test_a_deletion_that_the_store_refuses_is_ended_by_the_sweep(server: tuple[Any, str], s3: FakeS3) -> None:
    front_end, document_id = server
    s3.meets = writes(Trouble.REFUSED)
    assert told(await front_end.client.delete(f"/v1/documents/{document_id}")) == UNAVAILABLE
    assert told(await front_end.ask(document_id=document_id)) == (404, "document_not_found")
    await documents.sweep(front_end.app.state.lift)
    assert kept(s3)
    s3.recover()
    await documents.sweep(front_end.app.state.lift)
    assert not kept(s3)
    assert (await front_end.client.get("/v1/documents")).json()["data"] == []


@pytest.mark.parametrize("folder", ["originals", "texts", "places", "documents", "jobs"])
async def test_an_upload_that_the_store_refuses_midway_leaves_nothing(
    server: tuple[Any, str], s3: FakeS3, start: Any, redis: Any, folder: str
) -> None:
    front_end, document_id = server
    before = kept(s3)
    s3.meets = writes(Trouble.REFUSED, folder)
    page = b"<h1>Oil</h1><p>The lamp burns oil.</p>"  # with a heading, so that it has places
    answer = await front_end.client.post("/v1/documents", files={"file": ("a.html", page)})
    assert told(answer) == UNAVAILABLE
    assert kept(s3) == before
    s3.recover()
    await redis.flushall()
    listed = (await (await start(store_url=f"s3://{BUCKET}")).client.get("/v1/documents")).json()["data"]
    assert [document["id"] for document in listed] == [document_id]


async def test_what_the_store_refuses_of_content_that_others_share_leaves_theirs(
    server: tuple[Any, str], s3: FakeS3, start: Any, redis: Any
) -> None:
    front_end, document_id = server
    before = kept(s3)
    s3.meets = writes(Trouble.REFUSED, "documents")
    assert told(await front_end.client.post("/v1/documents", json={"text": TEXT})) == UNAVAILABLE
    assert kept(s3) == before
    assert (await front_end.ask(document_id=document_id)).status_code == 200


# ---- a disk that is full ------------------------------------------------------------------------------------------


@contextmanager
def no_file_above(size_bytes: int) -> Iterator[None]:
    """Writing one ends there, as on a full disk: what was written of it until then is."""
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)


async def test_a_disk_that_gets_full_within_an_upload(front_end: Any, store: Path) -> None:
    document = await front_end.upload(TEXT)
    before = {path for path in store.rglob("*") if path.is_file()}
    with no_file_above(2**20):
        large = {"json": {"text": OIL * 2**16}}
        assert told(await front_end.client.post("/v1/documents", **large)) == UNAVAILABLE
        form = {"files": {"file": ("large.txt", OIL.encode() * 2**16)}}  # which is put into a file while it is read
        assert told(await front_end.client.post("/v1/documents", **form)) == (503, "store_full")
    assert {path for path in store.rglob("*") if path.is_file()} == before
    assert (await front_end.client.get(f"/v1/files/{document['id']}/content")).text == TEXT


# ---- a store that does not answer ---------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_server.store.ANSWER_S", 0.2)
    monkeypatch.setattr("lift_server.routes.operate.ANSWER_S", 0.2)


@pytest.mark.usefixtures("impatient")
async def test_requests_end_where_the_store_hangs(server: tuple[Any, str], s3: FakeS3) -> None:
    front_end, document_id = server
    s3.meets = lambda method, key: Trouble.HANGS
    for asked in (
        front_end.client.post("/v1/documents", json={"text": OIL}),
        front_end.client.get(f"/v1/files/{document_id}/content"),
        front_end.client.get(f"/v1/documents/{document_id}/adapter"),
        front_end.client.delete(f"/v1/documents/{document_id}"),
    ):
        assert told(await asked) == UNAVAILABLE
    assert s3.hanging.is_set()
    ready = await front_end.client.get("/ready")
    assert (ready.status_code, ready.json()["parts"]["store"], ready.json()["parts"]["writes"]) == (503, False, False)
    assert (await front_end.client.get("/metrics")).status_code == 200


@pytest.mark.usefixtures("impatient")
async def test_questions_need_no_store_that_hangs(server: tuple[Any, str], s3: FakeS3) -> None:
    front_end, document_id = server
    s3.meets = lambda method, key: Trouble.HANGS
    assert (await front_end.ask(document_id=document_id)).status_code == 200


@pytest.mark.usefixtures("impatient")
async def test_a_folder_that_hangs(front_end: Any, store: Path) -> None:
    """As on a file system that is away: whoever opens a pipe waits for somebody who writes."""
    document = await front_end.upload(TEXT)
    path = store / "originals" / document["id"]
    path.unlink()
    os.mkfifo(path)
    try:
        assert told(await front_end.client.get(f"/v1/files/{document['id']}/content")) == UNAVAILABLE
        assert (await front_end.client.get(f"/v1/documents/{document['id']}")).status_code == 200
    finally:
        os.close(os.open(path, os.O_RDWR))  # lets go of obstore's thread
