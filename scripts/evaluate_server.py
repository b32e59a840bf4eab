"""The same questions to a running product: what its answers are worth, without likelihoods, which it does not tell.

In: its address, documents. Out: units. Each document is uploaded for each recipe, waited for, asked, and deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openai import APIStatusError, AsyncOpenAI

from bench_common import Document
from evaluate_columns import (
    BM25,
    CLOSED_BOOK,
    FEW_SHOT,
    HYBRID,
    IN_CONTEXT,
    LIFT,
    PLAIN,
    SHOTS,
    WHOLE_TEXT,
    Judge,
    Record,
    name_of,
    record,
    retrieved,
)
from evaluate_state import Key, State, Unit
from lift_config.prompts import Message, frame

AT_ONCE = 8  # questions
MAX_WAIT_S = 86_400
POLL_S = 0.5
FREE = (CLOSED_BOOK, BM25)  # framed here, with no document of the server's
TOO_LONG = "context_length_exceeded"

Json = dict[str, Any]


@dataclass(frozen=True)
class ServerPlan:
    documents: Sequence[Document]
    recipes: Sequence[str]
    columns: Sequence[str]
    limit: int

    def units(self) -> list[Key]:
        return [(name_of(document), None, column) for document in self.documents for column in self.of_document()]

    def of_document(self) -> Iterator[str]:
        yield from (column for column in PLAIN if column in self.columns)
        for recipe in self.recipes:
            yield from (f"{kind} {recipe}" for kind in (LIFT, HYBRID) if kind in self.columns)

    def recipe(self, column: str) -> str | None:
        """Whose document a column is asked with; for the text in the prompt any will do."""
        if column in FREE:
            return None
        return self.recipes[0] if column in WHOLE_TEXT else column.partition(" ")[2]


class ServerRun:
    """`address` without /v1. `tell` hears of each unit, `written` of each document."""

    def __init__(
        self,
        address: str,
        key: str,
        plan: ServerPlan,
        state: State,
        judge: Judge | None,
        tell: Callable[[Unit], None],
        written: Callable[[], None],
    ) -> None:
        self._client = AsyncOpenAI(base_url=f"{address.rstrip('/')}/v1", api_key=key or "none", timeout=MAX_WAIT_S)
        self._plan, self._state, self._judge = plan, state, judge
        self._tell, self._written = tell, written

    async def model(self) -> str:
        """The base model's name; it stands first in the list."""
        return (await self._client.models.list()).data[0].id

    async def all(self) -> None:
        model = await self.model()
        for document in self._plan.documents:
            missing = [c for c in self._plan.of_document() if not self._state.has((name_of(document), None, c))]
            for column in missing:
                if column in FREE:
                    await self._unit(document, "", column, model, {}, time.monotonic())
            for recipe in self._plan.recipes:
                if of_it := [column for column in missing if self._plan.recipe(column) == recipe]:
                    await self._uploaded(document, recipe, of_it, model)
            self._written()
        await self._client.close()

    async def _uploaded(self, document: Document, recipe: str, columns: list[str], model: str) -> None:
        began_s = time.monotonic()
        body = {"title": document["title"], "text": document["text"], "recipe": recipe}
        uploaded: Json = await self._client.post("/documents", body=body, cast_to=dict[str, Any])
        try:
            spent = await self._finished(uploaded["id"])
            for column in columns:
                of_it = {} if column in WHOLE_TEXT else spent
                began_s = await self._unit(document, uploaded["id"], column, model, of_it, began_s)
        finally:
            await self._client.delete(f"/documents/{uploaded['id']}", cast_to=object)

    async def _finished(self, document_id: str) -> dict[str, float]:
        """What its versions cost, once no training is wanted any more."""
        while (document := await self._document(document_id))["unfinished"]:
            await asyncio.sleep(POLL_S)  # the product tells of nothing by itself
        if document["status"] != "ready":
            raise SystemExit(f"{document_id}: {document['error'] or document['status']}")
        version, usage = document["adapters"][-1], document["synthesis"] or {}
        names = ("prompt_tokens", "computed_prompt_tokens", "generated_tokens")
        return {"seconds": version["ready_s"]} | {name: usage[name] for name in names if name in usage}

    async def _document(self, document_id: str) -> Json:
        found: Json = await self._client.get(f"/documents/{document_id}", cast_to=dict[str, Any])
        return found

    async def _unit(
        self, document: Document, document_id: str, column: str, model: str, spent: dict[str, float], began_s: float
    ) -> float:
        """Asked, kept and told; the moment it was."""
        refused: str | None = None
        records: list[Record] = []
        try:
            records = await self._records(document, document_id, column, model)
        except APIStatusError as error:
            if error.code != TOO_LONG:
                raise
            refused = TOO_LONG
        now_s = time.monotonic()
        unit = Unit(name_of(document), None, column, records, spent, refused, round(now_s - began_s, 2))
        self._state.add(unit)
        self._tell(unit)
        return now_s

    async def _records(self, document: Document, document_id: str, column: str, model: str) -> list[Record]:
        free, title = asyncio.Semaphore(AT_ONCE), document["title"]
        found = retrieved(document) if column == BM25 else [None] * len(document["qa"])

        async def one(qa: Document, text: str | None) -> Record:
            turns: list[Message] = [*(SHOTS if column == FEW_SHOT else ()), {"role": "user", "content": qa["question"]}]
            framed = frame(turns, title, text) if column in FREE else turns
            async with free:
                said, tokens = await self._ask(model, framed, _extra(column, document_id))
            return record(qa, said, None) | {"prompt_tokens": tokens}

        records = await asyncio.gather(*(one(qa, text) for qa, text in zip(document["qa"], found, strict=True)))
        return [self._judged(qa, each) for qa, each in zip(document["qa"], records, strict=True)]

    async def _ask(self, model: str, messages: list[Message], extra: Mapping[str, Any]) -> tuple[str, int]:
        reply = await self._client.chat.completions.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]  # frame's are of the shape, by another type
            temperature=0,
            max_tokens=self._plan.limit,
            extra_body=extra,
        )
        return reply.choices[0].message.content or "", reply.usage.prompt_tokens if reply.usage else 0

    def _judged(self, qa: Document, found: Record) -> Record:
        if self._judge is None:
            return found
        return found | {"judge": float(self._judge(qa["question"], qa["answers"], found["answer"]))}


def _extra(column: str, document_id: str) -> Json:
    """The product's own fields; the rest is any OpenAI-compatible server's."""
    if column in FREE:
        return {}
    kind, _, recipe = (column, "", "") if column in WHOLE_TEXT else column.partition(" ")
    mode = {IN_CONTEXT: "context", FEW_SHOT: "context", LIFT: "adapter", HYBRID: "hybrid"}[kind]
    lift = {"mode": mode, "max_wait_s": MAX_WAIT_S} | ({"recipe": recipe} if recipe else {})
    return {"document_id": document_id, "lift": lift}
