"""What else the engine offers: only from the list, only of the base model, in our envelope."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.lift_server.holders import holder

from lift_config.contract import window_redis_key
from lift_server.routes.offered import OFFERED, OFFERED_AUDIO, tokens_told

BASE = "smollm2-135m-instruct"
AUDIO = {"file": ("a.wav", b"RIFF", "audio/wav")}


async def test_embeddings_are_passed_on(front_end: Any, engine: Any) -> None:
    engine.offers = {"/v1/embeddings": {"object": "list", "data": [], "model": BASE}}
    answer = await front_end.client.post("/v1/embeddings", json={"input": "a", "dimensions": 4})
    assert answer.json() == engine.offers["/v1/embeddings"]
    assert json.loads(engine.passed[0]) == {"input": "a", "dimensions": 4, "model": BASE}


async def test_a_form_is_passed_on_as_it_is(front_end: Any, engine: Any) -> None:
    route = "/v1/audio/transcriptions"
    engine.offers = {route: {"text": "hello"}}
    fields = {"model": BASE, "timestamp_granularities[]": ["word", "segment"]}
    answer = await front_end.client.post(route, files=AUDIO, data=fields)
    assert answer.json() == {"text": "hello"}
    assert engine.passed[0].count(b"timestamp_granularities[]") == 2


@pytest.mark.parametrize("route", sorted({*OFFERED, *OFFERED_AUDIO} - {"/tokenize", "/detokenize"}))
async def test_what_the_base_model_cannot(front_end: Any, engine: Any, route: str) -> None:
    sent: dict[str, Any] = {"files": AUDIO} if route in OFFERED_AUDIO else {"json": {}}
    answer = await front_end.client.post(route, **sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "not_offered")
    assert route in error["message"]
    assert len(engine.passed) == 1


async def test_the_engines_refusal_in_our_envelope(front_end: Any, engine: Any) -> None:
    engine.offers = {"/v1/score": {"error": {"message": "bad pair", "type": "x", "param": "text_1", "code": 400}}}
    answer = await front_end.client.post("/v1/score", json={"model": BASE})
    error = {"message": "bad pair", "type": "invalid_request_error", "param": "text_1", "code": "invalid_request"}
    assert (answer.status_code, answer.json()) == (400, {"error": error})


USAGE = {"prompt_tokens": 7, "total_tokens": 7}


@pytest.mark.parametrize(
    ("answer", "charged"),
    [
        ({"data": [{"embedding": [0.5] * 100_000}], "usage": USAGE}, 7),
        ({"usage": USAGE, "results": [{"document": {"text": 'It says "total_tokens": 900 here.'}}] * 2000}, 7),
        ({"count": 3, "tokens": [1, 2, 3]}, 0),
    ],
)
async def test_the_tokens_it_tells_are_charged(
    front_end: Any, engine: Any, redis: Any, answer: dict[str, Any], charged: int
) -> None:
    mine = await holder(front_end, tokens_per_minute=1000)
    engine.offers = {"/v1/embeddings": answer}
    assert (await mine.call("POST", "/v1/embeddings", json={"input": "a"})).json() == answer
    assert int(await redis.get(window_redis_key("tokens", mine.record.id)) or 0) == charged


def test_tokens_in_two_pieces_are_one_number() -> None:
    answer = b'{"data": [], "usage": {"total_tokens": 123}}'
    for cut in range(len(answer)):
        told = [tokens_told(b"", answer[:cut]), tokens_told(answer[:cut], answer[cut:])]
        assert [one for one in told if one is not None][-1] == 123, cut


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "a document's model": ({"model": f"{BASE}:doc_{'0' * 24}"}, 400, "model"),
    "an adapter": ({"model": f"{'a' * 32}-{'b' * 12}"}, 404, "model"),
    "another model": ({"model": "gpt-6"}, 404, "model"),
    "a document": ({"document_id": "doc_1"}, 400, "document_id"),
    "documents": ({"document_ids": "doc_1"}, 400, "document_ids"),
}


async def test_only_the_base_model_is_asked(front_end: Any, engine: Any) -> None:
    for name, (fields, status, param) in BAD.items():
        for route, sent in (("/v1/embeddings", {"json": fields}), (OFFERED_AUDIO[0], {"files": AUDIO, "data": fields})):
            answer = await front_end.client.post(route, **sent)
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), (name, route)
    headed = await front_end.client.post("/v1/embeddings", json={}, headers={"X-Document-Id": "doc_1"})
    assert headed.json()["error"]["param"] == "X-Document-Id"
    twice = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%s\r\n'
    body = twice % BASE.encode() + twice % b"gpt-6" + b"--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    assert (await front_end.client.post(OFFERED_AUDIO[0], content=body, headers=kind)).status_code == 404
    assert engine.passed == []


@pytest.mark.parametrize(
    "route",
    ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/sleep", "/start_profile", "/reset_prefix_cache",
     "/collective_rpc", "/invocations", "/inference/v1/generate", "/v1/messages", "/pause"],
)  # fmt: skip
async def test_what_controls_the_engine_is_closed(front_end: Any, engine: Any, route: str) -> None:
    answer = await front_end.client.post(route, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert engine.passed == []
