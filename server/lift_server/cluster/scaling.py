"""How many engines and workers there are to be. In: what is asked and what waits, limits. Out: counts. No I/O.

A worker more where documents wait longer than a first answer may take; an engine more where answers begin too late.
One fewer only after a time in which that would have done, since what starts takes minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

from lift_config.settings import SloSettings

EASE = 0.5  # below this part of the promised time, fewer engines would keep the promise too


@dataclass(frozen=True)
class Load:
    """`waiting`: documents without a version that no worker has taken; `taken`: any that a worker has.

    `ttft_s`: within which nine of ten streamed questions to trained documents got their first token, of late; None
    where too few were asked to tell.
    """

    waiting: int = 0
    oldest_wait_s: float = 0.0
    taken: int = 0
    ttft_s: float | None = None


@dataclass(frozen=True)
class Limits:
    least: int
    most: int


@dataclass(frozen=True)
class Scale:
    """Of one role. `eased_since_s`: since when one fewer would do; None: it would not."""

    count: int
    eased_since_s: float | None = None


def wanted_workers(load: Load, slo: SloSettings, count: int) -> int:
    """How many more, at most as many again as there are; -1 where one has nothing to do."""
    if load.oldest_wait_s > slo.cold_ttft_s:
        return min(load.waiting, count)
    return -1 if load.waiting == 0 and load.taken < count else 0


def wanted_engines(load: Load, slo: SloSettings) -> int:
    """One more, one fewer, or none."""
    if load.ttft_s is not None and load.ttft_s > slo.warm_ttft_s:
        return 1
    return -1 if load.ttft_s is None or load.ttft_s <= slo.warm_ttft_s * EASE else 0


def rescaled(scale: Scale, wanted: int, limits: Limits, *, settled: bool, now_s: float, cool_down_s: float) -> Scale:
    """`settled`: all there are do run. Until then the load does not show yet what they are good for."""
    count, eased_since_s = scale.count, None
    if wanted > 0 and settled:
        count += wanted
    elif wanted < 0:
        eased_since_s = now_s if scale.eased_since_s is None else scale.eased_since_s
        if now_s - eased_since_s >= cool_down_s:
            count, eased_since_s = count - 1, now_s
    return Scale(min(max(count, limits.least), limits.most), eased_since_s)
