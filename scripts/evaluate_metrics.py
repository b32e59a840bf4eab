"""What an answer is worth, and how sure that is: SQuAD's F1 and exact match, contained, refusals, bootstrap intervals.

In: an answer's text, a question of ../shared/eval's format, sums for each question. Out: numbers. Pure.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

DRAWS = 2000
SEED = 0
# What a model says instead of an answer that its document does not hold; in lower case.
REFUSALS = (
    "does not say", "doesn't say", "does not mention", "doesn't mention", "not mentioned", "does not state",
    "doesn't state", "not stated", "does not provide", "doesn't provide", "not provided", "does not specify",
    "doesn't specify", "not specified", "does not contain", "doesn't contain", "not in the document",
    "no information", "not enough information", "cannot answer", "can't answer", "cannot be answered",
    "i don't know", "i do not know", "i'm not sure", "i am not sure", "unanswerable",
)  # fmt: skip
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

Question = Mapping[str, Any]


def measure(qa: Question, said: str) -> dict[str, float]:
    """All that a text answer gives, as 0..1; `needles` only for a question with keywords."""
    golds: Sequence[str] = qa["answers"]
    found = {
        "f1": max(f1(said, gold) for gold in golds),
        "em": float(any(normalized(said) == normalized(gold) for gold in golds)),
        "contained": float(contained(said, golds)),
        "refused": float(is_refusal(said)),
    }
    if qa.get("keywords"):
        found["needles"] = float(all(contained(said, [word]) for word in qa["keywords"]))
    return found


def normalized(text: str) -> str:
    """As SQuAD's own script does: lower case, without punctuation, English articles and wide white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def f1(said: str, gold: str) -> float:
    """Over the words of both, normalized."""
    ours, theirs = normalized(said).split(), normalized(gold).split()
    same = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * same / (len(ours) + len(theirs)) if same else 0.0


def contained(said: str, golds: Sequence[str]) -> bool:
    """Whether one of them stands in the answer, whatever its case and white space."""
    answer = " ".join(said.casefold().split())
    return any(" ".join(gold.casefold().split()) in answer for gold in golds)


def is_refusal(said: str) -> bool:
    answer = said.casefold().replace("’", "'")
    return any(phrase in answer for phrase in REFUSALS)


def choice(likelihoods: Sequence[tuple[float, int]]) -> int:
    """The most likely of several endings by its mean token: each is (negative log-likelihood, tokens)."""
    means = [nll / tokens for nll, tokens in likelihoods]
    return means.index(min(means))


# ---- intervals ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % bootstrap interval; `count` questions went into it."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Sums:
    """A ratio of sums over questions: `top` over `bottom`, by document, one entry a question."""

    top: Mapping[str, Sequence[float]]
    bottom: Mapping[str, Sequence[float]]

    def restricted(self, documents: Sequence[str]) -> Sums:
        return Sums({name: self.top[name] for name in documents}, {name: self.bottom[name] for name in documents})

    def value(self) -> float:
        return float(_flat(self.top).sum() / _flat(self.bottom).sum())

    def draws(self) -> np.ndarray:
        weights = _weights(tuple(len(values) for values in self.top.values()))
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw may hold no question of a rare kind: NaN
            draws: np.ndarray = (weights @ _flat(self.top)) / (weights @ _flat(self.bottom))
        return draws


def estimate(sums: Sums) -> Estimate:
    return _estimate(sums.value(), sums.draws(), sums)


def difference(ours: Sums, theirs: Sums) -> Estimate | None:
    """`ours` less `theirs` on the same questions of the same draws; None without a document in common."""
    common = [name for name in ours.top if name in theirs.top]
    if not common:
        return None
    ours, theirs = ours.restricted(common), theirs.restricted(common)
    return _estimate(ours.value() - theirs.value(), ours.draws() - theirs.draws(), ours)


def _estimate(value: float, draws: np.ndarray, sums: Sums) -> Estimate:
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return Estimate(value, float(low), float(high), int((_flat(sums.bottom) > 0).sum()))


def _flat(values: Mapping[str, Sequence[float]]) -> np.ndarray:
    return np.array([value for row in values.values() for value in row], dtype=float)


@lru_cache(maxsize=8)
def _weights(sizes: tuple[int, ...]) -> np.ndarray:
    """How often each question is in each draw. Documents are drawn first, where there are several, then as many
    questions of each drawn document as it has: questions about one text are right or wrong together."""
    rng = np.random.default_rng(SEED)
    documents = len(sizes)
    times = rng.multinomial(documents, np.full(documents, 1 / documents), size=DRAWS)
    columns = [
        rng.multinomial(times[:, number] * size, np.full(size, 1 / size)) for number, size in enumerate(sizes) if size
    ]
    return np.concatenate(columns, axis=1).astype(float)
