"""What each column puts into the prompt, and a document's questions asked that way.

In: a document with questions, a scorer. Out: one record a question, with every metric. What does not fit is cut as LIFT
cuts it in context, to its beginning and end in equal parts; beside an adapter to an excerpt, as the product's `hybrid`
has it (server/lift_server/context.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import bm25s

from bench_common import Document
from evaluate_metrics import choice, measure
from evaluate_scorer import Answered, Tokens
from lift_config.prompts import Message
from lift_config.segment import segment
from lift_server.context import EXCERPT_TOKENS, LONG_TOKENS, NEAR_TOKENS
from lift_server.convert.converter import Converted
from lift_server.passages import Index

CLOSED_BOOK, IN_CONTEXT, FEW_SHOT, BM25 = "closed book", "in context", "few-shot", "BM25"
LIFT, HYBRID = "LIFT", "hybrid"
PLAIN = (CLOSED_BOOK, IN_CONTEXT, FEW_SHOT, BM25)
WHOLE_TEXT = (IN_CONTEXT, FEW_SHOT)
COLUMNS = (*PLAIN, LIFT, HYBRID)
ANSWER_TOKENS = 256  # the product keeps as many free for an answer
CUT = "\n\n[…]\n\n"
CUT_TOKENS = 32
HALF_LETTER = "\ufffd"
PASSAGE_WORDS = 100
PASSAGES = 3
# Questions of no document, with answers as short as the gold ones: an adapter has learned in training how answers look,
# and a part of its lead is that alone.
SHOTS = tuple(
    {"role": role, "content": content}
    for question, answer in (
        ("What is the capital of France?", "Paris"),
        ("How many days are there in a leap year?", "366"),
        ("Why do leaves look green?", "because they reflect green light"),
    )
    for role, content in (("user", question), ("assistant", answer))
)
_WORD = re.compile(r"\w+")

Record = dict[str, Any]
Judge = Callable[[str, Sequence[str], str], bool]  # question, gold answers, answer


class Model(Protocol):
    """What is asked of evaluate_scorer.Scorer here."""

    window: int

    def prompt(self, title: str, question: str, text: str | None, shots: Sequence[Message] = ()) -> Tokens: ...
    def tokens(self, text: str) -> Tokens: ...
    def text(self, tokens: Tokens) -> str: ...
    def answers(self, prompts: Sequence[Tokens], endings: Sequence[Sequence[Tokens]], limit: int) -> list[Answered]: ...


def name_of(document: Document) -> str:
    return str(document.get("doc_id", document["title"]))


def texts(column: str, document: Document, model: Model, window: int) -> list[str | None]:
    """What stands in each question's prompt beside the question."""
    questions = document["qa"]
    if column in WHOLE_TEXT:
        return [as_much_as_fits(document, model, window)] * len(questions)
    if column == HYBRID:
        return excerpts(document, model, window)
    return list(retrieved(document)) if column == BM25 else [None] * len(questions)


def retrieved(document: Document) -> list[str]:
    """For each question the passages that BM25 finds."""
    index = Passages(document["text"])
    return [index.best(qa["question"]) for qa in document["qa"]]


def ask(
    model: Model,
    title: str,
    questions: Sequence[Document],
    found: Sequence[str | None],
    limit: int,
    judge: Judge | None,
    shots: Sequence[Message] = (),
) -> list[Record]:
    """All questions under a document's title, each with what was found for its prompt, behind `shots`."""
    prompts = [model.prompt(title, qa["question"], text, shots) for qa, text in zip(questions, found, strict=True)]
    endings = [_endings(model, qa) for qa in questions]
    answered = model.answers(prompts, endings, limit)
    return [
        record(qa, model.text(one.said), judge) | _likelihoods(qa, one) | {"prompt_tokens": len(prompt)}
        for qa, prompt, one in zip(questions, prompts, answered, strict=True)
    ]


