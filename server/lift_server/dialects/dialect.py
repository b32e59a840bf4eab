"""What a module must have to be one of OpenAI's ways to ask; question.py, answer.py and relay.py know no more of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lift_server.errors import ApiError

Json = dict[str, Any]
Splice = Callable[[bytes], bytes | None]


@dataclass(frozen=True)
class FilePart:
    """A content part that brings a document: by id, or in `data` as base64. `place` names it in errors."""

    place: str
    file_id: str | None
    data: str | None
    filename: str | None


@dataclass(frozen=True)
class Usage:
    """Tokens, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int


class Dialect(Protocol):
    """A module is one: `lift_server.dialects.chat`, `.completions`, `.responses`."""

    ROUTE: str
    OPERATION: str  # OpenTelemetry's gen_ai.operation.name
    FRAMED: bool  # whether there is a place for the document's line, or its text, in the prompt
    DONE: bytes  # ends a stream

    # ---- the request ----

    def check(self, body: Json) -> None:
        """InvalidRequest for what cannot be asked; everything else is left for the engine to refuse."""

    def take_files(self, body: Json) -> tuple[Json, list[FilePart]]:
        """The body without its file parts, and these."""

    def frame(self, body: Json, title: str | None, text: str | None = None) -> Json:
        """prompts.frame's line, and the text, in the body."""

    def as_chat(self, body: Json) -> Json:
        """A chat request with the same prompt: what is counted, and read for evidence."""

    def with_defaults(self, body: Json) -> Json:
        """What an adapter is asked with where the client said nothing."""

    def with_usage(self, body: Json) -> tuple[Json, bool]:
        """A stream's body that has the engine tell the tokens; whether the client wants to see them."""

    # ---- the answer, whole or a stream's chunk ----

    def echo(self, answer: Json, body: Json, model: str) -> Json:
        """With the client's own `model`, not the engine's; `body` is the client's too."""

    def with_lift(self, answer: Json, fields: Json) -> Json:
        """`fields`, of which `lift` is one, where this dialect has them."""

    def model(self, answer: Json) -> str | None:
        """That the engine says it answered from; None where this chunk does not say it."""

    def usage(self, answer: Json) -> Usage | None: ...

    def said(self, answer: Json) -> dict[int, str]:
        """Its text, by choice."""

    # ---- a stream ----

    def splice(self, engine_model: str, model: str) -> Splice:
        """For one stream: an event as it goes to the client, without being parsed; None: it must be."""

    def has_token(self, chunk: Json) -> bool:
        """Whether it carries anything a reader would see."""

    def may_be_last(self, chunk: Json) -> bool: ...

    def is_usage_only(self, chunk: Json) -> bool:
        """Whether it is the extra chunk with the tokens, which only those who asked for it get."""

    def event(self, chunk: Json) -> bytes: ...

    def error_event(self, error: ApiError, number: int) -> bytes:
        """Such that OpenAI's SDKs raise it; the events before it have lower numbers, from 0 on."""
