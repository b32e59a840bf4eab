"""Passages of a document that share words with a question or an answer: BM25 over the segments training used.

In: a document's text, a question, an answer. Out: Passages, best first. Indexes are built in a thread, one at a time,
and the ones last used are kept.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

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
        async with self._lock:
            kept = self._kept.pop(key, None)
            index = kept if kept is not None else await asyncio.to_thread(Index, await text())
            self._kept[key] = index
            self._shrink()
        return await asyncio.to_thread(index.best, question, answer, count)

    async def forget(self, key: str) -> None:
        """Call after the text was deleted; one that was read before is dropped as well."""
        async with self._lock:
            self._kept.pop(key, None)

    def _shrink(self) -> None:
        while len(self._kept) > 1 and sum(len(index.text) for index in self._kept.values()) > self._kept_chars:
            self._kept.popitem(last=False)


class Index:
    """One document's segments and the words in them."""

    def __init__(self, converted: Converted) -> None:
        self.text = text = converted.text
        self._where = Whereabouts(text, converted.places)
        self._spans = list(_spans(text))
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


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the segments stand, which are pieces of the text in reading order."""
    end = 0
    for one in segment(text):
        start = text.index(one.text, end)
        end = start + len(one.text)
        yield start, end
