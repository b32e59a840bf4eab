"""What chat and completions share: answers made of `choices`, and streams of chunks that all begin alike."""

from __future__ import annotations

import json
from typing import Any

from lift_server.dialects.dialect import Json, Splice, Usage
from lift_server.errors import ApiError

DONE = b"data: [DONE]\n\n"


def with_usage(body: Json) -> tuple[Json, bool]:
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        return body, True  # for the engine to refuse
    if options and options.get("include_usage") not in (None, False):
        return body, True
    quiet = {"continuous_usage_stats": False} if options and options.get("continuous_usage_stats") is True else {}
    return body | {"stream_options": {**(options or {}), **quiet, "include_usage": True}}, False


def echo(answer: Json, body: Json, model: str) -> Json:
    return answer | {"model": model}


def model(answer: Json) -> str | None:
    return answer.get("model")


def with_lift(answer: Json, fields: Json) -> Json:
    return answer | fields


def usage(answer: Json) -> Usage | None:
    told = answer.get("usage")
    return Usage(told.get("prompt_tokens") or 0, told.get("completion_tokens") or 0) if told else None


def may_be_last(chunk: Json) -> bool:
    """A finish, or the usage that follows it with no choices; with several choices more may follow."""
    choices = chunk.get("choices") or []
    return not choices or any(choice.get("finish_reason") for choice in choices)


def is_usage_only(chunk: Json) -> bool:
    return not chunk.get("choices") and bool(chunk.get("usage"))


def event(chunk: Json) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def error_event(error: ApiError, number: int) -> bytes:
    return event(error.envelope())


def splice(engine_model: str, model: str) -> Splice:
    """The first event tells what all begin with: everything up to the model. Those with one choice that goes on get
    another model in its place. A quote within a JSON string has a backslash before it, so the patterns with a quote
    before the colon are never found inside of one."""
    theirs, ours = (b'"model":' + json.dumps(name).encode() for name in (engine_model, model))
    head, new_head = b"", b""

    def spliced(data: bytes) -> bytes | None:
        nonlocal head, new_head
        if not head:
            before, found, _ = data.partition(theirs)
            if found and before.count(b"{") == 1:
                head, new_head = before + theirs, before + ours
            return None
        if not data.startswith(head):
            return None
        rest = data[len(head) :]
        if rest.count(b'"finish_reason":') != 1 or b'"finish_reason":null' not in rest:
            return None
        return new_head + rest + b"\n\n"

    return spliced


def choices(answer: Json) -> list[dict[str, Any]]:
    return answer.get("choices") or []
