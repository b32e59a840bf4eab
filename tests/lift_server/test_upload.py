"""Uploads: what becomes of good ones, and the clear refusal of every bad one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.lift_server import made_files

from lift_config.contract import text_path

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


def form(content: bytes, name: str = "notes.txt", **fields: str) -> dict[str, Any]:
    return {"files": {"file": (name, content)}, "data": fields}


async def test_a_text_becomes_a_queued_document(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT, title="Orvel", metadata={"team": "a"})
    assert document["id"].startswith("doc_")
    assert len(document["id"]) == 28
    assert document["object"] == "document"
    assert document["status"] == "queued"
    assert document["title"] == "Orvel"
    assert document["bytes"] == len(TEXT)
    assert document["metadata"] == {"team": "a"}
    assert document["adapter"] is None
    assert document["adapters"] == []
    assert document["error"] is None
    assert document["expires_at"] is None
    assert document["timeline"]["queue"] == {"start_s": 0.0, "end_s": None}
    assert document["progress"] == {
        "phase": "queue", "fraction": 0.0, "eta_s": None, "segments": 0, "tasks": 0, "steps": 0,
    }  # fmt: skip
    job = await worker.newest_job()
    assert (job.title, job.recipe, job.status.value) == ("Orvel", "balanced", "queued")


async def test_text_and_file_of_the_same_content_share_one_job(front_end: Any, redis: Any) -> None:
    """By file or by text, CRLF or LF, BOM or none, composed or not, UTF-16: one training."""
    text = "Das Café am Fluß öffnet um neun.\nEs schließt um zehn."
    await front_end.upload(text)
    variants = [
        text.encode(),
        b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        text.replace("é", "e\u0301").encode("utf-16"),
    ]
    for content in variants:
        answer = await front_end.client.post("/v1/documents", **form(content, "other.md"))
        assert answer.status_code == 200, answer.text
        assert answer.json()["bytes"] == len(content)
    assert await redis.xlen("lift:jobs") == 1
    listed = (await front_end.client.get("/v1/documents")).json()
    assert len({document["id"] for document in listed["data"]}) == 4


async def test_a_title_is_part_of_the_training_and_a_file_name_is_not(front_end: Any, redis: Any) -> None:
    for fields in ({}, {"title": "A"}, {"title": "B"}, {"title": "B"}):
        await front_end.client.post("/v1/documents", **form(TEXT.encode(), f"{len(fields)}.txt", **fields))
    assert await redis.xlen("lift:jobs") == 3


async def test_a_failed_job_is_queued_again_by_an_upload_and_a_ready_one_is_not(
    front_end: Any, worker: Any, redis: Any
) -> None:
    first = await front_end.upload(TEXT)
    claimed = await worker.claim(await worker.newest_job())
    await worker.fail(claimed, "nothing to learn")
    assert (await front_end.client.get(f"/v1/documents/{first['id']}")).json()["error"] == {
        "code": "no_tasks",
        "message": "nothing to learn",
    }
    again = await front_end.upload(TEXT)
    assert again["status"] == "queued"
    assert again["error"] is None
    assert await redis.xlen("lift:jobs") == 2
    job = await worker.newest_job()
    assert job.fence == claimed.fence  # claims stay fenced over a second life
    await worker.publish(await worker.claim(job))
    third = await front_end.upload(TEXT)
    assert third["status"] == "ready"
    assert third["adapters"][0]["ready_s"] == 0.0
    assert third["timeline"] == {}  # all of it lies before this upload
    assert await redis.xlen("lift:jobs") == 2


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_an_upload_takes_a_refinement_up_again(front_end: Any, worker: Any, redis: Any, end: str) -> None:
    document = await front_end.upload(TEXT)
    first = await worker.train("fast")
    assert (await front_end.upload(TEXT))["unfinished"] is True
    assert await redis.xlen("lift:jobs:refine") == 1  # it is under way
    if end == "failed":
        await worker.fail(await worker.newest_job("lift:jobs:refine"), "the trainer died")
    else:
        await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
    again = await front_end.upload(TEXT)
    assert (again["status"], again["unfinished"], again["error"]) == ("ready", True, None)
    assert again["adapter"]["id"] == first.id
    assert (await redis.xlen("lift:jobs"), await redis.zcard("lift:jobs:refine:turns")) == (0, 1)
    await worker.publish(await worker.newest_job("lift:jobs:refine"))
    assert (await front_end.upload(TEXT))["unfinished"] is False


WELL_FORMED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "given", [WELL_FORMED, "ff" + WELL_FORMED[2:], WELL_FORMED.upper(), f"00-{'0' * 32}-00f067aa0ba902b7-01", "x", ""]
)
async def test_the_trace_of_an_upload(front_end: Any, worker: Any, given: str) -> None:
    await front_end.client.post("/v1/documents", json={"text": TEXT}, headers={"traceparent": given})
    assert (await worker.newest_job()).traceparent == (given if given == WELL_FORMED else None)


async def test_form_fields(front_end: Any) -> None:
    fields = {
        "title": "Orvel",
        "recipe": "fast",
        "metadata": json.dumps({"a": "b"}),
        "expires_after": json.dumps({"anchor": "created_at", "seconds": 3600}),
        "base_model": "smollm2-135m-instruct",
    }
    answer = await front_end.client.post("/v1/documents", **form(TEXT.encode(), "dir/notes.md", **fields))
    document = answer.json()
    assert answer.status_code == 200, document
    assert document["filename"] == "notes.md"
    assert document["metadata"] == {"a": "b"}
    assert document["expires_at"] - document["created_at"] in (3600, 3601)
    content = await front_end.client.get(f"/v1/documents/{document['id']}/content")
    assert content.content == TEXT.encode()
    assert content.headers["content-type"] == "text/markdown; charset=utf-8"


BAD_FILES = {
    "empty": (b"", 400, "empty_document"),
    "whitespace": (b" \n\t ", 400, "empty_document"),
    "two words": (b"Hello world.", 400, "document_too_short"),
    "digits": (b"1 2 3 4 5", 400, "document_too_short"),
    "nine Han letters": ("灯塔守护人养了十一".encode(), 400, "document_too_short"),
    "half a utf-16 letter": ("The river is long.".encode("utf-16")[:-1], 400, "invalid_encoding"),
    "marks in a row": (("The river is long, e" + "\u0301\u0316" * 200).encode(), 400, "invalid_encoding"),
    "nul": (b"The river\x00 is long and wide.", 415, "unsupported_format"),
    "program": (b"\x7fELF\x02\x01\x01\x00 and so on", 415, "unsupported_format"),
    "an image": (b"\x89PNG and so on", 415, "unsupported_format"),
    "an old Office document": (b"\xd0\xcf\x11\xe0 and so on", 415, "unsupported_format"),
    "an encrypted Office document": (
        b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le"), 400, "encrypted_document",
    ),
    "an archive of pictures": (made_files.archive({"a.png": b"\x89PNG"}), 415, "unsupported_format"),
    "a damaged pdf": (b"%PDF-1.7 and so on", 400, "conversion_failed"),
    "a damaged docx": (b"PK\x03\x04 and so on", 400, "conversion_failed"),
    "an encrypted pdf": (made_files.pdf([], made_files.ENCRYPTED), 400, "encrypted_document"),
    "a scan": (made_files.pdf([[]]), 400, "no_text_layer"),
    "an empty docx": (made_files.docx(""), 400, "empty_document"),
    "a pdf of two words": (made_files.pdf([made_files.lines(["Two words."])]), 400, "document_too_short"),
}  # fmt: skip


async def test_bad_files(front_end: Any, redis: Any) -> None:
    for name, (content, status, code) in BAD_FILES.items():
        answer = await front_end.client.post("/v1/documents", **form(content))
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, "file"), name
        assert error["type"] == "invalid_request_error"
    assert set(await redis.keys("lift:*")) == {b"lift:whole", b"lift:store"}  # no GPU time, no trace


async def test_the_same_text_in_files_of_several_formats_trains_once(front_end: Any, redis: Any) -> None:
    """`bytes`, `sha256` and the content are the file's; a file is what its bytes say, whatever its name."""
    text = "Der Fluß ist lang."
    files = {
        "a.pdf": (made_files.pdf([made_files.lines([text])]), "application/pdf"),
        "b.pdf": (made_files.docx(made_files.paragraph(text)), "application/octet-stream"),
        "c.html": (f"<html><p>{text}</html>".encode(), "text/plain; charset=utf-8"),
        "c.odt": (made_files.opendocument("text", f"<text:p>{text}</text:p>"), "application/octet-stream"),
        "d.txt": (text.encode("latin-1"), "text/plain"),
        "e.md": (text.encode(), "text/markdown; charset=utf-8"),
    }
    for name, (content, media) in files.items():
        answer = await front_end.client.post("/v1/documents", **form(content, name))
        document = answer.json()
        assert answer.status_code == 200, document
        assert (document["bytes"], document["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        back = await front_end.client.get(f"/v1/documents/{document['id']}/content")
        assert (back.content, back.headers["content-type"]) == (content, media)
    assert await redis.xlen("lift:jobs") == 1


async def test_text_that_is_sent_as_text_is_never_converted(front_end: Any, worker: Any, store: Path) -> None:
    for text in ("<html><p>The horn is heard.", "WEBVTT\n\n00:01.000 --> 00:02.000\nThe horn is heard."):
        await front_end.upload(text)
        assert (store / text_path((await worker.newest_job()).key)).read_text() == text
    answer = await front_end.client.post("/v1/documents", json={"text": "%PDF-1.7 and so on"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_format")


async def test_short_texts_that_are_long_enough(front_end: Any) -> None:
    for text in ("Bees make honey.", "灯塔守护人养了十一只蜜", "ผู้ดูแลประภาคารเลี้ยงผึ้ง"):
        await front_end.upload(text)


BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"colour": "red"}, "colour"),
    "unknown recipe": ({"recipe": "secret"}, "recipe"),
    "recipe above the engine's rank": ({"recipe": "paper"}, "recipe"),
    "another base model": ({"base_model": "gpt-6"}, "base_model"),
    "title with control characters": ({"title": "a\nb"}, "title"),
    "title too long": ({"title": "a" * 513}, "title"),
    "lone surrogate in the title": ({"title": "\ud800"}, "title"),
    "metadata of numbers": ({"metadata": {"a": 1}}, "metadata.a"),
    "metadata too many": ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    "metadata too long": ({"metadata": {"a": "x" * 513}}, "metadata.a"),
    "lone surrogate in the metadata": ({"metadata": {"a": "\ud800"}}, "metadata.a"),
    "metadata no object": ({"metadata": "x"}, "metadata"),
    "expires too soon": ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
    "expires from elsewhere": ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
    "text is no text": ({"text": 7}, "text"),
    "lone surrogate in the text": ({"text": "The river \ud800 is long."}, "text"),
}


async def test_bad_fields(front_end: Any, redis: Any) -> None:
    for name, (fields, param) in BAD_FIELDS.items():
        body = json.dumps({"text": TEXT, **fields})  # httpx2 would not send a lone surrogate
        headers = {"Content-Type": "application/json"}
        answer = await front_end.client.post("/v1/documents", content=body, headers=headers)
        assert answer.status_code == 400, name
        assert answer.json()["error"]["param"] == param, name
    assert set(await redis.keys("lift:*")) == {b"lift:whole", b"lift:store"}


async def test_bad_bodies(front_end: Any) -> None:
    post = front_end.client.post
    json_type, form_type = {"Content-Type": "application/json"}, {"Content-Type": "multipart/form-data; boundary=x"}
    cases = [
        (await post("/v1/documents", content=b"{", headers=json_type), 400, "invalid_json"),
        (await post("/v1/documents", content=b"[]", headers=json_type), 400, "invalid_json"),
        (await post("/v1/documents", content=b"[" * 100_000, headers=json_type), 400, "invalid_json"),
        (await post("/v1/documents", content=b'{"text": NaN}', headers=json_type), 400, "invalid_json"),
        (await post("/v1/documents", content=b"\xff", headers=json_type), 400, "invalid_json"),
        (await post("/v1/documents", content=b"junk", headers=form_type), 400, "invalid_multipart"),
        (await post("/v1/documents", data={"title": "x"}, files={"other": b"x"}), 400, "invalid_value"),
        (await post("/v1/documents", **form(TEXT.encode(), metadata="{")), 400, "invalid_value"),
        (await post("/v1/documents", content=b"x"), 415, "unsupported_media_type"),
        (await post("/v1/documents", data={"text": "x"}), 415, "unsupported_media_type"),
        (await front_end.client.put("/v1/documents", json={}), 405, "method_not_allowed"),
        (await front_end.client.get("/v1/nothing"), 404, "not_found"),
        (await front_end.client.get("/v1/documents?limit=1000"), 400, "invalid_value"),
        (await front_end.client.get("/v1/documents?order=up"), 400, "invalid_value"),
        (await front_end.client.get("/v1/documents?after=doc_x"), 400, "invalid_value"),
    ]
    for answer, status, code in cases:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), answer.text
        assert set(error) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]


