"""vLLM's answers as the stand-in engine gives them, one shape an endpoint, whole and as a stream's events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
RESPONSE_USAGE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
FINGERPRINT = "vllm-0.32"


def data(value: Json, name: str = "") -> bytes:
    """A server-sent event, as compact as vLLM writes it."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def whole(route: str, body: Json, texts: list[str | None]) -> Json:
    """One choice a text."""
    if route == "/v1/responses":
        return _response(body, status="completed", output=[_message(text) for text in texts], usage=RESPONSE_USAGE)
    kinds = {"/v1/chat/completions": "chat.completion", "/v1/completions": "text_completion"}
    choices = [
        {"index": at, **_said(route, text), "finish_reason": "stop", "logprobs": None} for at, text in enumerate(texts)
    ]
    return {"id": "cmpl-1", "object": kinds[route], "created": 1, "model": body["model"], "choices": choices} | {
        "usage": USAGE,
        "system_fingerprint": FINGERPRINT,
    }


def first(route: str, body: Json) -> Iterator[bytes]:
    """What comes before any text."""
    if route == "/v1/chat/completions":
        yield _chunk(route, body, {"delta": {"role": "assistant", "content": ""}})
    if route == "/v1/responses":
        for name in ("response.created", "response.in_progress"):
            yield data({"type": name, "response": _response(body, status="in_progress", output=[], usage=None)}, name)


def word(route: str, body: Json, text: str) -> bytes:
    if route == "/v1/responses":
        name = "response.output_text.delta"
        return data({"delta": text, "item_id": "msg_1", "output_index": 0, "type": name}, name)
    return _chunk(route, body, {"delta": {"content": text}} if route == "/v1/chat/completions" else {"text": text})


def last(route: str, body: Json, text: str) -> Iterator[bytes]:
    """What comes after all text. The fingerprint is on the last chunk, whichever that is."""
    if route == "/v1/responses":
        name, response = "response.completed", whole(route, body, [text])
        yield data({"type": name, "response": response}, name)
        return
    wants_usage = (body.get("stream_options") or {}).get("include_usage")
    choice = {"delta": {"content": ""}} if route == "/v1/chat/completions" else {"text": ""}
    more = {} if wants_usage else {"system_fingerprint": FINGERPRINT}
    yield _chunk(route, body, choice, "stop", **more)
    if wants_usage:
        head = {"id": "cmpl-1", "object": "chunk", "created": 1, "model": body["model"], "choices": []}
        yield data(head | {"usage": USAGE, "system_fingerprint": FINGERPRINT})
    yield b"data: [DONE]\n\n"


def _said(route: str, text: str | None) -> Json:
    return {"message": {"role": "assistant", "content": text}} if route == "/v1/chat/completions" else {"text": text}


def _chunk(route: str, body: Json, choice: Json, finish: str | None = None, **more: Any) -> bytes:
    kind = "chat.completion.chunk" if route == "/v1/chat/completions" else "text_completion"
    choices = [{"index": 0, **choice, "logprobs": None, "finish_reason": finish}]
    return data({"id": "cmpl-1", "object": kind, "created": 1, "model": body["model"], "choices": choices, **more})


def _message(text: str | None) -> Json:
    content: list[Json] = [{"type": "output_text", "text": text, "annotations": []}]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}


def _response(body: Json, **more: Any) -> Json:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"]}
    told: Json = {
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "tools": [],
        "error": None,
    }
    return head | told | {"parallel_tool_calls": True, "tool_choice": "auto"} | more
