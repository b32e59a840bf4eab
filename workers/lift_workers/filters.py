"""Filters: which of the generator's questions and answers may become synthetic tasks.

In: a question or an answer, the segment it was written about. Out: whether it speaks of the segment and stands there.
"""

from __future__ import annotations

import re

from lift_config.segment import Segment

QUESTION_MARKS = ("?", "？", "؟")
MAX_ANSWER_SHARE = 0.7  # of the segment: an answer that repeats it whole answers nothing
MIN_ANSWER_SCORE = -1.0  # mean log-probability below which an answer is a guess
MIN_GROUNDED = 0.6  # of a question's own words that must occur in its segment, context or title
STEM = 5  # characters two forms of a word share
_WORD = re.compile(r"[^\W_]+")
_ASKING = frozenset(
    _WORD.findall(
        "a an the of in on at to is was are were be been by for and or with from that this which who whom whose what "
        "when where how why did does do it its as many much name named called"
    )
)


def is_grounded(question: str, segment: Segment, title: str | None) -> bool:
    """Whether a question asks about something the segment, its context or the title speaks of."""
    known = words_only(f"{segment.text} {segment.context} {title or ''}")
    stems = {word[:STEM] for word in known.split()}
    own = [word for word in words_only(question).split() if word not in _ASKING]
    found = sum(word[:STEM] in stems or (not word.isascii() and _shares_run(word, known)) for word in own)
    return bool(own) and found >= MIN_GROUNDED * len(own)


def is_supported(answer: str, score: float, question: str, segment: Segment) -> bool:
    """Whether the answer stands in the segment, is not given away by its question, and is more than a guess."""
    text, question, answer = map(words_only, (segment.text, question, answer))
    if not answer or score < MIN_ANSWER_SCORE or len(answer) > MAX_ANSWER_SHARE * len(text):
        return False
    return _within(answer, text) and not _within(answer, question)


def words_only(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _within(part: str, whole: str) -> bool:
    """On word boundaries, but within a word where the script has no spaces."""
    return f" {part} " in f" {whole} " or (not part.isascii() and part in whole)


def _shares_run(word: str, known: str) -> bool:
    """Two characters running: what a word is where a script writes none."""
    return any(word[i : i + 2] in known for i in range(len(word) - 1))
