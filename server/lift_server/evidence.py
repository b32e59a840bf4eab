"""Evidence: the segments of a document that speak for or against an answer; a model answering from weights can't quote.

In: a finished answer, its question, its document. Out: the fields of `lift` that `lift.evidence` asks for. Found by
shared words, scored by how much likelier the base model thinks the answer with the segment in its prompt.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lift_config.contract import DocumentRecord, JobRecord
from lift_config.prompts import frame
from lift_server.context import CHARACTERS_PER_TOKEN, converted, last_question
from lift_server.engine import CHAT_ROUTE
from lift_server.errors import as_api_error
from lift_server.passages import Passage, words
from lift_server.question import Json
from lift_server.state import State

SEGMENTS = 3  # told at most
CANDIDATES = 6  # scored at most
SCORED_TOKENS = 64  # of a long answer, its beginning
OWN_ANSWER_TOKENS = 24
SUPPORTS = 1.0  # score, at least; right answers and wrong ones were tried (decision 37)
CONTRADICTS = 0.5  # score, below
NEAR = 0.5  # a name is likelier beside any segment that has it; only one about what was asked supports it


@dataclass(frozen=True)
class Judged:
    """`score`: mean of log p(answer | question, segment) - log p(answer | question), in nats per token."""

    passage: Passage
    score: float
    verdict: str


async def evidence(state: State, found: tuple[DocumentRecord, JobRecord] | None, messages: Any, said: str) -> Json:
    """`messages` as a chat has them. Never raises for what goes wrong: the answer is there and must not be lost."""
    began_s = time.monotonic()
    fields: Json = {"evidence": []}
    try:
        if found and said.strip():
            document, job = found
            question = last_question(messages)
            judged = await state.engine.somewhere(
                job.key, lambda url: Reader(state, url, document.title, question).judge(job, said)
            )
            fields["evidence"] = [_object(one) for one in judged]
    except Exception as error:  # noqa: BLE001 - an edge of its own: told beside the answer, an unforeseen one is logged
        told = as_api_error(error)
        fields = {"evidence": None, "evidence_error": {"code": told.code, "message": told.message}}
    return fields | {"evidence_s": round(time.monotonic() - began_s, 4)}


@dataclass(frozen=True)
class Reader:
    """The base model, which reads one segment at a time with one question in mind."""

    state: State
    url: str
    title: str | None
    question: str

    async def judge(self, job: JobRecord, said: str) -> list[Judged]:
        """What supports first, then what contradicts; within each by score."""
        passages = await self.state.passages.best(
            job.key, partial(converted, self.state, job), self.question, said, CANDIDATES
        )
        scored = await self._scored(passages, said) if passages else []
        if not any(one.verdict == "supports" for one in scored):
            scored = await self._contradicted(scored, said)
        order = ("supports", "contradicts", "unclear")
        return sorted(scored, key=lambda one: (order.index(one.verdict), -one.score))[:SEGMENTS]

    async def _scored(self, passages: list[Passage], said: str) -> list[Judged]:
        """Those that fit the context window."""
        model, beginning = self.state.settings.model_name, said[: SCORED_TOKENS * CHARACTERS_PER_TOKEN]
        tokens, (alone, window), prompts = await asyncio.gather(
            self.state.engine.tokens(self.url, model, beginning),
            self._prompt(None),
            asyncio.gather(*(self._prompt(passage.text) for passage in passages)),
        )
        answer = tokens[:SCORED_TOKENS]
        fitting = [
            (passage, prompt)
            for passage, (prompt, _) in zip(passages, prompts, strict=True)
            if len(prompt) + len(answer) < window
        ]
        rows = [[*prompt, *answer] for prompt in (alone, *(prompt for _, prompt in fitting))]
        without, *beside = await self.state.engine.log_likelihoods(self.url, model, rows, len(answer))
        scores = [(sum(one) - sum(without)) / len(answer) for one in beside]
        return [
            Judged(passage, score, "supports" if supports(self.question, passage, said, score) else "unclear")
            for (passage, _), score in zip(fitting, scores, strict=True)
        ]

    async def _contradicted(self, scored: list[Judged], said: str) -> list[Judged]:
        """Where nothing supports the answer, the question is put to the segment nearest to it."""
        nearest = max(scored, key=lambda one: one.passage.nearness, default=None)
        if nearest is None or nearest.passage.nearness < 1 or nearest.score >= CONTRADICTS:
            return scored
        read = await self._answer_from(nearest.passage)
        if not differs(self.question, nearest.passage.text, said, read):
            return scored
        return [replace(one, verdict="contradicts") if one is nearest else one for one in scored]

    async def _prompt(self, text: str | None) -> tuple[list[int], int]:
        return await self.state.engine.prompt_tokens(self.url, self._body(text))

    async def _answer_from(self, passage: Passage) -> str:
        body = self._body(passage.text) | {"max_tokens": OWN_ANSWER_TOKENS, "temperature": 0}
        message = (await self.state.engine.ask(self.url, CHAT_ROUTE, body))["choices"][0]["message"]
        return message.get("content") or ""

    def _body(self, text: str | None) -> Json:
        asked = [{"role": "user", "content": self.question}]
        return {"model": self.state.settings.model_name, "messages": frame(asked, self.title, text)}


def supports(question: str, passage: Passage, said: str, score: float) -> bool:
    """Whether the segment is about what was asked, has a word of what was answered and makes the answer likelier."""
    answered = set(words(said)) - set(words(question))
    return score >= SUPPORTS and passage.nearness >= NEAR and bool(answered & set(words(passage.text)))


def differs(question: str, segment: str, said: str, read: str) -> bool:
    """Whether the answer has words that neither question nor segment has, and lacks words that were read there."""
    asked, there, answered = (set(words(text)) for text in (question, segment, said))
    told = (set(words(read)) & there) - asked
    return bool(answered - asked - there) and bool(told - answered)


def _object(one: Judged) -> Json:
    passage = one.passage
    return {
        "segment": passage.number,
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
        "score": round(one.score, 4),
        "verdict": one.verdict,
    } | {name: value for name, value in (("heading", passage.heading), ("page", passage.page)) if value is not None}
