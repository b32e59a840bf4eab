"""What bench_ttft.py's measurements come to: time that no phase explains, a line through the lengths, tables, a plot.

In: runs as they stand in the JSON file. Out: values, Markdown lines, an SVG. Nothing here measures.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_common import SPEED_ONLY, TABLES, table

Spans = Mapping[str, Mapping[str, float | None]]
WAITING = "wait"  # the question waits for the other phases: it explains nothing
WORK = ("segment", "synthesize", "train", "publish")
SHOWN = ("upload", "queue", *WORK, WAITING, "load", "prefill")


@dataclass(frozen=True)
class Crowd:
    """So many questions at the same moment, and their times to first token."""

    mode: str
    at_once: int
    median_s: float
    worst_s: float


@dataclass(frozen=True)
class Run:
    """A document never seen before. `phases` from the upload's first byte; `ttft_s` of the cold question, likewise.

    `context_s`: with the text in the prompt, the first time and then repeated; empty where it does not fit.
    """

    title: str
    tokens: int
    recipe: str
    ttft_s: float
    server_ttft_s: float
    phases: dict[str, dict[str, float | None]]
    uncovered_s: float
    versions: list[dict[str, Any]]
    synthesis: dict[str, int]
    timeline: dict[str, dict[str, float | None]]
    warm_s: list[float] = field(default_factory=list)
    context_s: list[float] = field(default_factory=list)
    crowds: list[Crowd] = field(default_factory=list)
    memory_mb: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Together:
    """The same texts one after the other and then at once. `_first`: up to first versions, `_all`: up to last ones."""

    tokens: list[int]
    alone_first_s: list[float]
    alone_all_s: list[float]
    alone_ttft_s: list[float]
    together_first_s: float
    together_all_s: float
    together_ttft_s: list[float]


# ---- values -------------------------------------------------------------------------------------------------------


def intervals(phases: Spans, names: Sequence[str], until_s: float) -> list[tuple[float, float]]:
    """The merged spans of `names`, cut at `until_s`; a phase without an end lasts until then."""
    spans = [
        (p["start_s"] or 0.0, until_s if p["end_s"] is None else p["end_s"]) for n, p in phases.items() if n in names
    ]
    merged: list[tuple[float, float]] = []
    for start_s, end_s in sorted((max(0.0, start_s), min(end_s, until_s)) for start_s, end_s in spans):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end_s))
        elif end_s > start_s:
            merged.append((start_s, end_s))
    return merged


def covered(phases: Spans, names: Sequence[str], until_s: float) -> float:
    """Seconds in which at least one of `names` was under way."""
    return sum(end_s - start_s for start_s, end_s in intervals(phases, names, until_s))


def uncovered(phases: Spans, until_s: float) -> float:
    """Seconds up to `until_s` that no phase accounts for, waiting not counted as one."""
    return until_s - covered(phases, [name for name in phases if name != WAITING], until_s)


def shifted(phases: Spans, by_s: float) -> dict[str, dict[str, float | None]]:
    """The same phases seen from an origin that lies `by_s` earlier."""
    return {
        name: {edge: None if at_s is None else round(at_s + by_s, 4) for edge, at_s in span.items()}
        for name, span in phases.items()
    }


@dataclass(frozen=True)
class Line:
    """Least squares: seconds = `fixed_s` + `per_1k_s` for 1,000 tokens. `r2`: 1 is a straight line."""

    fixed_s: float
    per_1k_s: float
    r2: float


def line(points: Sequence[tuple[float, float]]) -> Line | None:
    """Through (tokens, seconds); None without two different lengths."""
    tokens, seconds = [x for x, _ in points], [y for _, y in points]
    if len(set(tokens)) < 2:
        return None
    slope, fixed_s = statistics.linear_regression(tokens, seconds)
    r2 = statistics.correlation(tokens, seconds) ** 2 if len(set(seconds)) > 1 else 1.0
    return Line(fixed_s, 1000 * slope, r2)


def quality(names: Sequence[str], folder: Path = TABLES) -> dict[str, str]:
    """By recipe, what evaluate.py's tables of those names say of its adapters."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        columns = json.loads((folder / f"{name}.json").read_text("utf-8"))["columns"]
        for column in columns:
            kind, _, version = column.partition(" ")
            if kind == "LIFT":
                found[version.split("/")[-1]].append(f"[{name}]({name}.md): {_quality(columns, column)}")
    return {recipe: "; ".join(told) for recipe, told in found.items()}


def _quality(columns: Mapping[str, Any], column: str) -> str:
    """A draft's version stands for its recipe: `balanced/fast` is what `fast` leaves behind."""
    beside = (f"{name} {_answered(columns[name])}" for name in ("closed book", "in context") if name in columns)
    return f"{_answered(columns[column])} ({'; '.join(beside)})"


def _answered(column: Mapping[str, Any]) -> str:
    contained, nll = column["metrics"]["contained"], column["metrics"].get("nll")
    right = f"{contained['value'] * contained['count']:.0f} of {contained['count']} right"
    return f"{right}, {nll['value']:.2f} nats a token" if nll else right


# ---- tables -------------------------------------------------------------------------------------------------------


