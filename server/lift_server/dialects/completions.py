"""/v1/completions: the prompt goes to the engine as it is, with no place for a document's line or its text."""

from __future__ import annotations

from lift_server.dialects.chunks import (
    DONE,
    choices,
    echo,
    error_event,
    event,
    is_usage_only,
    may_be_last,
    model,
    splice,
    usage,
    with_lift,
    with_usage,
)
from lift_server.dialects.dialect import FilePart, Json
from lift_server.engine import COMPLETIONS_ROUTE
from lift_server.errors import InvalidRequest

__all__ = [
    "DONE", "FRAMED", "OPERATION", "ROUTE", "as_chat", "check", "echo", "error_event", "event", "frame", "has_token",
    "is_usage_only", "may_be_last", "model", "said", "splice", "take_files", "usage", "with_defaults", "with_lift",
    "with_usage",
]  # fmt: skip

ROUTE = COMPLETIONS_ROUTE
OPERATION = "text_completion"
FRAMED = False


def check(body: Json) -> None:
    """`lift.evidence` needs one question: a single text."""
    lift = body.get("lift")
    if isinstance(lift, dict) and lift.get("evidence") is True and not isinstance(body.get("prompt"), str):
        message = "lift.evidence: needs a prompt that is a single string, which is taken as the question."
        raise InvalidRequest(message, param="lift.evidence")


def take_files(body: Json) -> tuple[Json, list[FilePart]]:
    return body, []


def frame(body: Json, title: str | None, text: str | None = None) -> Json:
    return body


def as_chat(body: Json) -> Json:
    return {"messages": [{"role": "user", "content": body.get("prompt")}]}


def with_defaults(body: Json) -> Json:
    """As in chat; but nothing at all may be asked for, to have the prompt scored."""
    return body if body.get("max_tokens") == 0 else {"min_tokens": 1} | body


def said(answer: Json) -> dict[int, str]:
    return {choice.get("index", 0): choice.get("text") or "" for choice in choices(answer)}


def has_token(chunk: Json) -> bool:
    return any(choice.get("text") for choice in choices(chunk))
