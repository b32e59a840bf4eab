"""A request's body, read within a limit: bytes in; a JSON object, or a form with its one file, out."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from lift_server.errors import InvalidRequest, TooLarge, UnsupportedFormat

OBJECT_FIELDS = ("metadata", "expires_after")
OBJECT_KEY = re.compile(r"(metadata|expires_after)\[([^\[\]]+)\]")
MAX_FIELDS = 32  # a key of an object counts as one
FORM_EXTRA_BYTES = 64 * 1024  # a form's boundaries and its fields beside the file
JSON_GROWTH = 3  # escapes make a text that much larger as JSON
DRAIN_BYTES = 64 * 2**20
DRAIN_S = 5.0


@dataclass(frozen=True)
class Form:
    """A multipart upload; `fields` still as text."""

    content: bytes
    filename: str | None
    fields: dict[str, str]


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_json(request: Request, limit_bytes: int, what: str = "The request body") -> dict[str, Any]:
    """The body as a JSON object. 415, 413 or 400 where it is not one."""
    return (await read_sized_json(request, limit_bytes, what))[0]


async def read_sized_json(
    request: Request, limit_bytes: int, what: str = "The request body"
) -> tuple[dict[str, Any], int]:
    """As `read_json`, and how many bytes it was."""
    if media_type(request) not in ("application/json", ""):
        raise UnsupportedFormat("Send the body as application/json.", code="unsupported_media_type")
    raw = await read_bytes(request, limit_bytes, what)
    try:
        values = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(values, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    return values, len(raw)


async def read_bytes(request: Request, limit_bytes: int, what: str = "The request body") -> bytes:
    """The body as it came; 413 where it is larger."""
    return b"".join([part async for part in _limited(request, limit_bytes, what)])


async def read_form(request: Request, limit_bytes: int, name: str = "file") -> Form:
    """A multipart body with one file called `name` of at most `limit_bytes`."""
    if media_type(request) != "multipart/form-data":
        raise UnsupportedFormat("Send multipart/form-data.", code="unsupported_media_type")
    stream = _limited(request, limit_bytes + FORM_EXTRA_BYTES, "The upload", shown_bytes=limit_bytes)
    parser = MultiPartParser(
        request.headers, stream, max_files=1, max_fields=MAX_FIELDS, max_part_size=FORM_EXTRA_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(f"The multipart body is broken: {error.message}", code="invalid_multipart") from error
    try:
        file = form.get(name)
        if not isinstance(file, UploadFile):
            raise InvalidRequest(f"{name}: send the bytes as the form's file part `{name}`.", param=name)
        content = await file.read()
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    finally:
        await form.close()
    if len(content) > limit_bytes:
        raise TooLarge("The file" if name == "file" else "The part", limit_bytes)
    return Form(content, file.filename or None, fields)


def form_values(form: Form) -> dict[str, Any]:
    """The form's fields; an object is JSON text, or key by key as SDKs send it: `metadata[team]`."""
    values: dict[str, Any] = {}
    for field, text in form.fields.items():
        if found := OBJECT_KEY.fullmatch(field):
            values[found[1]] = values.get(found[1], {}) | {found[2]: text}
        elif field in OBJECT_FIELDS:
            values[field] = _object(field, text) | values.get(field, {})
        else:
            values[field] = text
    return values


async def drain(stream: AsyncGenerator[bytes]) -> None:
    """Read on for a moment: closing on a client that still sends would cost it the answer."""
    seen_bytes = 0
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DRAIN_S):
            async for part in stream:
                seen_bytes += len(part)
                if seen_bytes > DRAIN_BYTES:
                    return


async def _limited(
    request: Request, limit_bytes: int, what: str, shown_bytes: int | None = None
) -> AsyncGenerator[bytes]:
    """The body's parts; TooLarge as soon as it is known to exceed the limit, UnsupportedFormat where it is packed."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedFormat("Send the body without a Content-Encoding.", code="unsupported_media_type")
    too_large = TooLarge(what, limit_bytes if shown_bytes is None else shown_bytes)
    announced = request.headers.get("content-length", "")
    announced_bytes = int(announced) if announced.isdecimal() else 0
    if announced_bytes > DRAIN_BYTES and announced_bytes > limit_bytes:
        raise too_large
    stream = request.stream()
    seen_bytes = 0
    async for part in stream:
        seen_bytes += len(part)
        if max(seen_bytes, announced_bytes) > limit_bytes:
            await drain(stream)
            raise too_large
        yield part


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name}: is not valid JSON: {error}", param=name) from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name}: must be a JSON object.", param=name)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    """1e999 is JSON, but would go on to the engine as Infinity, which is not."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is larger than any number")
    return number
