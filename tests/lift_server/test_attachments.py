"""File parts: by id, or with their bytes, which are one document however often they are sent."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.lift_server.made_files import lines, pdf

from lift_config.prompts import frame
from lift_server.convert.converter import Converted, Converter
from lift_server.convert.kinds import Kind

BASE = "smollm2-135m-instruct"
TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
QUESTION = "What is the answer?"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
DATA = base64.b64encode(TEXT.encode()).decode()


def file_part(route: str, **fields: Any) -> dict[str, Any]:
    return {"type": "file", "file": fields} if route == CHAT else {"type": "input_file", **fields}


def text_part(route: str, text: str = QUESTION) -> dict[str, Any]:
    return {"type": "text" if route == CHAT else "input_text", "text": text}


async def ask(front_end: Any, route: str, *parts: Any, **more: Any) -> Any:
    messages = [{"role": "user", "content": list(parts)}, *more.pop("after", [])]
    body = {"model": BASE, "messages" if route == CHAT else "input": messages, **more}
    return await front_end.client.post(route, json=body)


async def documents(front_end: Any) -> list[str]:
    return [one["id"] for one in (await front_end.client.get("/v1/documents")).json()["data"]]


@pytest.mark.parametrize("route", [CHAT, RESPONSES])
@pytest.mark.parametrize("stream", [False, True])
async def test_by_id(front_end: Any, engine: Any, worker: Any, route: str, stream: bool) -> None:
    document = await front_end.upload(TEXT)
    adapter = await worker.train()
    part = file_part(route, file_id=document["id"])
    answer = await ask(front_end, route, part, text_part(route), stream=stream)
    assert answer.status_code == 200, answer.text
    assert document["id"] in answer.text
    (asked,) = engine.asked
    messages = [{"role": "user", "content": [text_part(route)]}]
    assert asked["model"] == adapter.id
    assert asked.get("messages" if route == CHAT else "input") == (frame(messages, None) if route == CHAT else messages)


@pytest.mark.parametrize("route", [CHAT, RESPONSES])
@pytest.mark.parametrize("data", [DATA, f"data:text/plain;base64,{DATA}"])
async def test_the_same_bytes_are_one_document(front_end: Any, engine: Any, worker: Any, route: str, data: str) -> None:
    """A client resends the part with every turn."""
    part = file_part(route, file_data=data, filename="bees.txt")
    asking = asyncio.create_task(ask(front_end, route, part, text_part(route)))
    await front_end.waits()
    adapter = await worker.train()
    first = (await asking).json()["lift"]
    turns = [{"role": "assistant", "content": "42"}, {"role": "user", "content": "And why?"}]
    again = (await ask(front_end, route, part, text_part(route), after=turns)).json()["lift"]
    assert first["document_id"] == again["document_id"]
    assert first["adapter_id"] == again["adapter_id"] == adapter.id
    assert await documents(front_end) == [first["document_id"]]
    looked = (await front_end.client.get(f"/v1/documents/{first['document_id']}")).json()
    assert (looked["filename"], looked["bytes"]) == ("bees.txt", len(TEXT))
    assert DATA not in json.dumps(engine.asked)


class CountingConverter(Converter):
    count = 0

    async def read(self, content: bytes, kind: Kind, *, owner: str, limit_bytes: int) -> Converted:
        self.count += 1
        return await super().read(content, kind, owner=owner, limit_bytes=limit_bytes)


async def test_a_pdf_that_comes_with_each_turn_is_converted_once(front_end: Any, engine: Any) -> None:
    """Once more where its document was deleted meanwhile."""
    converter = CountingConverter()
    front_end.app.state.lift = replace(front_end.app.state.lift, converter=converter)
    data = base64.b64encode(pdf([lines(["The horn is heard."])])).decode()
    part, lift = file_part(CHAT, file_data=f"data:application/pdf;base64,{data}"), {"mode": "context"}
    for _ in range(3):
        answer = await ask(front_end, CHAT, part, text_part(CHAT), lift=lift)
        assert answer.status_code == 200, answer.text
    assert "The horn is heard." in json.dumps(engine.asked[-1])
    assert converter.count == 1
    (document_id,) = await documents(front_end)
    await front_end.client.delete(f"/v1/documents/{document_id}")
    await ask(front_end, CHAT, part, text_part(CHAT), lift=lift)
    assert converter.count == 2
    assert len(await documents(front_end)) == 1


async def test_many_at_once_are_one_document(front_end: Any) -> None:
    part, lift = file_part(CHAT, file_data=DATA), {"mode": "context"}
    answers = await asyncio.gather(*(ask(front_end, CHAT, part, text_part(CHAT), lift=lift) for _ in range(5)))
    assert {answer.json()["lift"]["document_id"] for answer in answers} == set(await documents(front_end))
    assert len(await documents(front_end)) == 1


async def test_a_deleted_document_is_made_anew(front_end: Any) -> None:
    part, lift = file_part(CHAT, file_data=DATA), {"mode": "context"}
    first = (await ask(front_end, CHAT, part, text_part(CHAT), lift=lift)).json()["lift"]["document_id"]
    await front_end.client.delete(f"/v1/documents/{first}")
    again = (await ask(front_end, CHAT, part, text_part(CHAT), lift=lift)).json()["lift"]["document_id"]
    assert again != first
    assert await documents(front_end) == [again]


async def test_data_beside_an_id_must_be_that_document(front_end: Any, engine: Any) -> None:
    same, other = await front_end.upload(TEXT), await front_end.upload(TEXT + " And more.")
    part, lift = file_part(CHAT, file_data=DATA), {"mode": "context"}
    agreed = await ask(front_end, CHAT, part, text_part(CHAT), document_id=same["id"], lift=lift)
    assert agreed.json()["lift"]["document_id"] == same["id"]
    refused = await ask(front_end, CHAT, part, text_part(CHAT), document_id=other["id"], lift=lift)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0].content[0].file.file_data")
    assert len(engine.asked) == 1


async def test_a_large_file_is_no_large_question(start: Any) -> None:
    front_end = await start(server={"max_request_bytes": 1000, "max_upload_bytes": 3000})
    lift = {"mode": "context"}
    data = [base64.b64encode(TEXT.encode() * times).decode() for times in (50, 100)]
    fits = await ask(front_end, CHAT, file_part(CHAT, file_data=data[0]), text_part(CHAT), lift=lift)
    assert fits.status_code == 200, fits.text
    for parts in ((file_part(CHAT, file_data=data[1]), text_part(CHAT)), (text_part(CHAT, "x" * 2000),)):
        answer = await ask(front_end, CHAT, *parts, lift=lift)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


UNKNOWN, OTHER = "doc_" + "0" * 24, "doc_" + "1" * 24
GIF = base64.b64encode(b"GIF89a and so on").decode()
BAD: dict[str, tuple[list[dict[str, Any]], int, str]] = {
    "a URL": ([{"file_url": "http://example.com/a.txt"}], 400, "[0].file_url"),
    "neither": ([{"filename": "a.txt"}], 400, "[0]"),
    "both": ([{"file_id": UNKNOWN, "file_data": DATA}], 400, "[0]"),
    "an id that is a number": ([{"file_id": 5}], 400, "[0].file_id"),
    "data that is a number": ([{"file_data": 5}], 400, "[0].file_data"),
    "no base64": ([{"file_data": "not base64!"}], 400, "[0].file_data"),
    "a data URL without base64": ([{"file_data": "data:text/plain,hello"}], 400, "[0].file_data"),
    "a data URL without data": ([{"file_data": "data:text/plain;base64"}], 400, "[0].file_data"),
    "nothing in it": ([{"file_data": ""}], 400, "[0].file_data"),
    "a kind that is not read": ([{"file_data": GIF}], 415, "[0].file_data"),
    "an unknown id": ([{"file_id": UNKNOWN}], 404, "document_id"),
    "two ids": ([{"file_id": UNKNOWN}, {"file_id": OTHER}], 400, "document_id"),
    "two texts": ([{"file_data": DATA}, {"file_data": GIF}], 400, "[1].file_data"),
}


@pytest.mark.parametrize("route", [CHAT, RESPONSES])
async def test_bad_parts_cost_nothing(front_end: Any, engine: Any, route: str) -> None:
    place = "messages[0].content[{}].file" if route == CHAT else "input[0].content[{}]"
    for name, (files, status, param) in BAD.items():
        answer = await ask(front_end, route, *(file_part(route, **one) for one in files), text_part(route))
        error = answer.json()["error"]
        expected = place.format(param[1]) + param[3:] if param.startswith("[") else param
        assert (answer.status_code, error["param"]) == (status, expected), (name, error)
    assert engine.asked == await documents(front_end) == []


@pytest.mark.parametrize("route", [CHAT, RESPONSES])
async def test_a_message_of_nothing_but_a_file(front_end: Any, engine: Any, route: str) -> None:
    answer = await ask(front_end, route, file_part(route, file_data=DATA))
    param = "messages[0].content" if route == CHAT else "input[0].content"
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert engine.asked == await documents(front_end) == []


SYSTEM, USER, REPLY = ({"role": role, "content": role} for role in ("system", "user", "assistant"))
FILE = {"role": "user"}  # with the file for its content
SPLIT = [[FILE, USER], [SYSTEM, FILE, USER], [USER, FILE], [USER, REPLY, FILE, USER], [FILE, REPLY, USER]]
UNASKED = [[SYSTEM, FILE], [USER, REPLY, FILE], [FILE, FILE]]


@pytest.mark.parametrize("route", [CHAT, RESPONSES])
async def test_the_file_in_a_message_of_its_own(front_end: Any, engine: Any, route: str) -> None:
    """Some clients put the file before the question, not beside it."""
    key, content = "messages" if route == CHAT else "input", [file_part(route, file_data=DATA)]
    for messages in SPLIT:
        given = [one | {"content": content} if one is FILE else one for one in messages]
        asked = {"model": BASE, key: given, "lift": {"mode": "context"}}
        answer = await front_end.client.post(route, json=asked)
        assert answer.status_code == 200, (messages, answer.text)
        said = [one["content"] for one in engine.asked.pop()[key] if one["role"] != "system"]
        assert said == [one["content"] for one in messages if one is not FILE and one is not SYSTEM], messages
    for messages in UNASKED:
        given = [one | {"content": content} if one is FILE else one for one in messages]
        assert (await front_end.client.post(route, json={key: given})).status_code == 400, messages
    assert engine.asked == []


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_sent_again_it_is_trained_again(front_end: Any, worker: Any, engine: Any, how: str) -> None:
    """Whoever sends a document again wants it, as with any upload; it stays the one document."""
    part, text = file_part(CHAT, file_data=DATA), text_part(CHAT)
    first = asyncio.create_task(ask(front_end, CHAT, part, text))
    await front_end.waits()
    (document_id,) = await documents(front_end)
    if how == "failed":
        await worker.fail(await worker.newest_job(), "no task came of it")
    else:
        await front_end.client.post(f"/v1/documents/{document_id}/cancel")
    assert (await first).json()["error"]["code"] == f"document_{how}"
    by_text = await ask(front_end, CHAT, part, text, lift={"mode": "context"})
    assert by_text.json()["lift"]["answered_from"] == "context"
    look = f"/v1/documents/{document_id}"
    assert (await front_end.client.get(look)).json()["status"] == how  # a question that needs no training begins none

    again = asyncio.create_task(ask(front_end, CHAT, part, text))
    await front_end.waits()
    looked = (await front_end.client.get(look)).json()
    assert (looked["status"], looked["error"], looked["unfinished"]) == ("queued", None, True)
    adapter = await worker.train()
    lift = (await again).json()["lift"]
    assert (lift["document_id"], lift["adapter_id"]) == (document_id, adapter.id)
    assert await documents(front_end) == [document_id]


async def test_training_again_has_the_limits_of_an_upload(start: Any, worker: Any) -> None:
    front_end = await start(limits={"documents": 2, "training": 1})
    part, text, stop_waiting = file_part(CHAT, file_data=DATA), text_part(CHAT), {"max_wait_s": 0}
    await ask(front_end, CHAT, part, text, lift=stop_waiting)
    await worker.fail(await worker.newest_job(), "no task came of it")
    other = await front_end.upload("Another document is in training now.")
    refused = await ask(front_end, CHAT, part, text, lift=stop_waiting)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "training")
    await front_end.client.post(f"/v1/documents/{other['id']}/cancel")
    assert (await ask(front_end, CHAT, part, text, lift=stop_waiting)).json()["error"]["code"] == "document_not_ready"
    assert len(await documents(front_end)) == 2  # neither a third one, nor any lost by the refusal
