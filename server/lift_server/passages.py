"""Passages of a document that share words with a question or an answer: BM25 over the segments training used.

In: a document's text, a question, an answer. Out: Passages, best first, or an excerpt to be read. Indexes are built
in a thread, one at a time, and the ones last used are kept.
"""

from __future__ import annotations

import asyncio
import logging
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter

import bm25s
import numpy as np

from lift_config.segment import segment
from lift_server.convert.converter import Converted
from lift_server.places import Whereabouts

KEPT_CHARS = 8_000_000  # of documents' texts; an index takes some ten bytes a character
# Scripts without spaces between words; a run of their letters is searched by pairs. Katakana's middle dot is no letter.
WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
WORD = re.compile(rf"[{WITHOUT_SPACES}\U00020000-\U0003ffff]+|[^\W{WITHOUT_SPACES}\U00020000-\U0003ffff]+")
IS_WITHOUT_SPACES = re.compile(rf"[{WITHOUT_SPACES}\U00020000-\U0003ffff]")

CUT = "\n\n[…]\n\n"
LEAD_SHARE = 1 / 8  # of an excerpt: what a text is about stands at its beginning
SMALLEST = float(np.finfo(np.float32).tiny)

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG


@dataclass(frozen=True)
class Passage:
    """Segment `number`, `text`[`start`:`end`] of the document. `nearness`: to the question, the nearest one's is 1.
    `heading` above it and `page`, where the document has such."""

    number: int
    start: int
    end: int
    text: str
    nearness: float
    heading: str | None = None
    page: int | None = None


class Passages:
    """The documents last searched, up to KEPT_CHARS characters of text and at least one."""

    def __init__(self, kept_chars: int = KEPT_CHARS) -> None:
        self._kept_chars = kept_chars
        self._kept: OrderedDict[str, Index] = OrderedDict()
        self._lock = asyncio.Lock()

    async def best(
        self, key: str, text: Callable[[], Awaitable[Converted]], question: str, answer: str, count: int
    ) -> list[Passage]:
        """Of the document `key`, whose text is only read where it is not kept."""
        index = await self._index(key, text)
        return await asyncio.to_thread(index.best, question, answer, count)

    async def excerpt(self, key: str, text: Callable[[], Awaitable[Converted]], question: str, chars: int) -> str:
        """As Index.excerpt; the text as in `best`."""
        index = await self._index(key, text)
        return await asyncio.to_thread(index.excerpt, question, chars)

    async def forget(self, key: str) -> None:
        """Call after the text was deleted; one that was read before is dropped as well."""
        async with self._lock:
            self._kept.pop(key, None)

    async def _index(self, key: str, text: Callable[[], Awaitable[Converted]]) -> Index:
        async with self._lock:
            kept = self._kept.pop(key, None)
            index = kept if kept is not None else await asyncio.to_thread(Index, await text())
            self._kept[key] = index
            self._shrink()
        return index

    def _shrink(self) -> None:
        while len(self._kept) > 1 and sum(len(index.text) for index in self._kept.values()) > self._kept_chars:
            self._kept.popitem(last=False)


class Index:
    """One document's segments and the words in them."""

    def __init__(self, converted: Converted) -> None:
        self.text = text = converted.text
        self._where = Whereabouts(text, converted.places)
        self._spans = [one.span for one in segment(text)]
        self._bm25 = bm25s.BM25()
        found = [words(text[start:end]) for start, end in self._spans]
        self._has_words = any(found)
        if self._has_words:
            self._bm25.index(found, show_progress=False)

    def best(self, question: str, answer: str, count: int) -> list[Passage]:
        """At most `count` that share a word with either."""
        of_question, of_answer = self._scores(question), self._scores(answer)
        scores, most = of_question + of_answer, max(float(of_question.max(initial=0)), SMALLEST)
        order = np.argsort(-scores, kind="stable")[:count]
        return [self._passage(int(at), float(of_question[at]) / most) for at in order if scores[at] > 0]

    def excerpt(self, question: str, chars: int) -> str:
        """At most `chars` of the text in reading order, CUT where something is left out: its beginning, what shares
        most with the question, each with a segment before and after it, and, where room is left, more from above."""
        chosen: set[int] = set()
        for number in self._by_worth(question, chars):
            start, end = self._spans[number]
            chars -= end - start + len(CUT)
            if chars < -len(CUT):
                break
            chosen.add(number)
        return CUT.join(self.text[start:end] for start, end in self._runs(sorted(chosen)))

    def _by_worth(self, question: str, chars: int) -> Iterator[int]:
        """Every segment once."""
        lead = bisect_right(self._spans, chars * LEAD_SHARE, key=itemgetter(1))
        scores = self._scores(question)
        nearest = (int(at) for at in np.argsort(-scores, kind="stable") if scores[at] > 0)
        around = (number for at in nearest for number in (at, at + 1, at - 1) if 0 <= number < len(scores))
        yield from dict.fromkeys(chain(range(lead), around, range(len(scores))))

    def _runs(self, numbers: list[int]) -> Iterator[tuple[int, int]]:
        """Where they stand, neighbours as one span."""
        for _, run in groupby(enumerate(numbers), key=lambda one: one[1] - one[0]):
            together = [number for _, number in run]
            yield self._spans[together[0]][0], self._spans[together[-1]][1]

    def _scores(self, text: str) -> np.ndarray:
        """Of every segment; each word counts once."""
        known = sorted(set(words(text)) & self._bm25.vocab_dict.keys()) if self._has_words else []
        scores = self._bm25.get_scores(known) if known else np.zeros(len(self._spans))
        return np.asarray(scores, dtype=np.float64)

    def _passage(self, number: int, nearness: float) -> Passage:
        start, end = self._spans[number]
        where = self._where
        return Passage(number, start, end, self.text[start:end], nearness, where.heading(start, end), where.page(start))


def words(text: str) -> list[str]:
    """Lower-case words; of a script without spaces, pairs of letters."""
    found = (run.group() for run in WORD.finditer(text.lower()))
    return [word for run in found for word in (_pairs(run) if IS_WITHOUT_SPACES.match(run) else [run])]


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]
