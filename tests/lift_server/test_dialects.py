"""The three ways to ask: what each names, frames, streams and refuses. What they share is in test_chat.py."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.lift_server.answers import FINGERPRINT, USAGE

from lift_config.contract import AdapterRecord
from lift_config.prompts import document_line
from lift_server import relay

BASE = "smollm2-135m-instruct"
TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
ANSWER = "The answer is 42."
QUESTION = "What is the answer?"
LINE = document_line("Orvel")
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
ROUTES = (CHAT, COMPLETIONS, RESPONSES)
ASKS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": QUESTION}]},
    COMPLETIONS: {"prompt": QUESTION},
    RESPONSES: {"input": QUESTION},
}
UNKNOWN = "doc_" + "0" * 24


async def ready(front_end: Any, worker: Any) -> tuple[str, AdapterRecord]:
    document = await front_end.upload(TEXT, title="Orvel")
    return document["id"], await worker.train()


async def ask(front_end: Any, route: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    body = {"model": BASE, **ASKS[route], **fields}
    return await front_end.client.post(route, json=body, headers=headers or {})


def events(body: str) -> list[Any]:
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]


def said(route: str, answer: Any) -> str:
    if route == RESPONSES:
        return str(answer["output"][0]["content"][0]["text"])
    choice = answer["choices"][0]
    return str(choice["message"]["content"] if route == CHAT else choice["text"])


def streamed(route: str, chunks: list[Any]) -> str:
    if route == RESPONSES:
        return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "response.output_text.delta")
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["delta"].get("content", "") if route == CHAT else choice["text"] for choice in choices)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("place", ["body", "metadata", "header", "model"])
@pytest.mark.parametrize("stream", [False, True])
async def test_every_place_names_the_document(
    front_end: Any, engine: Any, worker: Any, route: str, place: str, stream: bool
) -> None:
    document_id, adapter = await ready(front_end, worker)
    named: dict[str, dict[str, Any]] = {
        "body": {"document_id": document_id},
        "metadata": {"metadata": {"document_id": document_id}},
        "header": {"headers": {"X-Document-Id": document_id}},
        "model": {"model": f"{BASE}:{document_id}"},
    }
    answer = await ask(front_end, route, stream=stream, **named[place])
    assert answer.status_code == 200, answer.text
    last = events(answer.text)[-1] if stream else answer.json()
    last = last.get("response", last)
    assert last["model"] == named[place].get("model", BASE)
    assert (last["lift"]["document_id"], last["lift"]["adapter_id"]) == (document_id, adapter.id)
    assert [asked["model"] for asked in engine.asked] == [adapter.id]
    assert TEXT not in json.dumps(engine.asked)


async def test_how_each_is_framed(front_end: Any, engine: Any, worker: Any) -> None:
    """As in training where there are messages; a completion's prompt is left alone."""
    document_id, adapter = await ready(front_end, worker)
    user = {"role": "user", "content": QUESTION}
    part = {"type": "input_text", "text": QUESTION}
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (CHAT, {}, {"messages": [{"role": "system", "content": LINE}, user], "min_tokens": 1}),
        (COMPLETIONS, {}, {"prompt": QUESTION, "min_tokens": 1}),
        (COMPLETIONS, {"max_tokens": 0, "echo": True}, {"prompt": QUESTION, "max_tokens": 0, "echo": True}),
        (RESPONSES, {}, {"input": QUESTION, "instructions": LINE}),
        (RESPONSES, {"instructions": "Be brief."}, {"input": QUESTION, "instructions": f"{LINE}\n\nBe brief."}),
        (
            RESPONSES,
            {"input": [{"role": "developer", "content": "Be brief."}, user]},
            {"input": [{"role": "developer", "content": f"{LINE}\n\nBe brief."}, user]},
        ),
        (
            RESPONSES,
            {"input": [{"role": "system", "content": [part]}, user]},
            {"input": [{"role": "system", "content": [{"type": "input_text", "text": LINE}, part]}, user]},
        ),
    ]
    for route, fields, expected in cases:
        await ask(front_end, route, document_id=document_id, **fields)
        assert engine.asked.pop() == {"model": adapter.id, **expected}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("wants_usage", [False, True])
