"""A document's text in the prompt: all of it where it fits the engine's context window, or its beginning and end.

In: a question, its document's text. Out: text for the prompt. The engine counts: it has the tokenizer and template.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from lift_config.contract import JobRecord
from lift_server.dialects.dialect import Dialect
from lift_server.errors import DocumentNotFound
from lift_server.question import Json
from lift_server.state import State

ANSWER_TOKENS = 256  # kept free for an answer; more where more was asked for
CUT = "\n\n[…]\n\n"
CUT_TOKENS = 32  # for CUT, and for what is tokenized otherwise beside it
HALF_LETTER = "\ufffd"  # what is left of a letter whose tokens were cut apart
# Texts average half a character (Chinese, small vocabulary) to five a token; only single tokens are far longer, runs of
# blanks. One above this bound may fit in theory; it is taken not to, which costs a wait. Else megabytes went in vain.
CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True)
class Prompt:
    """A question about a document, for the engine at `url`; the text goes where the dialect puts it."""

    state: State
    url: str
    dialect: Dialect
    body: Json
    title: str | None

    async def whole(self, job: JobRecord) -> str | None:
        """The text, where it fits."""
        room = await self._room()
        if job.tokens > room:
            return None
        text = await full_text(self.state, job)
        return text if await self._fits(text, room) else None

    async def as_much_as_fits(self, job: JobRecord) -> str | None:
        """The text, or its beginning and end in equal parts, as LIFT cuts it; None where there is no room."""
        room = await self._room()
        text = await full_text(self.state, job)
        if job.tokens <= room and await self._fits(text, room):
            return text
        half = (room - CUT_TOKENS) // 2
        if half <= 0:
            return None
        reach = half * CHARACTERS_PER_TOKEN
        first, last = await asyncio.gather(self._tokens(text[:reach]), self._tokens(text[-reach:]))
        head, tail = await asyncio.gather(self._text(first[:half]), self._text(last[-half:]))
        return CUT.join(part.strip(HALF_LETTER) for part in (head, tail))

    async def _room(self) -> int:
        """Tokens left for a text beside the question, its framing and its answer."""
        count, window = await self._size("")
        return window - count - self._answer_tokens()

    async def _fits(self, text: str, room: int) -> bool:
        if len(text) > room * CHARACTERS_PER_TOKEN:
            return False
        count, window = await self._size(text)
        return count + self._answer_tokens() <= window

    async def _size(self, text: str) -> tuple[int, int]:
        chat = self.dialect.as_chat(self.dialect.frame(self.body, self.title, text))
        return await self.state.engine.prompt_size(self.url, chat | {"model": self.state.settings.model_name})

    def _answer_tokens(self) -> int:
        """What is no number is left for the engine to refuse."""
        chat = self.dialect.as_chat(self.body)
        asked: Any = chat.get("max_completion_tokens") or chat.get("max_tokens")
        return max(asked if isinstance(asked, int) else 0, ANSWER_TOKENS)

    async def _tokens(self, text: str) -> list[int]:
        return await self.state.engine.tokens(self.url, self.state.settings.model_name, text)

    async def _text(self, tokens: list[int]) -> str:
        return await self.state.engine.text(self.url, self.state.settings.model_name, tokens)


async def full_text(state: State, job: JobRecord) -> str:
    text = await state.records.text(job.key)
    if text is None:
        raise DocumentNotFound
    return text
