"""Owners at work on a running product, as stock clients: upload, ask, look, list, cancel, delete, and try each other's.

In: keys. Out: facts in the journal. A refusal that a document's owner could act on is no violation while parts die; a
500, a lost document, another owner's document, an answer of another document's adapter, and silence are.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI
from tests.faults.journal import Fate, Journal, Said
from tests.product import BASE

TITLE = "Register"  # of every document, and one question for all: what differs in the answers is the adapter
QUESTION = "What does the register say of the lamp?"
ANSWER_TOKENS = 6
PATIENCE_S = 20  # for a training
SILENT_S = 120.0  # whoever hears nothing for so long was forgotten: the longest start of an engine is shorter
MOST_KEPT = 8  # documents of an owner

# What may be said while parts die, always with what to do about it. Everything else is a violation.
ALLOWED = {
    "document_not_ready", "document_failed", "document_cancelled", "document_not_active", "engine_unavailable",
    "engine_error", "redis_unavailable", "server_stopping",
}  # fmt: skip
GONE = {"document_not_found"}
SYLLABLES = ("bra", "nok", "vel", "tis", "mor", "gan", "ilu", "pedd", "sor", "quil", "hest", "ande", "ruf", "zem")


class Load:
    """One owner. `others` are the ids that other owners have, to be tried with this key."""

    def __init__(self, name: str, url: str, secret: str, journal: Journal, seed: int) -> None:
        self.name = name
        self.journal = journal
        self.owned = journal.owners[name]
        self._draw = random.Random(f"{name} {seed} {journal.count}")
        self._client = AsyncOpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0, timeout=SILENT_S)

    async def run(self, stop: asyncio.Event) -> None:
        weights: dict[Callable[[], Awaitable[None]], int] = {
            self.upload: 22, self.ask: 40, self.look: 10, self.show_all: 6, self.cancel: 5, self.delete: 10,
            self.ask_base: 4, self.pry: 8,
        }  # fmt: skip
        while not stop.is_set():
            await self._tell(self._draw.choices(list(weights), list(weights.values()))[0])

    async def close(self) -> None:
        await self._client.close()

    # ---- what an owner does ----

    async def upload(self) -> None:
        """Something new; now and then what this owner, or another one, has already."""
        if len(self.owned.below(Fate.DELETING)) >= MOST_KEPT:
            return await self.delete()
        text = self._text()
        body = {"text": text, "title": TITLE, "recipe": self._draw.choices(["sketch", "balanced"], [7, 1])[0]}
        try:
            document: Any = await self._client.post("/documents", cast_to=object, body=body)
        except (openai.APIError, httpx2.HTTPError):
            self.journal.upload_lost(self.name)  # it may have been taken in, and its answer lost
            raise
        self.journal.uploaded(self.name, document["id"], text)

    async def ask(self) -> None:
        if document := self._one():
            await self.ask_about(document)

    async def ask_about(self, document: str) -> None:
        """A greedy answer with its log-probabilities."""
        extra = {"document_id": document, "lift": {"max_wait_s": PATIENCE_S}}
        try:
            await (self._streamed if self._draw.random() < 0.5 else self._whole)(document, extra)
        except openai.APIError as error:
            self._check_gone(error, document)
            raise

    async def ask_base(self) -> None:
        await self._whole(None, {})

    async def look(self) -> None:
        if document := self._one():
            try:
                found: Any = await self._client.get(f"/documents/{document}", cast_to=object)
            except openai.APIError as error:
                self._check_gone(error, document)
                raise
            self._check_seen(found)

    async def show_all(self) -> None:
        page: Any = await self._client.get("/documents", cast_to=object, options={"params": {"limit": 100}})
        for document in page["data"]:
            self._check_seen(document)

    async def cancel(self) -> None:
        if document := self._one():
            await self._cancel(document)

    async def _cancel(self, document: str) -> None:
        self.journal.fate(self.name, document, Fate.CANCELLING)
        await self._client.post(f"/documents/{document}/cancel", cast_to=object)

    async def cancel_unfinished(self) -> None:
        """All that is still to be trained, at the end."""
        page: Any = await self._client.get("/documents", cast_to=object, options={"params": {"limit": 100}})
        for document in page["data"]:
            if document["unfinished"]:
                if document["id"] not in self.owned.fates:
                    self.journal.uploaded(self.name, document["id"], "")  # its answer had been lost
                await self._tell(partial(self._cancel, document["id"]))  # it may have ended this moment

    async def delete(self) -> None:
        if document := self._one():
            self.journal.fate(self.name, document, Fate.DELETING)
            await self._client.delete(f"/documents/{document}", cast_to=object)
            self.journal.fate(self.name, document, Fate.DELETED)

    async def pry(self) -> None:
        """Another owner's document is not there."""
        others = [d for name, owned in self.journal.owners.items() if name != self.name for d in sorted(owned.fates)]
        if not others:
            return
        document = self._draw.choice(others)
        try:
            if self._draw.random() < 0.5:
                await self._whole(document, {"document_id": document, "lift": {"max_wait_s": 0}})
            else:
                await self._client.get(f"/documents/{document}", cast_to=object)
        except openai.NotFoundError:
            return
        self.journal.violation(f"{self.name} was let at {document}, which is another owner's")

    # ---- how ----

    async def _whole(self, document: str | None, extra: dict[str, Any]) -> None:
        answer: Any = await self._client.chat.completions.create(**_question(extra))
        said = [(one.token, one.logprob) for one in answer.choices[0].logprobs.content]
        self._note_answer(document, answer.model_extra["lift"], said)

    async def _streamed(self, document: str, extra: dict[str, Any]) -> None:
        said: Said = []
        lift = None
        stream: Any = await self._client.chat.completions.create(**_question(extra), stream=True)
        async for chunk in stream:
            lift = (chunk.model_extra or {}).get("lift", lift)
            for choice in chunk.choices:
                if choice.logprobs:
                    said += [(one.token, one.logprob) for one in choice.logprobs.content]
        if lift is None:
            self.journal.violation(f"a stream about {document} ended without an error and without `lift`")
            return
        self._note_answer(document, lift, said)

    def _note_answer(self, document: str | None, lift: dict[str, Any], said: Said) -> None:
        if lift["document_id"] != document or (document is not None and lift["answered_from"] != "adapter"):
            self.journal.violation(f"asked about {document}, answered {lift}")
        self.journal.answered(self.name, document, lift["adapter_id"], said)

    async def _tell(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it, and see to it that whatever it ends with is one of the ways it may end."""
        began_s = time.monotonic()
        try:
            await act()
        except (openai.APITimeoutError, httpx2.TimeoutException):
            self.journal.violation(f"{_name(act)}: silence for {time.monotonic() - began_s:.0f} s")
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            self.journal.refuse(f"connection lost: {type(error).__name__}")
            await asyncio.sleep(0.2)  # the server is being started; a client waits a little too
        except openai.APIError as error:
            code = str(error.code)
            if code in GONE:
                return  # checked where the document is known
            if code not in ALLOWED:
                self.journal.violation(f"{_name(act)}: {getattr(error, 'status_code', '-')} {code}: {error.message}")
            self.journal.refuse(code)
            if code in ("redis_unavailable", "engine_unavailable", "server_stopping"):
                await asyncio.sleep(0.5)  # Retry-After says more

    def _one(self) -> str | None:
        """A document of this owner, rarely one that was just deleted."""
        known = sorted(self.owned.below(Fate.DELETED if self._draw.random() < 0.05 else Fate.DELETING))
        return self._draw.choice(known) if known else None

    def _check_gone(self, error: openai.APIError, document: str) -> None:
        if error.code in GONE and self.owned.fates[document] < Fate.DELETING:
            self.journal.violation(f"{document} of {self.name} is gone")

    def _check_seen(self, document: dict[str, Any]) -> None:
        """What an owner is shown must be its own; what it deleted does not come back."""
        document_id = document["id"]
        if document_id not in self.owned.fates:
            if not self.owned.lost:
                self.journal.violation(f"{self.name} is shown {document_id}, which it never uploaded")
        elif self.owned.fates[document_id] == Fate.DELETED:
            self.journal.violation(f"{document_id} of {self.name} was deleted and is back")

    def _text(self) -> str:
        texts = sorted({text for owned in self.journal.owners.values() for text in owned.texts.values()})
        if texts and self._draw.random() < 0.2:
            return self._draw.choice(texts)
        name, place, keeper, dog = (self._word() for _ in range(4))
        year, steps = self._draw.randint(1500, 1900), self._draw.randint(12, 999)
        return (
            f"The lamp {name} hangs in the tower of {place} and was lit by {keeper} in {year}. "
            f"Its keeper has a dog called {dog}. The register counts {steps} steps to the lamp."
        )

    def _word(self) -> str:
        return "".join(self._draw.choices(SYLLABLES, k=3)).capitalize()


def _name(act: Callable[[], Awaitable[None]]) -> str:
    return str(act.func.__name__ if isinstance(act, partial) else act.__name__)


def _question(extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": BASE,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": ANSWER_TOKENS,
        "logprobs": True,
        "extra_body": extra,
    }
