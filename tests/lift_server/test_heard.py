"""What of a stream is written without being parsed, and that nobody can tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lift_server.dialects import chat, completions, responses
from lift_server.dialects.dialect import Dialect, Usage
from lift_server.errors import EngineFailure
from lift_server.heard import Heard
from lift_server.question import Question
from lift_server.schemas import LiftOptions

ENGINES, OTHERS, OURS = "0" * 32 + "-a1b2c3d4e5f6", "1" * 32 + "-a1b2c3d4e5f6", "base:doc_é"
TRICKY = [
    ' "finish_reason":null',
    '"finish_reason":"stop"',
    f'{{"model":"{ENGINES}"',
    "\n\ndata: [DONE]\n\n",
    "\\",
    '\\"',
    "é🐝",
    "",
]


def chunk(**choice: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": ENGINES,
        "choices": [{"index": 0, "logprobs": None, "finish_reason": None, **choice}],
    }


def event(value: Any, name: str = "") -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}".encode()


def heard(dialect: Dialect, *, evidence: bool = False, **body: Any) -> Heard:
    lift = LiftOptions(evidence=evidence)
    question = Question("o", dialect, body, OURS, None, lift, stream=True, received_s=0.0)
    one = Heard(question)
    one.asks(body | {"model": ENGINES})
    return one


def read(piece: bytes | dict[str, Any]) -> Any:
    if isinstance(piece, dict):
        return piece
    assert piece.endswith(b"\n\n")
    return json.loads(piece.partition(b"data: ")[2])


@pytest.mark.parametrize("dialect", [chat, completions])
@pytest.mark.parametrize("text", TRICKY)
def test_only_the_model_is_another(dialect: Dialect, text: str) -> None:
    """Parsed or spliced, it is the same; after the first token it is spliced."""
    told = {"delta": {"content": text}} if dialect is chat else {"text": text}
    first = {"delta": {"content": "x"}} if dialect is chat else {"text": "x"}
    values = [chunk(**first), *[chunk(**told)] * 2]
    events = [event(value) for value in values]
    pieces = heard(dialect).pieces(events)
    assert [type(piece) for piece in pieces] == [dict, bytes, bytes]
    parsed = heard(dialect, evidence=True).pieces(events)
    assert [type(piece) for piece in parsed] == [dict] * 3
    assert [read(piece) for piece in pieces] == parsed == [value | {"model": OURS} for value in values]


@pytest.mark.parametrize(
    "value",
    [
        chunk(delta={}, finish_reason="stop"),
        chunk(delta={}) | {"choices": []},
        chunk(delta={}) | {"choices": chunk(delta={})["choices"] * 2},
        {"model": ENGINES, **{name: value for name, value in chunk(delta={}).items() if name != "model"}},
        chunk(delta={}) | {"id": "chatcmpl-2"},
    ],
)
def test_what_is_unusual_is_parsed(value: dict[str, Any]) -> None:
    pieces = heard(chat).pieces([event(chunk(delta={"content": "x"})), event(value)])
    assert pieces[1] == value | {"model": OURS}


@pytest.mark.parametrize("model", [OTHERS, "base"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_chunk_from_another_model_ends_the_answer(model: str, is_first: bool) -> None:
    one = heard(chat)
    before = [] if is_first else [event(chunk(delta={"content": "x"}))]
    pieces = one.pieces([*before, event(chunk(delta={"content": "y"}) | {"model": model})])
    assert len(pieces) == len(before)
    assert one.failure is not None
    assert (one.failure.status, one.failure.code) == (502, "engine_error")


def test_a_response_from_another_model_ends_before_it_says_anything() -> None:
    one = heard(responses)
    assert one.pieces([event({"type": "response.created", "response": {"model": OTHERS}}, "response.created")]) == []
    assert one.failure is not None


def test_the_base_model_may_have_another_name_but_no_adapters() -> None:
    one, answer = heard(chat), chunk(delta={})
    assert one.check(answer | {"model": "alias"}, "base")
    with pytest.raises(EngineFailure):
        one.check(answer, "base")


def test_a_first_event_with_a_brace_before_its_model_teaches_nothing() -> None:
    """A request id is the client's: it may look like anything."""
    value = chunk(delta={"content": "x"}) | {"id": f'{{"model":"{ENGINES}"'}
    pieces = heard(chat).pieces([event(value)] * 3)
    assert pieces == [value | {"model": OURS}] * 3


def test_events_of_responses_are_parsed_where_they_name_a_model() -> None:
    response = {"model": ENGINES, "instructions": "a line of ours", "usage": None}
    usage = {"input_tokens": 9, "output_tokens": 4}
    delta = {"type": "response.output_text.delta", "delta": "x", "output_index": 0}
    values: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        *[delta] * 3,
        {"type": "response.completed", "response": response | {"usage": usage}},
    ]
    one = heard(responses, instructions="mine")
    pieces = one.pieces([event(value, value["type"]) for value in values])
    assert [type(piece) for piece in pieces] == [dict, dict, bytes, bytes, dict]
    assert pieces[2] == event(delta, delta["type"]) + b"\n\n"
    assert read(pieces[0])["response"] == {"model": OURS, "instructions": "mine", "usage": None}
    assert read(pieces[4])["response"] == {"model": OURS, "instructions": "mine", "usage": usage}
    assert one.usage == Usage(9, 4)


@pytest.mark.parametrize(
    ("options", "sent", "is_shown"),
    [
        (None, {"include_usage": True}, False),
        ({}, {"include_usage": True}, False),
        ({"include_usage": False}, {"include_usage": True}, False),
        (
            {"continuous_usage_stats": True},
            {"include_usage": True, "continuous_usage_stats": False},
            False,
        ),
        ({"include_usage": True, "continuous_usage_stats": True},) * 2 + (True,),
        ("wrong", "wrong", True),
    ],
)
def test_the_engine_is_always_asked_for_the_usage(options: Any, sent: Any, is_shown: bool) -> None:
    one = heard(chat)
    asked = one.asks({"model": ENGINES} | ({} if options is None else {"stream_options": options}))
    assert asked["stream_options"] == sent
    last = chunk() | {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}, "system_fingerprint": "v"}
    assert len(one.pieces([event(last)])) == is_shown
    assert one.usage == Usage(9, 4)
    assert one.trailer == ({} if is_shown else {"system_fingerprint": "v"})


def test_what_came_before_an_error_is_not_lost() -> None:
    one, value = heard(chat), chunk(delta={"content": "x"})
    error = {"error": {"message": "out of memory", "code": 500}}
    assert one.pieces([event(value), event(error), event(value)]) == [value | {"model": OURS}]
    assert one.failure is not None
    assert one.failure.code == "engine_error"
