"""/v1/chat/completions."""

from __future__ import annotations

from typing import Any

from lift_config import prompts
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
from lift_server.dialects.files import file_part, without_files
from lift_server.engine import CHAT_ROUTE
from lift_server.errors import InvalidRequest

__all__ = [
    "DONE", "FRAMED", "OPERATION", "ROUTE", "as_chat", "check", "echo", "error_event", "event", "frame", "has_token",
    "is_usage_only", "may_be_last", "model", "said", "splice", "take_files", "usage", "with_defaults", "with_lift",
    "with_usage",
]  # fmt: skip

ROUTE = CHAT_ROUTE
OPERATION = "chat"
FRAMED = True
SEEN = ("content", "reasoning", "reasoning_content", "tool_calls")


def check(body: Json) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise InvalidRequest("messages: must be a list of at least one message.", param="messages")


def take_files(body: Json) -> tuple[Json, list[FilePart]]:
    messages, files = without_files(body["messages"], "messages", _file)
    return (body | {"messages": messages} if files else body), files


def frame(body: Json, title: str | None, text: str | None = None) -> Json:
    return body | {"messages": prompts.frame(body["messages"], title, text)}


def as_chat(body: Json) -> Json:
    return body


def with_defaults(body: Json) -> Json:
    """An adapter that is unsure may end its answer before the first word."""
    return {"min_tokens": 1} | body


def said(answer: Json) -> dict[int, str]:
    return {
        choice.get("index", 0): (choice.get("message") or choice.get("delta") or {}).get("content") or ""
        for choice in choices(answer)
    }


def has_token(chunk: Json) -> bool:
    return any((choice.get("delta") or {}).get(name) for choice in choices(chunk) for name in SEEN)


def _file(part: Json, place: str) -> FilePart | None:
    if part.get("type") != "file":
        return None
    fields: Any = part.get("file")
    if not isinstance(fields, dict):
        raise InvalidRequest(f"{place}.file: must be an object.", param=f"{place}.file")
    return file_part(fields, f"{place}.file")
