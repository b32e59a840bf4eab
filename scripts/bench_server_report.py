"""What bench_server.py's bursts come to: times added, ratios, CPU per chunk. In: bursts; out: a summary, tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench_common import table
from bench_server_client import Burst, Plan

FIRST_TOKEN = Plan(streams=1, tokens=4)  # asked many times over
HELD = 512  # streams and more: where memory of each is more than noise


@dataclass(frozen=True)
class Comparison:
    """The same bursts both ways; those of one index followed each other. `asked`: the base model, or a document.

    `idle_bytes`: the server's memory before the first of them, the uncounted ones included.
    """

    asked: str
    plan: Plan
    direct: list[Burst]
    served: list[Burst]
    idle_bytes: int

    @property
    def ratios(self) -> list[float]:
        """Tokens a second through the server as a share of the direct ones, round by round."""
        return [
            served.tokens_per_s / direct.tokens_per_s for direct, served in zip(self.direct, self.served, strict=True)
        ]

    @property
    def cpu_s_per_1k_chunks(self) -> float:
        """Of the server; what a request costs is spread over its chunks."""
        return 1000 * sum(burst.cpu_s or 0.0 for burst in self.served) / sum(burst.chunks for burst in self.served)

    @property
    def chunks_per_core_s(self) -> float:
        """What one core could relay, were it only the server's."""
        return 1000 / self.cpu_s_per_1k_chunks if self.cpu_s_per_1k_chunks else math.inf

    @property
    def memory_kib_per_stream(self) -> float:
        peak_bytes = max(burst.memory_bytes or 0 for burst in self.served)
        return (peak_bytes - self.idle_bytes) / 1024 / self.plan.streams

    def line(self) -> str:
        """What is shown while it runs."""
        before_ms, after_ms = (1000 * percentile(ttfts(bursts), 50) for bursts in (self.direct, self.served))
        paced = f" at {self.plan.chunks_per_s:g}/s" if self.plan.chunks_per_s else ""
        return (
            f"{self.asked}, {self.plan.streams} x {self.plan.tokens}{paced}: "
            f"{_percent(statistics.median(self.ratios))} % of direct, TTFT {before_ms:.1f} → {after_ms:.1f} ms, "
            f"{self.cpu_s_per_1k_chunks:.3f} CPU s per 1,000 chunks"
        )


def ttfts(bursts: Sequence[Burst]) -> list[float]:
    return [one for burst in bursts for one in burst.ttft_s]


def delays(bursts: Sequence[Burst]) -> list[float]:
    return [one for burst in bursts for one in burst.delays_s]


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that at least so many percent of them do not exceed. ValueError without values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


# ---- what is kept ---------------------------------------------------------------------------------------------------


def summary(one: Comparison) -> dict[str, Any]:
    """For the JSON: what the tables are made of. The single delays of a million chunks would be 20 MB."""
    return {
        "asked": one.asked,
        "plan": asdict(one.plan),
        "direct": _way(one.direct),
        "served": _way(one.served),
        "of_direct": _spread(one.ratios),
        "cpu_s_per_1k_chunks": one.cpu_s_per_1k_chunks,
        "idle_bytes": one.idle_bytes,
    }


