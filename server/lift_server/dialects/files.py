"""Content parts that bring a document, taken out of messages: the engine never sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lift_server.dialects.dialect import FilePart, Json
from lift_server.errors import InvalidRequest


def without_files(
    messages: list[Any], field: str, read: Callable[[Json, str], FilePart | None]
) -> tuple[list[Any], list[FilePart]]:
    """The messages, each without the parts that `read` knows as files, and these. A message of nothing else is left
    out; InvalidRequest where nothing is asked then."""
    kept: list[Any] = []
    files: list[FilePart] = []
    emptied = None
    for at, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            parts, found = _sorted(content, f"{field}[{at}].content", read)
            files += found
            if found and not parts:
                emptied = f"{field}[{at}].content"
                continue
            message = message | {"content": parts}
        kept.append(message)
    if emptied and not _asks(kept):
        raise InvalidRequest(f"{emptied}: there is nothing beside the file; ask something.", param=emptied)
    return kept, files


def file_part(fields: Json, place: str) -> FilePart:
    """By `file_id` or with `file_data`."""
    if fields.get("file_url") is not None:
        message = f"{place}.file_url: is not supported; send the file's data, or upload it and send its id."
        raise InvalidRequest(message, param=f"{place}.file_url")
    for name in ("file_id", "file_data", "filename"):
        if not isinstance(fields.get(name), str | None):
            raise InvalidRequest(f"{place}.{name}: must be a string.", param=f"{place}.{name}")
    part = FilePart(place, fields.get("file_id"), fields.get("file_data"), fields.get("filename"))
    if (part.file_id is None) == (part.data is None):
        raise InvalidRequest(f"{place}: needs either file_id or file_data.", param=place)
    return part


def _asks(messages: list[Any]) -> bool:
    """Whether they end with what wants an answer: a user's words, a tool's result."""
    last = messages[-1] if messages else {"role": "system"}
    return not isinstance(last, dict) or last.get("role") not in ("system", "developer", "assistant")


def _sorted(
    content: list[Any], place: str, read: Callable[[Json, str], FilePart | None]
) -> tuple[list[Any], list[FilePart]]:
    """What stays of a message's parts, and the files."""
    parts: list[Any] = []
    files: list[FilePart] = []
    for at, part in enumerate(content):
        file = read(part, f"{place}[{at}]") if isinstance(part, dict) else None
        if file is None:
            parts.append(part)
        else:
            files.append(file)
    return parts, files