def tables(runs: Sequence[Run], together: Together | None, qualities: Mapping[str, str] | None) -> Iterator[str]:
    """`qualities` by recipe; None where the weights are random."""
    yield from table(
        ("tokens", "version that answered", "**cold TTFT s**", "as the server says", "in no phase s", "warm TTFT s",
         "context, first s", "context, again s"),
        (
            (run.tokens, run.recipe, f"**{run.ttft_s:.2f}**", f"{run.server_ttft_s:.2f}", f"{run.uncovered_s:.3f}",
             _median(run.warm_s), _seconds(next(iter(run.context_s), None)), _median(run.context_s[1:]))
            for run in runs
        ),
    )  # fmt: skip
    if fit := line([(run.tokens, run.ttft_s) for run in runs]):
        yield ""
        yield f"Cold TTFT ≈ {fit.fixed_s:.2f} s + {fit.per_1k_s:.2f} s for 1,000 tokens (R² {fit.r2:.3f})."
    yield ""
    yield from _qualities(runs, qualities)
    yield from _section("Phases of the cold question", "Start and end in seconds from the upload's first byte.")
    yield from table(("tokens", *SHOWN), ([run.tokens, *(_span(run.phases.get(n)) for n in SHOWN)] for run in runs))
    yield from _section("Versions, synthesis, memory", "Time to ready by version; peak resident memory in the run.")
    yield from table(
        ("tokens", "versions: ready after s", "prompt tokens", "of them computed", "generated tokens", "memory MB"),
        (
            (run.tokens, "; ".join(f"{v['recipe']} {v['ready_s']:.1f}" for v in run.versions),
             run.synthesis.get("prompt_tokens"), run.synthesis.get("computed_prompt_tokens"),
             run.synthesis.get("generated_tokens"), ", ".join(f"{n} {m:.0f}" for n, m in run.memory_mb.items()))
            for run in runs
        ),
    )  # fmt: skip
    yield from _crowds(runs)
    if together:
        yield from _together(together)


def _qualities(runs: Sequence[Run], qualities: Mapping[str, str] | None) -> Iterator[str]:
    if qualities is None:
        yield f"Quality: none ({SPEED_ONLY}). The tasks trained are recorded ones (`scripts/bench_worker.py`)."
        return
    for recipe in sorted({run.recipe for run in runs}):
        yield f"Quality of `{recipe}`: {qualities.get(recipe, 'not measured')}."


def _crowds(runs: Sequence[Run]) -> Iterator[str]:
    crowds = [(run.tokens, crowd) for run in runs for crowd in run.crowds]
    if not crowds:
        return
    yield from _section("Questions at the same moment", "Warm; time to first token.")
    yield from table(
        ("tokens", "mode", "questions", "median s", "worst s"),
        ((tokens, c.mode, c.at_once, f"{c.median_s:.3f}", f"{c.worst_s:.3f}") for tokens, c in crowds),
    )


def _together(all_: Together) -> Iterator[str]:
    number = all_.together_ttft_s.index(min(all_.together_ttft_s))
    compared = {
        "all first versions": (sum(all_.alone_first_s), all_.together_first_s),
        "all last versions": (sum(all_.alone_all_s), all_.together_all_s),
        "cold TTFT of the first one": (all_.alone_ttft_s[number], all_.together_ttft_s[number]),
    }
    yield from _section(
        f"{len(all_.tokens)} documents at once",
        "Alone: their own training work, segmenting to publishing, of the same texts one after the other, summed.",
    )
    rows = (
        (what, f"{alone:.2f}", f"{at_once:.2f}", f"{at_once / alone:.2f}")
        for what, (alone, at_once) in compared.items()
    )
    yield from table(("", "alone s", "together s", "ratio"), rows)


def _section(title: str, words: str) -> Iterator[str]:
    yield from ("", f"## {title}", "", words, "")


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _median(values: Sequence[float]) -> str | None:
    return _seconds(statistics.median(values) if values else None)


def _span(span: Mapping[str, float | None] | None) -> str | None:
    if span is None:
        return None
    return " … ".join("?" if span[edge] is None else f"{span[edge]:.2f}" for edge in ("start_s", "end_s"))


# ---- the plot -----------------------------------------------------------------------------------------------------


def plot(runs: Sequence[Run], path: Path, label: str = "") -> None:
    """Cold TTFT with its line; what a question costs afterwards; memory. All against the document's length."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "lift"  # the same figures give the same bytes
    from matplotlib import pyplot

    figure, (cold, later, memory) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    _dots(cold, "cold, LIFT", [(run.tokens, run.ttft_s) for run in runs])
    if fit := line([(run.tokens, run.ttft_s) for run in runs]):
        ends = [0, max(run.tokens for run in runs)]
        label = f"{fit.fixed_s:.2f} s + {fit.per_1k_s:.2f} s per 1,000 tokens"
        cold.plot(ends, [fit.fixed_s + fit.per_1k_s * end / 1000 for end in ends], "--", label=label)
    _dots(later, "warm, LIFT", [(r.tokens, statistics.median(r.warm_s)) for r in runs if r.warm_s])
    _dots(later, "in context, first", [(run.tokens, run.context_s[0]) for run in runs if run.context_s])
    again = [(run.tokens, statistics.median(run.context_s[1:])) for run in runs if run.context_s[1:]]
    _dots(later, "in context, again", again)
    for name in sorted({name for run in runs for name in run.memory_mb}):
        _dots(memory, name, [(run.tokens, run.memory_mb[name]) for run in runs if name in run.memory_mb])
    for axes, title, unit in (
        (cold, "Cold TTFT", "s"),
        (later, "TTFT of later questions", "s"),
        (memory, "Peak resident memory", "MB"),
    ):
        axes.set(title=title, xlabel="document, tokens", ylabel=unit, xlim=(0, None), ylim=(0, None))
        if axes.has_data():
            axes.legend()
    if label:
        figure.suptitle(label)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _dots(axes: Any, label: str, points: Sequence[tuple[float, float]]) -> None:
    if points:
        axes.plot(*zip(*sorted(points), strict=True), "o", label=label)
