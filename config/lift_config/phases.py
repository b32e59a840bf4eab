"""Phases of a document's or a request's way, and the one timeline they are reported on.

In: wall-clock instants (Unix seconds, since the phases of one document are timed by several processes).
Out: `{phase: {"start_s", "end_s"}}`, seconds from one origin. Phases overlap and are never summed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """Where time goes between an upload's first byte and an answer's first token."""

    QUEUE = "queue"  # accepted, no worker yet
    SEGMENT = "segment"
    SYNTHESIZE = "synthesize"
    TRAIN = "train"  # overlaps SYNTHESIZE; its end includes the export
    PUBLISH = "publish"  # checksums, blobs, record
    REFINE = "refine"  # after the first version: everything up to the last one
    ACCEPT = "accept"  # a question's first byte → its document found, its recipe chosen
    WAIT = "wait"  # a request waiting for its document's adapter
    LOAD = "load"  # adapter into the engine
    FIT = "fit"  # how much of the text fits the prompt
    PREFILL = "prefill"  # request sent to the engine → first token back


Span = tuple[float, float | None]  # start and end in Unix seconds; no end: it still runs


@dataclass
class Timeline:
    """When each phase began and ended."""

    spans: dict[Phase, Span] = field(default_factory=dict)

    def start(self, phase: Phase, at_s: float | None = None) -> None:
        """Open `phase`; a phase started twice (a retry) keeps its first start."""
        begun = self.spans.get(phase)
        self.spans[phase] = (begun[0] if begun else _now(at_s), None)

    def end(self, phase: Phase, at_s: float | None = None) -> None:
        """Close `phase`. KeyError where it was never started."""
        self.spans[phase] = (self.spans[phase][0], _now(at_s))

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """`phase` lasts as long as the block."""
        self.start(phase)
        try:
            yield
        finally:
            self.end(phase)

    def seconds(self, phase: Phase) -> float | None:
        """How long `phase` took; None where it has not ended."""
        start_s, end_s = self.spans.get(phase, (0.0, None))
        return None if end_s is None else end_s - start_s

    def relative_to(self, origin_s: float) -> dict[str, dict[str, float | None]]:
        """The timeline as users see it. Work that ended before `origin_s` (an earlier upload of the same
        content) is left out; work under way at `origin_s` starts at 0."""
        return {
            phase.value: {
                "start_s": round(max(0.0, start_s - origin_s), 3),
                "end_s": None if end_s is None else round(end_s - origin_s, 3),
            }
            for phase, (start_s, end_s) in self.spans.items()
            if end_s is None or end_s >= origin_s
        }

    def to_values(self) -> dict[str, Span]:
        """What JSON can hold of it."""
        return {phase.value: span for phase, span in self.spans.items()}

    @classmethod
    def from_values(cls, values: dict[str, Span]) -> Timeline:
        return cls({Phase(name): (start_s, end_s) for name, (start_s, end_s) in values.items()})


def _now(at_s: float | None) -> float:
    return time.time() if at_s is None else at_s
