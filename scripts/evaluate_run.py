"""The run in one process: every document in every column, adapters trained in between, each finished unit told at once.

In: a plan, a scorer, what is measured already. Out: units.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property

from bench_common import Document
from evaluate_columns import CLOSED_BOOK, FEW_SHOT, HYBRID, LIFT, PLAIN, SHOTS, Judge, Record, ask, name_of, texts
from evaluate_harm import General, instructions
from evaluate_scorer import Scorer
from evaluate_state import Key, State, Unit
from evaluate_training import Train, Version
from lift_config.recipe import load_recipes

HARM = "harm"
OFF_TOPIC, GENERAL, BASE = "off-topic", "general", "base"


@dataclass(frozen=True)
class Plan:
    """What is to be measured. `courses`: evaluate_training.courses; `limit` in tokens of a greedy answer."""

    documents: Sequence[Document]
    seeds: Sequence[int]
    columns: Sequence[str]
    courses: Mapping[str, Sequence[str | None]]
    limit: int
    window: int

    def units(self) -> list[Key]:
        """Every unit, in the order of the run."""
        return [key for document in self.documents for key in (*self.plain(document), *self.trained(document))]

    def plain(self, document: Document) -> Iterator[Key]:
        """Without an adapter."""
        for column in PLAIN:
            if column in self.columns:
                yield name_of(document), None, column
        if self._has_off_topic() and self.courses:
            yield name_of(document), None, f"{OFF_TOPIC} {BASE}"

    def trained(self, document: Document) -> Iterator[Key]:
        for seed in self.seeds:
            for recipe in self.courses:
                yield from self.of(document, seed, recipe)

    def of(self, document: Document, seed: int, recipe: str) -> Iterator[Key]:
        """With the versions of one training."""
        for version in self.courses[recipe]:
            for column in self._columns_of(version):
                yield name_of(document), seed, column

    def after(self, document: Document) -> Document:
        """The document whose questions are off this one's topic."""
        return self.documents[(self.documents.index(document) + 1) % len(self.documents)]

    def _columns_of(self, version: str | None) -> Iterator[str]:
        """The text beside an adapter is asked of recipes' own versions only, not of drafts on the way."""
        if version is None:
            return
        if LIFT in self.columns:
            yield f"{LIFT} {version}"
        if HYBRID in self.columns and "/" not in version:
            yield f"{HYBRID} {version}"
        if self._has_off_topic():
            yield f"{OFF_TOPIC} {version}"
        if HARM in self.columns:
            yield f"{GENERAL} {version}"

    def _has_off_topic(self) -> bool:
        return HARM in self.columns and len(self.documents) > 1


class Run:
    """`tell` hears of each unit, `written` of each document when all its units are there."""

    def __init__(
        self,
        plan: Plan,
        scorer: Scorer,
        state: State,
        judge: Judge | None,
        tell: Callable[[Unit], None],
        written: Callable[[], None],
    ) -> None:
        self._plan, self._scorer, self._state, self._judge = plan, scorer, state, judge
        self._tell, self._written = tell, written

    async def all(self, workshop: AbstractAsyncContextManager[Train]) -> None:
        """The workshop is opened only where something is left to train."""
        wanted = [key for d in self._plan.documents for key in self._plan.trained(d) if not self._state.has(key)]
        if not wanted:
            await self._documents(None)
            return
        if HARM in self._plan.columns:
            _ = self._general  # the base model's own replies: before the first adapter
        async with workshop as train:
            await self._documents(train)

    async def _documents(self, train: Train | None) -> None:
        for document in self._plan.documents:
            self._units(document, list(self._plan.plain(document)), {})
            if train:
                for seed in self._plan.seeds:
                    for recipe in self._plan.courses:
                        await self._adapters(document, seed, recipe, train)
            self._written()

    async def _adapters(self, document: Document, seed: int, recipe: str, train: Train) -> None:
        """Trained again where one of its units is missing: adapters are not kept."""
        keys = list(self._plan.of(document, seed, recipe))
        if all(self._state.has(key) for key in keys):
            return
        began_s = time.monotonic()
        versions = await train(document, load_recipes()[recipe].model_copy(update={"seed": seed}))
        for name, version in zip(self._plan.courses[recipe], versions, strict=True):
            own = [key for key in keys if key[2].partition(" ")[2] == name]
            if own:
                began_s = self._version(document, own, version, began_s)
            shutil.rmtree(version.folder)

    def _version(self, document: Document, keys: list[Key], version: Version, began_s: float) -> float:
        with self._scorer.adapter(version.folder):
            return self._units(document, keys, version.spent, began_s)

    def _units(
        self, document: Document, keys: list[Key], spent: dict[str, float], began_s: float | None = None
    ) -> float:
        """The moment up to which time has been laid to a unit's account."""
        began_s = began_s or time.monotonic()
        for key in keys:
            if self._state.has(key):
                continue
            records = self._records(document, key[2])
            now_s = time.monotonic()
            unit = Unit(*key, records, spent, wall_s=round(now_s - began_s, 2))
            self._state.add(unit)
            self._tell(unit)
            began_s = now_s
        return began_s

    def _records(self, document: Document, column: str) -> list[Record]:
        kind = column if column in PLAIN else column.partition(" ")[0]
        if kind == GENERAL:
            return self._general.records()
        if kind == OFF_TOPIC:
            questions, kind = self._plan.after(document)["qa"], CLOSED_BOOK
            found: list[str | None] = [None] * len(questions)
        else:
            questions, found = document["qa"], texts(kind, document, self._scorer, self._plan.window)
        judge = None if column.startswith(OFF_TOPIC) else self._judge
        shots = SHOTS if kind == FEW_SHOT else ()
        return ask(self._scorer, document["title"], questions, found, self._plan.limit, judge, shots)

    @cached_property
    def _general(self) -> General:
        return General(self._scorer, instructions())
