"""The same request to the engine and through the server, without a document: equal but for ids, times and `lift`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from tests.e2e.differential_requests import (
    ASKED,
    CASES,
    CHAT,
    COMPLETIONS,
    GREEDY,
    RESPONSES,
    STREAM_OPTIONS,
    TOOL,
    TURNS,
)
from tests.product import API_KEY, BASE, Json, Product

from lift_server.dialects import chat, responses

pytestmark = pytest.mark.engine

IDS = re.compile(r"\b(chatcmpl|cmpl|resp|msg|rs|fc|chatcmpl-tool|call)[-_](?:req_)?[0-9a-f-]{8,}")
VARYING = {
    "lift", "created", "created_at", "sequence_number",
    "cached_tokens", "input_tokens_per_turn", "cached_tokens_per_turn", "cache_write_tokens",
}  # fmt: skip
BROKEN_OFF = "broken off"
Asked = Callable[[str, Json], tuple[int, Any]]


@pytest.fixture(scope="module")
def direct(product: Product) -> Asked:
    """Each prompt is computed before it is answered for good: from then on it is cached, for both."""
    warm: set[str] = set()

    def ask(route: str, body: Json) -> tuple[int, Any]:
        prompt = json.dumps([body.get(name) for name in ("messages", "prompt", "input", "instructions", "tools")])
        if prompt not in warm:
            warm.add(prompt)
            asked(product.engine_url, route, body)
        return asked(product.engine_url, route, body)

    return ask


@pytest.fixture(scope="module")
def through(product: Product) -> Asked:
    return lambda route, body: asked(product.url, route, body)


def asked(url: str, route: str, body: Json) -> tuple[int, Any]:
    """The status, and an error's message, the whole answer or what a stream told."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    try:
        answer = httpx2.post(url + route, json={"model": BASE, **body}, headers=headers, timeout=120)
    except httpx2.RemoteProtocolError:
        return 200, BROKEN_OFF
    if answer.status_code != 200:
        return answer.status_code, told(answer.json())
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return 200, plain(answer.json())
    return 200, summary([block for block in answer.text.split("\n\n") if block and not block.startswith(":")])


def told(error: Json) -> Json:
    """Of an error, what the server leaves as it is."""
    return {name: error["error"].get(name) for name in ("message", "param")}


def summary(blocks: list[str]) -> Json:
    """A stream by its choices: vLLM puts tokens together where it is read too slowly, and choices come in any order."""
    parts: Json = {}
    for block in blocks:
        name, _, data = block.rpartition("data: ")
        event: Json = {"data": data} if data == "[DONE]" else json.loads(data)
        if event.get("error"):
            event = told(event)
        choices = event.get("choices") or [{}]
        part = parts.setdefault(str(choices[0].get("index", "")), {"text": "", "logprobs": [], "shapes": []})
        for holder in (choices[0], choices[0].get("delta"), event):
            take(part, holder)
        shape = [name, plain(event)]
        if shape not in part["shapes"]:
            part["shapes"].append(shape)
    return parts if len(parts) < 3 else without_fingerprints(parts)


def take(part: Json, holder: Any) -> None:
    """The text and its log-probabilities, wherever they are."""
    if not isinstance(holder, dict):
        return
    for name in ("content", "text", "delta"):
        if isinstance(holder.get(name), str):
            part["text"] += holder.pop(name)
    logprobs = holder.pop("logprobs", None)
    part["logprobs"] += plain(logprobs.get("content") or logprobs.get("tokens")) if isinstance(logprobs, dict) else []


def without_fingerprints(parts: Json) -> Json:
    """Of several choices each has one at its end, or, where we had the tokens told, only the last that ends."""
    for part in parts.values():
        for _, event in part["shapes"]:
            event.pop("system_fingerprint", None)
    return parts


def plain(value: Any) -> Any:
    """Without what differs from one request to the next."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name not in VARYING}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 2)  # log-probabilities: a prompt that is cached is computed in other pieces
    return IDS.sub("<id>", value) if isinstance(value, str) else value


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("route", "fields"),
    [
        pytest.param(route, fields, id=f"{route}-{at}")
        for route, cases in CASES.items()
        for at, fields in enumerate(cases)
    ],
)
@pytest.mark.timeout(300)
def test_the_same_with_and_without_the_server(
    direct: Asked, through: Asked, route: str, fields: Json, stream: bool
) -> None:
    body = ASKED[route] | fields | ({"stream": True} if stream else {})
    expected, answer = direct(route, body), through(route, body)
    if expected == (200, BROKEN_OFF):  # an error that vLLM cannot tell; we can, and do
        assert answer[1][""]["shapes"][-1][1].keys() == {"message", "param"}
    else:
        assert answer == expected


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("options", STREAM_OPTIONS, ids=json.dumps)
def test_usage_is_shown_as_asked(direct: Asked, through: Asked, route: str, options: Json) -> None:
    body = ASKED[route] | GREEDY | {"stream": True} | options
    assert through(route, body) == direct(route, body)


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "add"}}], ids=str)
def test_tools_are_accepted(through: Asked, choice: Any) -> None:
    """The launcher names a parser; without one vLLM refuses all three."""
    status, answer = through(CHAT, ASKED[CHAT] | GREEDY | {"tools": [TOOL], "tool_choice": choice, "max_tokens": 96})
    assert status == 200, answer
    calls = answer["choices"][0]["message"].get("tool_calls") or []
    assert choice == "auto" or {call["function"]["name"] for call in calls} == {"add"}, answer


@pytest.mark.parametrize("messages", [TURNS, TURNS[1:], [{"role": "user", "content": "Why?"}]], ids=len)
@pytest.mark.parametrize("text", [None, "All of it."])
def test_a_response_is_framed_as_a_chat(product: Product, messages: list[Json], text: str | None) -> None:
    """The very tokens: an adapter is trained on the chat's."""
    as_input = [{name: value for name, value in message.items() if name != "name"} for message in messages]
    as_input = json.loads(json.dumps(as_input).replace('"type": "text"', '"type": "input_text"'))
    framed = responses.frame({"input": as_input, "max_output_tokens": 1}, "Orvel", text)
    framed_chat = chat.frame({"messages": messages, "max_tokens": 1}, "Orvel", text)
    answer = post(product, RESPONSES, framed | {"enable_response_messages": True})
    prompt = "".join(message["message"] for message in answer["input_messages"])
    tokens = [token for message in answer["input_messages"] for token in message["tokens"]]
    assert tokens == post(product, CHAT, framed_chat | {"return_token_ids": True})["prompt_token_ids"], prompt


def post(product: Product, route: str, body: Json) -> Json:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    answer = httpx2.post(product.engine_url + route, json={"model": BASE, **body}, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    values: Json = answer.json()
    return values
