"""Cover: tasks from a segment's own words, so that no sentence goes untrained.

In: a segment. Out: cloze tasks (a blank where a name, a number or a rare word stood) and one that asks for the
whole segment. A fact that the generator wrote no good task about would be lost otherwise (architecture.md's
measurements); raw-text objectives are an idea of LIFT's earlier versions.
"""

from __future__ import annotations

import re
from itertools import pairwise

from lift_config.recipe import Recipe
from lift_config.segment import Segment
from lift_workers.synthesize import SyntheticTask

BLANK = "____"
_WORD = re.compile(r"[^\W_]+(?:['’.,-][^\W_]+)*")
_NAME_GAP = re.compile(r"\s(?:(?:of|the|de|von|van|da|di)\s)?")  # what may stand between a name's words
MIN_WORD_CHARS = 3  # shorter words are seldom what a fact is about

Span = tuple[int, int]


def own_words(segment: Segment, recipe: Recipe) -> list[SyntheticTask]:
    """The tasks `recipe` wants of a segment without a generator; a segment that takes no blank is recited instead."""
    blanks = cloze(segment, recipe.cloze_per_segment)
    wants_recital = recipe.recite or (recipe.cloze_per_segment > 0 and not blanks)
    return blanks + ([recite(segment)] if wants_recital else [])


def recite(segment: Segment) -> SyntheticTask:
    """Ask for the segment by its first words."""
    opening = " ".join(segment.text.split()[:4])[:40]
    return SyntheticTask(segment.number, f'What does the document say after "{opening}"?', segment.text)


def cloze(segment: Segment, count: int) -> list[SyntheticTask]:
    """At most `count` blanks: names and numbers first, then the longest words and pairs of words."""
    text = segment.text
    return [
        SyntheticTask(segment.number, f"Fill in the blank: {text[:start]}{BLANK}{text[end:]}", text[start:end])
        for start, end in _telling(text)[:count]
        if end - start < len(text)
    ]


def _telling(text: str) -> list[Span]:
    """Spans worth asking for, most telling first, none overlapping an earlier one."""
    words = [found.span() for found in _WORD.finditer(text)]
    names = [span for span in _names(text, words) if span[0] > 0 or " " in text[span[0] : span[1]]]
    numbers = [span for span in words if text[span[0]].isdigit()]
    long_words = [span for span in words if span[1] - span[0] >= MIN_WORD_CHARS]
    rest = sorted(_pairs(text, long_words) + long_words, key=lambda span: span[0] - span[1])
    chosen: list[Span] = []
    for start, end in [*names, *numbers, *rest]:
        if all(end <= other_start or start >= other_end for other_start, other_end in chosen):
            chosen.append((start, end))
    return chosen


def _pairs(text: str, words: list[Span]) -> list[Span]:
    """Two words running: "red boots" is one thing."""
    return [(a[0], b[1]) for a, b in pairwise(words) if text[a[1] : b[0]] == " "]


def _names(text: str, words: list[Span]) -> list[Span]:
    """Runs of capitalized words."""
    runs: list[Span] = []
    for start, end in words:
        if not text[start].isupper():
            continue
        if runs and _NAME_GAP.fullmatch(text, runs[-1][1], start):
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs
