"""Cover: tasks from a segment's own words, so that no sentence goes untrained.

In: a segment. Out: cloze tasks (a gap where a name, a number or a rare word stood, in the clause around it) and one
that asks for the whole segment. A fact that the generator wrote no good task about would be lost otherwise
(architecture.md's measurements); raw-text objectives are an idea of LIFT's earlier versions.
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
# Also at dashes, and at the full-width signs of scripts without spaces.
_CLAUSE_END = re.compile(r"[,;:()\u2013\u2014]\s|\s[(\u2013\u2014]|[、\uff0c\uff1b\uff1a]|\n")
_CUT = " ,;:.(\u2013\u2014\n"  # what a clause begins or ends with and a question does not
MIN_CLUE_CHARS = 25  # of a clause beside its gap: less would not say which one is meant
# What begins a sentence and is no name for its capital.
_OPENERS = frozenset((
    "A", "After", "All", "An", "And", "As", "At", "Before", "But", "By", "Each", "For", "From", "He", "Her",
    "His", "However", "If", "In", "It", "Its", "Many", "No", "Not", "Of", "On", "One", "Our", "She", "Since",
    "So", "Some", "Such", "That", "The", "Their", "Then", "There", "These", "They", "This", "Those", "To",
    "Under", "Until", "We", "What", "When", "Where", "Which", "While", "With", "You", "Your",
))  # fmt: skip
_YEAR = re.compile(r"1\d{3}|20\d{2}")
_ENGLISH = frozenset(("the", "and", "of", "with", "from", "this", "that"))

Span = tuple[int, int]


def own_words(segment: Segment, recipe: Recipe) -> list[SyntheticTask]:
    """The tasks `recipe` wants of a segment without a generator; a segment that takes no blank is recited instead."""
    blanks = cloze(segment, recipe.cloze_per_segment)
    if recipe.quote:
        blanks = [blank.quoting(segment) for blank in blanks]
    wants_recital = recipe.recite or (recipe.cloze_per_segment > 0 and not blanks)
    return blanks + ([recite(segment)] if wants_recital else [])


def recite(segment: Segment) -> SyntheticTask:
    """Ask for the segment by its first words."""
    opening = " ".join(segment.text.split()[:4])[:40]
    return SyntheticTask(segment.number, f'What does the document say after "{opening}"?', segment.text)


def cloze(segment: Segment, count: int) -> list[SyntheticTask]:
    """At most `count` gaps: names and numbers first, then the longest words and pairs of words.

    Each asks with its clause alone, as people ask with a part of what a sentence says: more gaps for the same tokens.
    In English as a question; docs/benchmarks/ingredients.md cannot tell its gain over a blank from chance.
    """
    text = segment.text
    gaps = [span for span in _telling(text)[:count] if span[1] - span[0] < len(text)]
    is_english = not _ENGLISH.isdisjoint(text.lower().split())
    asked = _question if is_english else _blank
    return [SyntheticTask(segment.number, *asked(text, gap)) for gap in gaps]


Asked = tuple[str, str, Span]  # question, answer, and where in the question its stand-in is


def _question(text: str, gap: Span) -> Asked:
    """ "He was born in 1809, in Paris" → "He was born in which year?" """
    answer = text[gap[0] : gap[1]]
    before, after = _clause(text, gap)
    before, stand_in = before.lstrip(_CUT), _asking(answer)
    asked = f"{before}{stand_in}{after}".rstrip(_CUT)
    return f"{asked[0].upper()}{asked[1:]}?", answer, (len(before), len(before) + len(stand_in))


def _asking(answer: str) -> str:
    if _YEAR.fullmatch(answer):
        return "which year"
    if answer[0].isdigit():
        return "how many"
    return "who or what" if answer[0].isupper() else "what"


def _blank(text: str, gap: Span) -> Asked:
    before, after = _clause(text, gap)
    begun = f"Fill in the blank: {before}"
    return f"{begun}{BLANK}{after}".rstrip(" ,;:(\n"), text[gap[0] : gap[1]], (len(begun), len(begun) + len(BLANK))


def _clause(text: str, gap: Span) -> tuple[str, str]:
    """What stands before and after the gap in its clause; a short one is taken with those before it, then after it."""
    cuts = [0, *(end.end() for end in _CLAUSE_END.finditer(text)), len(text)]
    first = max(i for i, cut in enumerate(cuts) if cut <= gap[0])
    last = min(i for i, cut in enumerate(cuts) if cut >= gap[1])
    while cuts[last] - cuts[first] - (gap[1] - gap[0]) < MIN_CLUE_CHARS and (first > 0 or last < len(cuts) - 1):
        first, last = (first - 1, last) if first > 0 else (first, last + 1)
    return text[cuts[first] : gap[0]], text[gap[1] : cuts[last]]


def _telling(text: str) -> list[Span]:
    """Spans worth asking for, most telling first, none overlapping an earlier one."""
    words = [found.span() for found in _WORD.finditer(text)]
    names = [span for span in _names(text, words) if span[0] > 0 or " " in text[span[0] : span[1]]]
    names = [span for span in names if text[span[0] : span[1]] not in _OPENERS]
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