async def test_the_limit(start: Any) -> None:
    """By the announced length, while reading, and of the file itself; the message names the limit."""
    front_end = await start(server={"max_upload_bytes": 1000})

    async def parts() -> Any:
        for _ in range(100):
            yield b'{"text": "' + b"x" * 4096

    answers = [
        await front_end.client.post("/v1/documents", **form(b"word " * 100_000)),
        await front_end.client.post("/v1/documents", **form(b"word " * 201)),
        await front_end.client.post("/v1/documents", json={"text": "word " * 201}),
        await front_end.client.post("/v1/documents", content=parts(), headers={"Content-Type": "application/json"}),
    ]
    for answer in answers:
        assert answer.status_code == 413, answer.text
        assert answer.json()["error"]["code"] == "too_large"
    assert "1000 bytes" in answers[0].text
    small = made_files.docx(made_files.paragraph("The horn. " * 101))
    longer = await start(server={"max_upload_bytes": 2000})
    assert len(small) < 2000
    assert (await longer.client.post("/v1/documents", **form(small))).status_code == 200
    small = made_files.docx(made_files.paragraph("The horn. " * 201))
    answer = await longer.client.post("/v1/documents", **form(small))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert (await front_end.client.post("/v1/documents", **form(b"word " * 200))).status_code == 200
