"""What else vLLM offers for inference with the base model: passed on as it comes, answered as it comes.

The list is closed. Not in it: whatever controls the engine (adapters, sleep, profiles, caches, weights, metrics), what
takes tokens for prompts or renders them, and other companies' APIs (/v1/messages), whose errors have another shape.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive, Scope, Send

from lift_server.body import FORM_EXTRA_BYTES, media_type, read_bytes, read_json
from lift_server.engine import Engine
from lift_server.errors import InvalidRequest, ModelNotFound, UnsupportedFormat
from lift_server.owner import CurrentOwner
from lift_server.relay import unless_gone
from lift_server.state import CurrentState, State

router = APIRouter()

OFFERED = (
    "/v1/embeddings", "/v1/score", "/score", "/v1/rerank", "/v2/rerank", "/rerank", "/classify", "/pooling",
    "/tokenize", "/detokenize",
)  # fmt: skip
# A quote within a JSON string has a backslash before it, so as bytes this is always a key.
TOKENS = re.compile(rb'"total_tokens":\s*(\d+)')
KEPT_BYTES = 64  # of what came before, since it may come in pieces
OFFERED_AUDIO = ("/v1/audio/transcriptions", "/v1/audio/translations")


async def pass_on(request: Request, state: CurrentState, owner: CurrentOwner) -> Response:
    """A JSON body."""
    values = await read_json(request, state.settings.server.max_request_bytes)
    _check(state, [values.get("model")], request, values)
    return Passed(state.engine, request.url.path, {"json": values | {"model": state.settings.model_name}})


async def pass_on_audio(request: Request, state: CurrentState, owner: CurrentOwner) -> Response:
    """A form, which is not taken apart for good: the engine gets the bytes that were sent."""
    if media_type(request) != "multipart/form-data":
        raise UnsupportedFormat("Send the audio as multipart/form-data.", code="unsupported_media_type")
    raw = await read_bytes(request, state.settings.server.max_upload_bytes + FORM_EXTRA_BYTES, "The upload")
    fields = await _fields(request, raw)
    _check(state, [value for name, value in fields if name == "model"], request, dict(fields))
    return Passed(
        state.engine, request.url.path, {"data": raw, "headers": {"Content-Type": request.headers["content-type"]}}
    )


for _route in OFFERED:
    router.add_api_route(_route, pass_on, methods=["POST"])
for _route in OFFERED_AUDIO:
    router.add_api_route(_route, pass_on_audio, methods=["POST"])


def _check(state: State, models: list[Any], request: Request, fields: dict[str, Any]) -> None:
    """Only the base model is asked, never an adapter by its id; and no document, which would go unnoticed."""
    base = state.settings.model_name
    for model in models:
        if isinstance(model, str) and model.startswith(f"{base}:"):
            raise InvalidRequest("model: no document can be asked here, only the base model.", param="model")
        if model not in (None, base):
            raise ModelNotFound(str(model))
    for name, given in ((name, fields.get(name)) for name in ("document_id", "document_ids")):
        if given is not None:
            raise InvalidRequest(f"{name}: no document can be asked here.", param=name)
    if "x-document-id" in request.headers:
        raise InvalidRequest("X-Document-Id: no document can be asked here.", param="X-Document-Id")


async def _fields(request: Request, raw: bytes) -> list[tuple[str, Any]]:
    async def parts() -> AsyncIterator[bytes]:
        yield raw

    try:
        parser = MultiPartParser(request.headers, parts(), max_files=1, max_fields=50)  # type: ignore[arg-type]
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(f"The multipart body is broken: {error.message}", code="invalid_multipart") from error
    fields = form.multi_items()
    await form.close()
    return fields


def tokens_told(before: bytes, part: bytes) -> int | None:
    """What an answer says it used, in a part of it or across its edge with what came `before`."""
    told = TOKENS.findall(before + part)
    return int(told[-1]) if told else None


class Passed(Response):
    """The engine's answer, part by part: a transcription may be a stream. The tokens it tells are charged."""

    def __init__(self, engine: Engine, route: str, sent: dict[str, Any]) -> None:
        super().__init__()
        self._engine, self._route, self._sent = engine, route, sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(receive, self._run(scope, send))

    async def _run(self, scope: Scope, send: Send) -> None:
        async with AsyncExitStack() as open_reply:
            reply = await self._engine.somewhere(
                None,
                lambda url: open_reply.enter_async_context(self._engine.forward(url, self._route, **self._sent)),
            )
            kind = reply.headers.get("Content-Type", "application/json").encode("latin-1")
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            before = b""
            async for part in reply.content.iter_any():
                if (tokens := tokens_told(before, part)) is not None:
                    scope["state"]["tokens"] = tokens
                before = (before + part)[-KEPT_BYTES:]
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