def _way(bursts: Sequence[Burst]) -> dict[str, Any]:
    """Of all rounds; `cpu_s` and `memory_bytes` None where no server was asked."""
    speeds = [burst.tokens_per_s for burst in bursts]
    cpu_s = [burst.cpu_s for burst in bursts if burst.cpu_s is not None]
    return {
        "rounds": len(bursts),
        "wall_s": sum(burst.wall_s for burst in bursts),
        "chunks": sum(burst.chunks for burst in bursts),
        "tokens": sum(burst.tokens for burst in bursts),
        "tokens_per_s": _spread(speeds),
        "ttft_s": _percentiles(ttfts(bursts)),
        "delays_s": _percentiles(delays(bursts)),
        "cpu_s": sum(cpu_s) if cpu_s else None,
        "memory_bytes": max((burst.memory_bytes for burst in bursts if burst.memory_bytes is not None), default=None),
        "memory_by_round": [
            {"before": burst.before_bytes, "most": burst.memory_bytes, "after": burst.after_bytes} for burst in bursts
        ],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """None without values: only the stand-in's chunks say when they were sent."""
    if not values:
        return None
    return {"count": len(values)} | {f"p{percent}": percentile(values, percent) for percent in (50, 95, 99, 100)}


# ---- tables -------------------------------------------------------------------------------------------------------


def tables(compared: Sequence[Comparison]) -> list[str]:
    """Times to first token, bursts as fast as they come, and, where the engine was told its pace, the delays; the
    memory of many streams, round by round."""
    paced = [one for one in compared if one.plan.chunks_per_s is not None]
    bursts = [one for one in compared if one not in paced and one.plan != FIRST_TOKEN]
    lines = [*_first([one for one in compared if one.plan == FIRST_TOKEN]), "", *_bursts(bursts)]
    lines += ["", *_paced(paced)] if paced else []
    held = [one for one in paced if one.plan.streams >= HELD]
    return [*lines, "", *_memory(held)] if held else lines


def _first(compared: Sequence[Comparison]) -> list[str]:
    header = ["asked", "questions", "direct p50", "server p50", "added", "direct p95", "server p95", "added"]
    rows = [[one.asked, len(one.direct), *_added(ttfts(one.direct), ttfts(one.served))] for one in compared]
    return ["Warm time to first token at one stream, ms:", "", *table(header, rows)]


def _bursts(compared: Sequence[Comparison]) -> list[str]:
    header = [
        "asked", "streams", "tokens each", "rounds", "direct tokens/s", "server tokens/s", "of direct", "rounds' range",
        "CPU s per 1,000 chunks", "chunks/s per core",
    ]  # fmt: skip
    rows = [
        [
            one.asked, one.plan.streams, one.plan.tokens, len(one.direct), _speed(one.direct), _speed(one.served),
            f"{_percent(statistics.median(one.ratios))} %",
            f"{_percent(min(one.ratios))} to {_percent(max(one.ratios))} %", *_cost(one),
        ]
        for one in compared
    ]  # fmt: skip
    return ["Total tokens a second as fast as they come, medians of the rounds:", "", *table(header, rows)]


def _paced(compared: Sequence[Comparison]) -> list[str]:
    header = [
        "streams", "chunks/s of each", "direct p50", "server p50", "added", "direct p95", "server p95", "added",
        "CPU s per 1,000 chunks", "chunks/s per core", "KiB per stream",
    ]  # fmt: skip
    rows = [
        [
            one.plan.streams, f"{one.plan.chunks_per_s:g}", *_added(delays(one.direct), delays(one.served)),
            *_cost(one), f"{one.memory_kib_per_stream:.0f}" if one.plan.streams >= HELD else None,
        ]
        for one in compared
    ]  # fmt: skip
    return [
        "Streams at a set pace, each chunk by itself, all in the same moments as a batch makes them; from a",
        "chunk sent by the engine to the same one read by the client, ms:",
        "",
        *table(header, rows),
    ]


def _memory(compared: Sequence[Comparison]) -> list[str]:
    """Whether it is bounded, and comes to rest: from the second round on it is to stay where it is."""
    header = ["streams", "round", "before", "most", "after", "after, against round 1"]
    rows = [
        [
            one.plan.streams, number, _mb(burst.before_bytes), _mb(burst.memory_bytes), _mb(burst.after_bytes),
            _grown(one, burst),
        ]
        for one in compared
        for number, burst in enumerate(one.served, 1)
    ]  # fmt: skip
    idle = ", ".join(_mb(one.idle_bytes) for one in compared)
    return [
        "The server's resident memory with many streams at once, MB, in each round: before its first stream, the",
        f"most within it, after its last. Before the first, uncounted burst: {idle}.",
        "",
        *table(header, rows),
    ]


def _mb(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / 1e6:.1f}"


def _grown(one: Comparison, burst: Burst) -> str:
    first_bytes = one.served[0].after_bytes
    known = burst.after_bytes is not None and first_bytes is not None
    return f"{((burst.after_bytes or 0) - (first_bytes or 0)) / 1e6:+.1f}" if known else "-"


def _added(direct: Sequence[float], served: Sequence[float]) -> list[str]:
    """Both ways and their difference, at the median and at the 95th percentile, in ms."""
    cells = []
    for percent in (50, 95):
        before_ms, after_ms = (1000 * percentile(values, percent) for values in (direct, served))
        cells += [f"{before_ms:.1f}", f"{after_ms:.1f}", f"{after_ms - before_ms:+.1f}"]
    return cells


def _cost(one: Comparison) -> list[str]:
    return [f"{one.cpu_s_per_1k_chunks:.3f}", f"{one.chunks_per_core_s:.0f}"]


def _speed(bursts: Sequence[Burst]) -> str:
    return f"{statistics.median(burst.tokens_per_s for burst in bursts):.0f}"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}"
