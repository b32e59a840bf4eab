"""An answer's events → what the client gets of each, and what they said and used up on the way."""

from __future__ import annotations

import logging

from lift_config.contract import ADAPTER_ID
from lift_server.dialects.dialect import Json, Usage
from lift_server.engine_reply import read_event
from lift_server.errors import ApiError, EngineFailure
from lift_server.question import Question

Piece = bytes | Json

log = logging.getLogger(__name__)


class Heard:
    """One answer. `begun` is set by its first token."""

    def __init__(self, question: Question) -> None:
        self.usage: Usage | None = None
        self.events = 0
        self.begun = False
        self.failure: ApiError | None = None  # to be raised once the pieces before it are written
        self.trailer: Json = {}  # of a chunk that the client does not get, what belongs to the one before it
        self._question = question
        self._keeps_text = question.lift.evidence
        self._wants_usage = True
        self._said: dict[int, str] = {}  # by choice

    @property
    def said(self) -> str:
        """The text of the first choice that has one; kept only where it is wanted for evidence."""
        return next((text for _, text in sorted(self._said.items()) if text.strip()), "")

    def asks(self, body: Json) -> Json:
        """The body to stream with: the tokens are always told to us."""
        body, self._wants_usage = self._question.dialect.with_usage(body)
        self._asked = body["model"]
        self._splice = self._question.dialect.splice(self._asked, self._question.model)
        return body

    def check(self, answer: Json, asked: str) -> Json:
        """The answer, or a chunk of it; EngineFailure where it is from another adapter than `asked`. The base model may
        be told by another of the names that it is served under."""
        told = self._question.dialect.model(answer)
        if told not in (None, asked) and any(ADAPTER_ID.fullmatch(str(name)) for name in (told, asked)):
            log.error("an engine was asked for %s and answered from %s", asked, told)
            raise EngineFailure(502, "The inference engine answered from another adapter.", code="engine_error")
        return answer

    def whole(self, answer: Json) -> Json:
        """As the client gets it."""
        self._hear(answer)
        return self._echo(answer)

    def pieces(self, events: list[bytes]) -> list[Piece]:
        """In order: bytes that can be written as they are, and chunks that are worth a look; up to an error."""
        self.events += len(events)
        pieces: list[Piece] = []
        try:
            for event in events:
                if (piece := self._piece(event)) is not None:
                    pieces.append(piece)
        except ApiError as error:  # what came before it is still written
            self.failure = error
        return pieces

    def _piece(self, event: bytes) -> Piece | None:
        spliced = self._splice(event)
        if spliced is not None and self.begun and not self._keeps_text:
            return spliced
        dialect, chunk = self._question.dialect, self.check(read_event(event), self._asked)
        self._hear(chunk)
        self.begun = self.begun or dialect.has_token(chunk)
        if dialect.is_usage_only(chunk) and not self._wants_usage:
            self.trailer = {name: chunk[name] for name in ("system_fingerprint",) if name in chunk}
            return None
        return self._echo(chunk)

    def _echo(self, answer: Json) -> Json:
        return self._question.dialect.echo(answer, self._question.body, self._question.model)

    def _hear(self, answer: Json) -> None:
        dialect = self._question.dialect
        self.usage = dialect.usage(answer) or self.usage
        if self._keeps_text:
            for choice, text in dialect.said(answer).items():
                self._said[choice] = self._said.get(choice, "") + text
