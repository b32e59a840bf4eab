"""A document's text in the prompt: all of it where it fits the engine's context window, or what the question is about.

In: a question, its document's text. Out: text for the prompt. The engine counts: it has the tokenizer and template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from lift_config.contract import JobRecord
from lift_server.convert.converter import Converted
from lift_server.dialects.dialect import Dialect
from lift_server.errors import DocumentNotFound
from lift_server.passages import CUT
from lift_server.places import Whereabouts
from lift_server.question import Json
from lift_server.state import State

ANSWER_TOKENS = 256  # kept free for an answer; more where more was asked for
EXCERPT_TOKENS = 1024  # of a text that does not fit: the first token waits for all of them
NEAR_TOKENS = 300  # said once more behind a text that fits
LONG_TOKENS = 4 * NEAR_TOKENS  # a text from which on that is worth its prefill
LEAST_CHARS = 100
SAMPLE_CHARS = 4000  # of a text that no worker has counted yet: what a token of it comes to
SMALLER = 0.8  # the next try, where an excerpt's tokens turn out to be too many
# Texts average half a character (Chinese, small vocabulary) to five a token; only single tokens are far longer, runs of
# blanks. One above this bound may fit in theory; it is taken not to: an excerpt will do. Else megabytes went in vain.
CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True)
class Fitted:
    """What of a text goes into the prompt."""

    text: str
    is_excerpt: bool


@dataclass(frozen=True)
class Prompt:
    """A question about a document, for the engine at `url`; the text goes where the dialect puts it."""

    state: State
    url: str
    dialect: Dialect
    body: Json
    title: str | None

    async def as_much_as_fits(self, job: JobRecord) -> Fitted | None:
        """The text, or an excerpt of it that is near to the question; None where there is no room."""
        around, window = await self._size("")
        room = window - around - self._answer_tokens()
        text = await full_text(self.state, job)
        if job.tokens <= room and len(text) <= room * CHARACTERS_PER_TOKEN:
            tokens = await self._tokens(text, around)
            if tokens <= room:
                return Fitted(await self._with_near(job, text, tokens, room, around), is_excerpt=False)
        tokens = job.tokens or await self._estimated_tokens(text, around)
        chars = min(room, EXCERPT_TOKENS) * len(text) // tokens
        while chars >= LEAST_CHARS:
            excerpt = await self._excerpt(job, chars)
            if await self._tokens(excerpt, around) <= room:
                return Fitted(excerpt, is_excerpt=True) if excerpt else None
            chars = int(chars * SMALLER)
        return None

    async def _with_near(self, job: JobRecord, text: str, tokens: int, room: int, around: int) -> str:
        """The text and behind it, where it is long, what of it is near to the question: a small model finds it there
        far more often, and all before it is the same for every question, which the engine keeps."""
        if tokens <= LONG_TOKENS:
            return text
        near = CUT + await self._excerpt(job, NEAR_TOKENS * len(text) // tokens)
        return text + near if tokens + await self._tokens(near, around) < room else text

    async def _excerpt(self, job: JobRecord, chars: int) -> str:
        question = last_question(self.dialect.as_chat(self.body)["messages"])
        return await self.state.passages.excerpt(job.key, partial(converted, self.state, job), question, chars)

    async def _estimated_tokens(self, text: str, around: int) -> int:
        """By its beginning."""
        sample = text[:SAMPLE_CHARS]
        return max(1, await self._tokens(sample, around) * len(text) // max(1, len(sample)))

    async def _tokens(self, text: str, around: int) -> int:
        """Beside the `around` of question and framing."""
        return (await self._size(text))[0] - around

    async def _size(self, text: str) -> tuple[int, int]:
        """Tokens of the whole prompt, and what the window holds."""
        chat = self.dialect.as_chat(self.dialect.frame(self.body, self.title, text))
        return await self.state.engine.prompt_size(self.url, chat | {"model": self.state.settings.model_name})

    def _answer_tokens(self) -> int:
        """What is no number is left for the engine to refuse."""
        chat = self.dialect.as_chat(self.body)
        asked: Any = chat.get("max_completion_tokens") or chat.get("max_tokens")
        return max(asked if isinstance(asked, int) else 0, ANSWER_TOKENS)


async def full_text(state: State, job: JobRecord) -> str:
    text = await state.records.text(job.key)
    if text is None:
        raise DocumentNotFound
    return text


async def converted(state: State, job: JobRecord) -> Converted:
    """The text with its places."""
    return Converted(await full_text(state, job), await state.records.places(job.key))


async def whereabouts(state: State, job: JobRecord) -> Whereabouts:
    """The text is read only where it has headings."""
    places = await state.records.places(job.key)
    return Whereabouts(await full_text(state, job) if places.get("headings") else "", places)


def last_question(messages: Any) -> str:
    """The text of the last user turn, as far as it is text: whether it may be anything else is the engine's affair."""
    asked: Json = next((message for message in reversed(messages) if message.get("role") == "user"), {})
    content = asked.get("content")
    parts = [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else [content]
    return "\n".join(part for part in parts if isinstance(part, str))