def record(qa: Document, said: str, judge: Judge | None) -> Record:
    """What a text answer gives."""
    found: Record = {"answer": said} | measure(qa, said)
    return found | ({"judge": float(judge(qa["question"], qa["answers"], said))} if judge else {})


def _endings(model: Model, qa: Document) -> list[Tokens]:
    """The first gold answer, then the choices."""
    return [model.tokens(text) for text in (qa["answers"][0], *qa.get("choices", ()))]


def _likelihoods(qa: Document, answered: Answered) -> Record:
    nll, tokens = answered.likelihoods[0]
    choices = answered.likelihoods[1:]
    return {"nll": nll, "tokens": tokens} | ({"choice": float(choice(choices) == qa["gold"])} if choices else {})


# ---- the text in the prompt ---------------------------------------------------------------------------------------


def as_much_as_fits(document: Document, model: Model, window: int) -> str | None:
    """The same for all of a document's questions, so that it is computed once: the longest one decides."""
    text, free = document["text"], room(document, model, window)
    return str(text) if len(model.tokens(text)) <= free else cut(text, free, model)


def excerpts(document: Document, model: Model, window: int) -> list[str | None]:
    """For each question all of the text, a long one with what is near to the question behind it; or that alone."""
    text, questions, free = document["text"], document["qa"], room(document, model, window)
    tokens, index = len(model.tokens(text)), Index(Converted(text, {}))
    if tokens <= LONG_TOKENS and tokens <= free:
        return [text] * len(questions)
    size = NEAR_TOKENS if tokens <= free else min(EXCERPT_TOKENS, free)
    found = [index.excerpt(qa["question"], size * len(text) // tokens) for qa in questions]
    if tokens > free:
        return [near or None for near in found]
    return [text + near if tokens + len(model.tokens(near)) < free else text for near in (CUT + one for one in found)]


def room(document: Document, model: Model, window: int) -> int:
    """Tokens left for a text beside the longest question and its answer."""
    longest = max((qa["question"] for qa in document["qa"]), key=lambda question: len(model.tokens(question)))
    endings = [len(ending) for qa in document["qa"] for ending in _endings(model, qa)]
    return window - max(ANSWER_TOKENS, *endings) - len(model.prompt(document["title"], longest, "", SHOTS))


def cut(text: str, room: int, model: Model) -> str | None:
    """Beginning and end in equal parts, in `room` tokens; None where there is no room."""
    half = (room - CUT_TOKENS) // 2
    if half <= 0:
        return None
    tokens = model.tokens(text)
    head, tail = model.text(tokens[:half]), model.text(tokens[-half:])
    return CUT.join(part.strip(HALF_LETTER) for part in (head, tail))


class Passages:
    """A document's passages, found by BM25 over lower-case words."""

    def __init__(self, text: str) -> None:
        self._passages = passages(text)
        corpus = [words(passage) for passage in self._passages]
        self._known = {word for passage in corpus for word in passage}
        self._index = bm25s.BM25()
        self._index.index(corpus, show_progress=False)

    def best(self, question: str) -> str:
        """The best PASSAGES of them in reading order; the first ones where no word of the question occurs."""
        known = [word for word in words(question) if word in self._known]  # bm25s refuses a query of others only
        scores = self._index.get_scores(known) if known else [0.0] * len(self._passages)
        ranked = sorted(range(len(self._passages)), key=lambda number: -float(scores[number]))
        return "\n\n".join(self._passages[number] for number in sorted(ranked[:PASSAGES]))


def passages(text: str) -> list[str]:
    """Neighbouring segments, joined until there are PASSAGE_WORDS."""
    joined: list[list[str]] = [[]]
    for one in segment(text):
        if sum(len(words(part)) for part in joined[-1]) >= PASSAGE_WORDS:
            joined.append([])
        joined[-1].append(one.text)
    return [" ".join(parts) for parts in joined]


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