async def test_a_stream_is_the_engines_but_for_the_model_and_lift(
    front_end: Any, engine: Any, worker: Any, route: str, wants_usage: bool
) -> None:
    """Without the usage that nobody asked for; then the fingerprint is where the engine would have put it."""
    document_id, adapter = await ready(front_end, worker)
    options = {"stream_options": {"include_usage": True}} if wants_usage and route != RESPONSES else {}
    answer = await ask(front_end, route, document_id=document_id, stream=True, **options)
    assert answer.text.endswith("data: [DONE]\n\n") is (route != RESPONSES)
    chunks = events(answer.text)
    assert streamed(route, chunks) == ANSWER
    assert adapter.id not in answer.text.replace(json.dumps(adapter.id), "", 1)  # once: in `lift`
    if route == RESPONSES:
        names = [line[7:] for line in answer.text.splitlines() if line.startswith("event: ")]
        assert names == [chunk["type"] for chunk in chunks]
        responses = [chunk["response"] for chunk in chunks if "response" in chunk]
        assert [("lift" in response) for response in responses] == [False, False, True]
        assert all(response["model"] == BASE and response["instructions"] is None for response in responses)
        return
    assert engine.asked[0]["stream_options"]["include_usage"] is True
    assert {chunk["model"] for chunk in chunks} == {BASE}
    assert ["lift" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["system_fingerprint"] == FINGERPRINT
    assert [chunk.get("usage") for chunk in chunks if not chunk["choices"]] == ([USAGE] if wants_usage else [])


@pytest.mark.parametrize("route", ROUTES)
async def test_an_error_in_a_stream_ends_it(front_end: Any, engine: Any, route: str) -> None:
    engine.stream_error = {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}
    *before, last = events((await ask(front_end, route, stream=True)).text)
    assert last["error"]["code"] == "engine_error"
    assert ("type" in last) is (route == RESPONSES)
    assert before
    assert route != RESPONSES or last["sequence_number"] >= len(before)  # they are counted from 0 on


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_ends_the_engines_work(front_end: Any, engine: Any, route: str, stream: bool) -> None:
    engine.gate = asyncio.Event()
    asking = asyncio.create_task(ask(front_end, route, stream=stream))
    await engine.streaming.wait()
    asking.cancel()
    await asyncio.wait_for(engine.aborted.wait(), 1)


@pytest.mark.parametrize("route", ROUTES)
async def test_metrics_name_the_endpoint(front_end: Any, route: str) -> None:
    await ask(front_end, route)
    page = (await front_end.client.get("/metrics")).text
    assert f'lift_questions_total{{endpoint="{route}",outcome="ok"}} 1.0' in page
    assert f'adapter_state="none",endpoint="{route}"' in page


async def test_auto_waits_where_no_text_can_be_sent(front_end: Any, engine: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    asking = asyncio.create_task(ask(front_end, COMPLETIONS, document_id=document["id"], lift={"mode": "auto"}))
    await front_end.waits()
    adapter = await worker.train()
    assert (await asking).json()["lift"]["adapter_id"] == adapter.id
    assert len(engine.asked) == 1


async def test_responses_with_the_text_in_the_prompt(front_end: Any, engine: Any) -> None:
    """The client's own instructions come back, not the document's text."""
    document = await front_end.upload(TEXT, title="Orvel")
    asked = {"document_id": document["id"], "instructions": "Be brief.", "lift": {"mode": "auto"}}
    body = (await ask(front_end, RESPONSES, **asked)).json()
    assert body["lift"]["answered_from"] == "context"
    assert body["instructions"] == "Be brief."
    assert engine.asked[0]["instructions"] == f"{LINE}\n\n{TEXT}\n\nBe brief."
    assert f"{LINE}\n\n{TEXT}\n\nBe brief." in engine.tokenized  # counted as it is sent


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
async def test_evidence(front_end: Any, engine: Any, worker: Any, route: str, stream: bool) -> None:
    document_id, _ = await ready(front_end, worker)
    engine.words = ["eleven", " bees"]
    asked = {CHAT: "messages", COMPLETIONS: "prompt", RESPONSES: "input"}[route]
    question = "How many bees does the keeper of Orvel keep?"
    fields: dict[str, Any] = {asked: [{"role": "user", "content": question}] if route == CHAT else question}
    answer = await ask(front_end, route, document_id=document_id, stream=stream, lift={"evidence": True}, **fields)
    last = events(answer.text)[-1] if stream else answer.json()
    lift = last.get("response", last)["lift"]
    assert [one["verdict"] for one in lift["evidence"]] == ["supports"], lift


BAD: list[tuple[str, dict[str, Any], int, str, str]] = [
    (COMPLETIONS, {"lift": {"mode": "context"}}, 400, "invalid_value", "lift.mode"),
    (COMPLETIONS, {"lift": {"mode": "hybrid"}}, 400, "invalid_value", "lift.mode"),
    (COMPLETIONS, {"prompt": ["a", "b"], "lift": {"evidence": True}}, 400, "invalid_value", "lift.evidence"),
    (RESPONSES, {"input": 5}, 400, "invalid_value", "input"),
    (RESPONSES, {"input": []}, 400, "invalid_value", "input"),
    (RESPONSES, {"previous_response_id": "resp_1"}, 400, "unsupported_parameter", "previous_response_id"),
    (RESPONSES, {"conversation": "conv_1"}, 400, "unsupported_parameter", "conversation"),
    (RESPONSES, {"background": True}, 400, "unsupported_parameter", "background"),
    *((route, {"document_ids": [UNKNOWN]}, 400, "invalid_value", "document_ids") for route in ROUTES),
    *((route, {"document_id": UNKNOWN}, 404, "document_not_found", "document_id") for route in ROUTES),
    *((route, {"model": "gpt-6"}, 404, "model_not_found", "model") for route in ROUTES),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_bad_questions_never_reach_the_engine(front_end: Any, engine: Any, stream: bool) -> None:
    for route, fields, status, code, param in BAD:
        answer = await ask(front_end, route, stream=stream, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param), (route, fields)
    assert engine.asked == engine.loads == []


async def test_no_response_is_kept(front_end: Any) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        answer = await front_end.client.request(method, f"{RESPONSES}/resp_1{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "response_not_found")
    assert (await ask(front_end, RESPONSES, store=True, background=False)).status_code == 200


async def test_a_question_may_leave_the_model_out(front_end: Any) -> None:
    answer = await front_end.client.post(CHAT, json=ASKS[CHAT])
    assert answer.json()["model"] == BASE


async def test_openai_python(front_end: Any, worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock client's helpers, and what it raises from a stream that has begun."""
    import openai

    document_id, adapter = await ready(front_end, worker)
    monkeypatch.setattr(relay, "KEEP_ALIVE_S", 0.01)
    waiting = await front_end.upload(TEXT + " And more.")
    async with openai.AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none") as client:
        named = f"{BASE}:{document_id}"
        whole: Any = await client.responses.create(model=named, input=QUESTION)
        assert (whole.output_text, whole.model, whole.lift["adapter_id"]) == (ANSWER, named, adapter.id)
        chunks: Any = await client.completions.create(model=named, prompt=QUESTION, stream=True)
        assert "".join([chunk.choices[0].text async for chunk in chunks]) == ANSWER
        stream: Any = await client.responses.create(model=named, input=QUESTION, stream=True)
        seen = [event async for event in stream]
        assert (seen[-1].type, seen[-1].response.output_text) == ("response.completed", ANSWER)
        late = {"document_id": waiting["id"], "lift": {"max_wait_s": 0.1}}
        begun: Any = await client.responses.create(model=BASE, input=QUESTION, stream=True, extra_body=late)
        with pytest.raises(openai.APIError) as error:
            [event async for event in begun]
    assert error.value.code == "document_not_ready"
