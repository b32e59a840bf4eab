"""Questions: where they are answered from, what a client is told, and what reaches the engine."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from lift_config.contract import AdapterRecord
from lift_config.prompts import frame
from lift_server import relay

BASE = "smollm2-135m-instruct"
TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
ANSWER = "The answer is 42."
ASKED: Any = [{"role": "user", "content": "What is the answer?"}]


async def ready(front_end: Any, worker: Any, **fields: Any) -> tuple[str, AdapterRecord]:
    document = await front_end.upload(TEXT, **fields)
    return document["id"], await worker.train()


def events(body: str) -> list[Any]:
    """The data of a stream, without comments; `[DONE]` checked and dropped."""
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(item) for item in data]


async def test_without_a_document_the_base_model_answers(front_end: Any, engine: Any) -> None:
    answer = await front_end.ask(temperature=0.2, tools=[{"x": 1}], unheard_of={"deep": [1.5]})
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == ANSWER
    assert body["model"] == BASE
    assert body["lift"].pop("ttft_s") > 0
    assert body["lift"].pop("phases").keys() == {"accept", "prefill"}
    assert body["lift"] == {
        "document_id": None, "adapter_id": None, "adapter_version": None, "answered_from": "base",
    }  # fmt: skip
    assert engine.asked == [
        {"model": BASE, "messages": ASKED, "temperature": 0.2, "tools": [{"x": 1}], "unheard_of": {"deep": [1.5]}}
    ]
    assert engine.loads == []


@pytest.mark.parametrize("from_", [BASE, "0" * 32 + "-" + "0" * 12])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_from_another_adapter_is_none(
    front_end: Any, engine: Any, worker: Any, from_: str, stream: bool
) -> None:
    document_id, _ = await ready(front_end, worker)
    engine.answers_from = from_
    answer = await front_end.ask(document_id=document_id, stream=stream)
    error = events(answer.text)[-1] if stream else answer.json()
    assert error["error"]["code"] == "engine_error"
    assert "42" not in answer.text


async def test_a_ready_document_is_answered_by_its_adapter(front_end: Any, engine: Any, worker: Any) -> None:
    document_id, adapter = await ready(front_end, worker, title="Orvel")
    answer = await front_end.ask(document_id=document_id, seed=7)
    body = answer.json()
    assert body["model"] == BASE
    lift = body["lift"]
    assert (lift["document_id"], lift["adapter_id"], lift["adapter_version"]) == (document_id, adapter.id, 1)
    assert lift["answered_from"] == "adapter"
    assert lift["phases"].keys() == {"accept", "load", "prefill"}
    assert "load;dur=" in answer.headers["server-timing"]
    assert engine.asked == [{"model": adapter.id, "messages": frame(ASKED, "Orvel"), "seed": 7, "min_tokens": 1}]
    assert TEXT not in json.dumps(engine.asked)


async def test_the_model_may_name_the_document(front_end: Any, engine: Any, worker: Any) -> None:
    document_id, adapter = await ready(front_end, worker)
    model = f"{BASE}:{document_id}"
    answer = await front_end.client.post("/v1/chat/completions", json={"model": model, "messages": ASKED})
    assert answer.json()["model"] == model
    assert answer.json()["lift"]["adapter_id"] == adapter.id
    assert engine.asked[0]["model"] == adapter.id


@pytest.mark.parametrize("place", ["metadata", "header"])
async def test_metadata_and_a_header_may_name_the_document(
    front_end: Any, engine: Any, worker: Any, place: str
) -> None:
    document_id, adapter = await ready(front_end, worker)
    named = {"metadata": {"document_id": document_id}} if place == "metadata" else {}
    headers = {"X-Document-Id": document_id} if place == "header" else {}
    body = {"model": BASE, "messages": ASKED, **named}
    answer = await front_end.client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.json()["lift"]["document_id"] == document_id
    assert engine.asked[0]["model"] == adapter.id


async def test_a_document_of_another_base_model_is_refused(start: Any, worker: Any, engine: Any) -> None:
    front_end = await start()
    document_id, _ = await ready(front_end, worker)
    changed = await start(base_revision="next")
    answer = await changed.ask(document_id=document_id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "document_outdated")
    assert engine.asked == []


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_stream_carries_lift_on_the_last_chunk_only(front_end: Any, worker: Any, include_usage: bool) -> None:
    document_id, adapter = await ready(front_end, worker)
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    answer = await front_end.ask(document_id=document_id, stream=True, **options)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "load;dur=" in answer.headers["server-timing"]
    chunks = events(answer.text)
    assert len(chunks) == (7 if include_usage else 6)  # as many as the engine sent
    assert {chunk["model"] for chunk in chunks} == {BASE}
    assert [("lift" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert text == ANSWER
    assert chunks[-1]["lift"]["adapter_id"] == adapter.id
    assert chunks[-1]["lift"]["phases"]["prefill"]["end_s"] <= chunks[-1]["lift"]["ttft_s"] + 0.05
    assert ("usage" in chunks[-1]) is include_usage


async def test_a_question_waits_for_its_adapter(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    asking = asyncio.create_task(front_end.ask(document_id=document["id"]))
    await front_end.waits()
    adapter = await worker.train()
    body = (await asking).json()
    assert body["lift"]["adapter_id"] == adapter.id
    assert "wait" in body["lift"]["phases"]
    assert 'adapter_state="training"' in (await front_end.client.get("/metrics")).text


async def test_a_waiting_stream_is_kept_alive_then_answered(
    front_end: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "KEEP_ALIVE_S", 0.05)
    document = await front_end.upload(TEXT)
    request = {"model": BASE, "messages": ASKED, "document_id": document["id"], "stream": True}
    async with front_end.client.stream("POST", "/v1/chat/completions", json=request) as answer:
        lines = answer.aiter_lines()
        assert answer.status_code == 200
        assert await anext(lines) == ": training"
        await worker.train()
        rest = "\n".join([line async for line in lines])
    lift = events(rest)[-1]["lift"]
    assert lift["answered_from"] == "adapter"
    assert {"queue", "train", "wait", "load", "prefill"} <= lift["phases"].keys()  # it saw them all happen
    assert 'adapter_state="training",endpoint="/v1/chat/completions"' in (await front_end.client.get("/metrics")).text


async def test_past_max_wait(front_end: Any, worker: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    document = await front_end.upload(TEXT)
    await worker.claim(await worker.newest_job())
    for stream, patience_s in ((False, 0), (True, 0), (False, 0.05), (True, 0.05)):
        answer = await front_end.ask(document_id=document["id"], lift={"max_wait_s": patience_s}, stream=stream)
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "document_not_ready"
        assert answer.headers["retry-after"] == "7"  # the job's own estimate
        assert answer.headers["x-should-retry"] == "false"
    monkeypatch.setattr(relay, "KEEP_ALIVE_S", 0.01)
    begun = await front_end.ask(document_id=document["id"], lift={"max_wait_s": 0.1}, stream=True)
    assert begun.status_code == 200
    assert events(begun.text)[-1]["error"]["code"] == "document_not_ready"
    assert engine.asked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_failed_and_cancelled_documents(front_end: Any, worker: Any, engine: Any, stream: bool) -> None:
    failed = await front_end.upload(TEXT)
    await worker.fail(await worker.newest_job(), "nothing to learn")
    cancelled = await front_end.upload(TEXT + " And more.")
    status = await front_end.client.post(f"/v1/documents/{cancelled['id']}/cancel")
    assert status.json()["status"] == "cancelled"
    for document, code in ((failed, "document_failed"), (cancelled, "document_cancelled")):
        answer = await front_end.ask(document_id=document["id"], stream=stream)
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == code
        assert answer.headers["x-should-retry"] == "false"
    assert engine.asked == engine.loads == []


async def test_a_document_that_fails_while_asked(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    asking = asyncio.create_task(front_end.ask(document_id=document["id"]))
    await front_end.waits()
    await worker.fail(await worker.claim(await worker.newest_job()), "nothing to learn")
    assert "nothing to learn" in (await asking).json()["error"]["message"]


async def test_mode_context_sends_the_text(front_end: Any, engine: Any) -> None:
    document = await front_end.upload(TEXT, title="Orvel")  # queued: it need not be trained
    body = (await front_end.ask(document_id=document["id"], lift={"mode": "context"})).json()
    assert body["lift"]["answered_from"] == "context"
    assert body["lift"]["adapter_id"] is None
    assert engine.asked == [{"model": BASE, "messages": frame(ASKED, "Orvel", TEXT)}]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_engines_errors_in_our_envelope(front_end: Any, engine: Any, stream: bool) -> None:
    too_long = "This model's maximum context length is 2048 tokens. However, you requested 5000."
    cases = [
        (
            (400, {"error": {"message": too_long, "type": "x", "param": "y", "code": 400}}),
            400,
            "context_length_exceeded",
        ),
        ((400, {"error": {"message": "bad tool", "type": "x", "param": None, "code": 400}}), 400, "invalid_request"),
        ((401, {"error": "Unauthorized"}), 502, "engine_error"),
        ((500, {"detail": "?"}), 502, "engine_error"),
    ]
    for error, status, code in cases:
        engine.error = error
        answer = await front_end.ask(stream=stream)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


async def test_an_engine_error_inside_a_stream(front_end: Any, engine: Any) -> None:
    engine.stream_error = {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}
    last = events((await front_end.ask(stream=True)).text)[-1]
    assert last["error"]["code"] == "engine_error"


async def test_no_engine(start: Any) -> None:
    front_end = await start(engine={"urls": ["http://127.0.0.1:9"]})
    for stream in (False, True):
        answer = await front_end.ask(stream=stream)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_unavailable"
        assert int(answer.headers["retry-after"]) > 0
    assert (await front_end.client.get("/health")).status_code == 200
    ready = await front_end.client.get("/ready")
    assert (ready.status_code, ready.json()["parts"]["engines"]) == (503, [False])


async def test_an_adapter_the_engine_cannot_find(front_end: Any, engine: Any, worker: Any) -> None:
    document_id, _ = await ready(front_end, worker)
    engine.known.clear()
    answer = await front_end.ask(document_id=document_id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "adapter_unavailable")
    assert engine.asked == []


UNKNOWN = "doc_" + "0" * 24
BAD: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "unknown document": ({"document_id": UNKNOWN}, 404, "document_not_found", "document_id"),
    "malformed id": ({"document_id": "../../etc"}, 404, "document_not_found", "document_id"),
    "id with NUL": ({"document_id": UNKNOWN + "\0"}, 404, "document_not_found", "document_id"),
    "id with a line end": ({"document_id": UNKNOWN + "\n"}, 404, "document_not_found", "document_id"),
    "huge id": ({"document_id": "doc_" + "a" * 10_000}, 404, "document_not_found", "document_id"),
    "id is a number": ({"document_id": 5}, 400, "invalid_value", "document_id"),
    "two documents": (
        {"document_id": UNKNOWN, "model": f"{BASE}:doc_{'1' * 24}"}, 400, "invalid_value", "document_id",
    ),
    "two documents, one in metadata": (
        {"document_id": UNKNOWN, "metadata": {"document_id": f"doc_{'1' * 24}"}}, 400, "invalid_value", "document_id",
    ),
    "id in metadata is a number": ({"metadata": {"document_id": 5}}, 400, "invalid_value", "metadata.document_id"),
    "unknown document as model": ({"model": f"{BASE}:{UNKNOWN}"}, 404, "document_not_found", "document_id"),
    "unknown model": ({"model": "gpt-6"}, 404, "model_not_found", "model"),
    "malformed id as model": ({"model": f"{BASE}:../x"}, 404, "model_not_found", "model"),
    "adapter id as model": ({"model": f"{'a' * 32}-{'b' * 12}"}, 404, "model_not_found", "model"),
    "model is a number": ({"model": 5}, 400, "invalid_value", "model"),
    "no messages": ({"messages": []}, 400, "invalid_value", "messages"),
    "messages are text": ({"messages": "hi"}, 400, "invalid_value", "messages"),
    "stream is text": ({"stream": "yes"}, 400, "invalid_value", "stream"),
    "lift is text": ({"lift": "adapter"}, 400, "invalid_value", "lift"),
    "unknown mode": ({"lift": {"mode": "magic"}}, 400, "invalid_value", "lift.mode"),
    "evidence is text": ({"lift": {"evidence": "yes"}}, 400, "invalid_value", "lift.evidence"),
    "evidence is a number": ({"lift": {"evidence": 1}}, 400, "invalid_value", "lift.evidence"),
    "unknown recipe": ({"lift": {"recipe": "magic"}}, 400, "invalid_value", "lift.recipe"),
    "recipe is a number": ({"lift": {"recipe": 5}}, 400, "invalid_value", "lift.recipe"),
    "recipe above the engine's rank": ({"lift": {"recipe": "paper"}}, 400, "invalid_value", "lift.recipe"),
    "recipe without an adapter": (
        {"lift": {"recipe": "fast", "mode": "context"}}, 400, "invalid_value", "lift.recipe",
    ),
    "budget without an adapter": (
        {"lift": {"ttft_budget_s": 5, "mode": "context"}}, 400, "invalid_value", "lift.ttft_budget_s",
    ),
    "recipe and budget": (
        {"lift": {"recipe": "fast", "ttft_budget_s": 5}}, 400, "invalid_value", "lift.ttft_budget_s",
    ),
    "no time at all": ({"lift": {"ttft_budget_s": 0}}, 400, "invalid_value", "lift.ttft_budget_s"),
    "unknown lift field": ({"lift": {"colour": 1}}, 400, "unknown_parameter", "lift.colour"),
    "negative patience": ({"lift": {"max_wait_s": -1}}, 400, "invalid_value", "lift.max_wait_s"),
    "patience is text": ({"lift": {"max_wait_s": "long"}}, 400, "invalid_value", "lift.max_wait_s"),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_bad_questions_never_reach_the_engine(front_end: Any, engine: Any, stream: bool) -> None:
    for name, (fields, status, code, param) in BAD.items():
        request = {"model": BASE, "messages": ASKED, "stream": stream, **fields}
        answer = await front_end.client.post("/v1/chat/completions", json=request)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param), name
    assert engine.asked == engine.loads == []


PACKED = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
BAD_BODIES: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "packed": (gzip.compress(b"{}"), PACKED, 415, "unsupported_media_type"),
    "a number above all numbers": (b'{"temperature": 1e999, "messages": [{}]}', {}, 400, "invalid_json"),
    "no number": (b'{"temperature": NaN, "messages": [{}]}', {}, 400, "invalid_json"),
    "nested too deep": (b'{"messages": ' + 100_000 * b"[" + 100_000 * b"]" + b"}", {}, 400, "invalid_json"),
    "too many digits": (b'{"seed": ' + 5000 * b"9" + b"}", {}, 400, "invalid_json"),
}


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/documents", "/v1/embeddings"])
async def test_bodies_that_cannot_be_read(front_end: Any, engine: Any, route: str) -> None:
    for name, (body, headers, status, code) in BAD_BODIES.items():
        answer = await front_end.client.post(
            route, content=body, headers={"Content-Type": "application/json"} | headers
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), name
    assert engine.asked == engine.passed == []


async def test_null_is_the_same_as_nothing(front_end: Any, engine: Any, worker: Any) -> None:
    """Clients that are generated, or that people wrote, send it for what they were not told."""
    uploaded = dict.fromkeys(("title", "recipe", "metadata", "expires_after", "base_model"))
    document_id, adapter = await ready(front_end, worker, **uploaded)
    lift = dict.fromkeys(("mode", "max_wait_s", "recipe", "ttft_budget_s", "evidence"))
    named = {"document_id": document_id, "metadata": None, "model": None, "stream": None, "document_ids": None}
    answer = await front_end.ask(**named, lift=lift)
    assert answer.status_code == 200, answer.text
    assert answer.json()["lift"]["adapter_id"] == adapter.id
    nothing = {"document_id": None, "metadata": {"document_id": None}, "lift": None, "cache_salt": None}
    assert (await front_end.ask(**nothing)).json()["lift"]["answered_from"] == "base"


async def test_a_body_that_says_it_is_not_packed(front_end: Any) -> None:
    body, headers = b'{"messages": [{}]}', {"Content-Encoding": "identity"}
    assert (await front_end.client.post("/v1/chat/completions", content=body, headers=headers)).status_code == 200


async def test_a_body_above_the_limit(start: Any) -> None:
    front_end = await start(server={"max_request_bytes": 1000})
    answer = await front_end.ask("x" * 2000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_ends_the_engines_work(front_end: Any, engine: Any, stream: bool) -> None:
    engine.gate = asyncio.Event()
    asking = asyncio.create_task(front_end.ask(stream=stream))
    await engine.streaming.wait()
    asking.cancel()
    await asyncio.wait_for(engine.aborted.wait(), 5)


async def test_request_ids_come_back_where_they_are_sane(front_end: Any) -> None:
    get = front_end.client.get
    assert (await get("/health", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 129, "<b>"):
        assert (await get("/health", headers={"X-Request-Id": bad})).headers["x-request-id"].startswith("req_")


async def test_metrics_name_no_document_and_no_adapter(front_end: Any, worker: Any, engine: Any) -> None:
    document_id, adapter = await ready(front_end, worker)
    await asyncio.wait_for(engine.loaded.wait(), 5)
    await front_end.ask(document_id=document_id)
    await front_end.ask(document_id=document_id, stream=True)
    page = (await front_end.client.get("/metrics")).text
    labels = 'adapter_state="resident",endpoint="/v1/chat/completions",model="smollm2-135m-instruct",stream="true"'
    assert f"lift_time_to_first_token_seconds_count{{{labels}}} 1.0" in page
    assert 'lift_phase_seconds_count{phase="load"}' in page
    assert 'lift_time_to_ready_seconds_count{recipe="balanced"} 1.0' in page
    for secret in (document_id, adapter.id, adapter.id[:32], document_id[4:]):
        assert secret not in page


async def test_a_published_adapter_is_prefetched(front_end: Any, worker: Any, engine: Any) -> None:
    """Before anybody asks."""
    _, adapter = await ready(front_end, worker)
    await asyncio.wait_for(engine.loaded.wait(), 5)
    assert engine.loads == [adapter.id]
    assert "lift_time_to_ready_seconds_count" in (await front_end.client.get("/metrics")).text


async def test_openai_python(front_end: Any, worker: Any) -> None:
    """The stock client, synchronous, over a real port: whole answers, streams and typed errors."""
    document_id, adapter = await ready(front_end, worker)
    await asyncio.to_thread(use_openai, front_end.url, document_id, adapter.id)


def use_openai(url: str, document_id: str, adapter_id: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        extra = {"document_id": document_id}
        whole: Any = client.chat.completions.create(model=BASE, messages=ASKED, extra_body=extra)
        assert whole.choices[0].message.content == ANSWER
        assert whole.lift["adapter_id"] == adapter_id
        stream: Any = client.chat.completions.create(model=BASE, messages=ASKED, extra_body=extra, stream=True)
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
        assert chunks[-1].lift["answered_from"] == "adapter"
        assert [model.id for model in client.models.list()] == [BASE, f"{BASE}:{document_id}"]
        assert client.models.retrieve(f"{BASE}:{document_id}").id == f"{BASE}:{document_id}"
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model=BASE, messages=ASKED, extra_body={"document_id": UNKNOWN})
        assert unknown.value.code == "document_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model=BASE, messages=ASKED, extra_body={"lift": {"mode": "magic"}})
        assert bad.value.param == "lift.mode"


async def test_openai_python_raises_an_error_inside_a_stream(front_end: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import openai

    monkeypatch.setattr(relay, "KEEP_ALIVE_S", 0.01)
    document = await front_end.upload(TEXT)
    extra = {"document_id": document["id"], "lift": {"max_wait_s": 0.1}}
    async with openai.AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none") as client:
        stream: Any = await client.chat.completions.create(model=BASE, messages=ASKED, extra_body=extra, stream=True)
        with pytest.raises(openai.APIError) as error:
            [chunk async for chunk in stream]
    assert error.value.code == "document_not_ready"
