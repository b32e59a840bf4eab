"""Segment: a document's text → segments, each a sentence-sized span with the text just before it.

In: normalised text (str, any language, code, with or without line breaks). Out: Segments in reading order;
every character that is not white space lies in exactly one of them. Sentences are found by `sentencex`
(LIFT v4 uses sentences too: every_sentence.py); what is too long is cut, what is too short is joined.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sentencex import segment as split_sentences

logger = logging.getLogger(__name__)

MIN_CHARS = 40  # shorter sentences, headings and lines of code join what follows them
MAX_CHARS = 400  # longer spans are cut: one task can't cover them, and the prompt must fit any window
CONTEXT_CHARS = 400  # text just before a segment, so that "it" and "he" have a meaning
_PARAGRAPH = re.compile(r"\n\s*\n")
_LINE = re.compile(r"\n")
BLOCK_CHARS = 8000  # the sentence splitter takes more than linear time on a long line
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
_PAUSE = re.compile(r"[\s,;:，、；：。．]")  # where a long sentence may be cut, best at its end
_STOP = re.compile(r"[.!?。！？…]\s*")  # where a long line may be


Span = tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """`text` is the span itself, from character `start` on; `context` at most CONTEXT_CHARS characters before it."""

    number: int
    text: str
    context: str
    start: int = 0

    @property
    def span(self) -> Span:
        return self.start, self.start + len(self.text)


def segment(text: str) -> list[Segment]:
    """Split `text`; empty where it holds nothing but white space."""
    spans = list(_joined(text, _sentences(text)))
    return [Segment(number, text[start:end], _context(text, start), start) for number, (start, end) in enumerate(spans)]


def _sentences(text: str) -> Iterator[Span]:
    """Sentences of each line, cut to MAX_CHARS, without surrounding white space."""
    for block_start, block_end in _blocks(text):
        # sentencex 1.0 panics on some spaces of several bytes ("vitamine C\u00a0. Puis"); the length stays the same.
        block = _WIDE_SPACE.sub(" ", text[block_start:block_end])
        position = 0
        for piece in _split_sentences(block):
            sentence = piece.strip()
            if not sentence:
                continue
            # The splitter may drop white space between sentences, so its pieces are looked up again.
            start = block.index(sentence, position)
            position = start + len(sentence)
            yield from _cut(text, block_start + start, block_start + position, MAX_CHARS, _PAUSE)


def _split_sentences(block: str) -> list[str]:
    """A block the splitter can't take is one sentence, to be cut at its pauses: no text fails a document."""
    try:
        return list(split_sentences("en", block))
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Rust's panic, which PyO3 keeps out of Exception
            raise
        logger.warning("the sentence splitter panicked on a block of %d characters", len(block))
        return [block]


def _blocks(text: str) -> Iterator[Span]:
    for start, end in _lines(text):
        yield from _cut(text, start, end, BLOCK_CHARS, _STOP)


def _lines(text: str) -> Iterator[Span]:
    """Paragraphs; a paragraph of short lines (code, lists, verse) line by line, a wrapped one as a whole."""
    for start, end in _split(text, 0, len(text), _PARAGRAPH):
        lines = list(_split(text, start, end, _LINE))
        wrapped = len(lines) > 1 and all(_is_wrapped(text[a:b]) for a, b in lines[:-1])
        yield from [(start, end)] if wrapped else lines


def _is_wrapped(line: str) -> bool:
    """A line that a hard wrap ended: long, and in the middle of a sentence or at its end."""
    return len(line) >= 55 and not line.startswith((" ", "\t", "#", "|"))


def _split(text: str, start: int, end: int, separator: re.Pattern[str]) -> Iterator[Span]:
    for found in separator.finditer(text, start, end):
        if text[start : found.start()].strip():
            yield start, found.start()
        start = found.end()
    if text[start:end].strip():
        yield start, end


def _cut(text: str, start: int, end: int, limit: int, pause: re.Pattern[str]) -> Iterator[Span]:
    """Pieces of at most `limit` characters, cut behind the last `pause` in a piece's second half, if any."""
    while end - start > limit:
        half = start + limit // 2
        cuts = [found.end() for found in pause.finditer(text, half, start + limit)]
        yield start, (cuts or [start + limit])[-1]
        start = (cuts or [start + limit])[-1]
    if end > start:
        yield start, end


def _joined(text: str, spans: Iterator[Span]) -> Iterator[Span]:
    """Join spans shorter than MIN_CHARS with the next one, while the two stay below MAX_CHARS."""
    held: Span | None = None
    for start, end in spans:
        if held and end - held[0] > MAX_CHARS:
            yield held
            held = None
        held = (held[0] if held else start, end)
        if _weight(text[held[0] : held[1]]) >= MIN_CHARS:
            yield held
            held = None
    if held:
        yield held


def _weight(text: str) -> int:
    """Length in Latin letters: a character of a script without spaces says about three times as much."""
    return sum(3 if ord(character) >= 0x2E80 else 1 for character in text if not character.isspace())


def _context(text: str, start: int) -> str:
    """The characters before `start`, from a word's beginning on."""
    begin = max(0, start - CONTEXT_CHARS)
    before = text[begin:start]
    if begin and (space := re.search(r"\s", before)):
        before = before[space.end() :]
    return before.strip()
