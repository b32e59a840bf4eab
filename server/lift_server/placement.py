"""Which engine a question goes to: the one its adapter belongs to, unless that one is away or has more than its share.

In: a name (an adapter's id, a job's key), what is known of each engine. Out: engines in the order to try them.
Rendezvous hashing (Thaler and Ravishankar 1998) with bounded loads (Mirrokni et al., arXiv 1608.01350). No I/O, and
nothing is kept: every front end that knows the same engines finds the same order, and a hot document spills over to
the same second engine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BALANCE = 1.25  # the paper's c: no engine takes more than so many times the mean
# Below so many requests at once no engine is full, whatever the mean: loading an adapter elsewhere costs more than a
# short wait, and vLLM computes a few requests together at hardly more than the time of one.
FLOOR = 8


@dataclass(frozen=True)
class Load:
    """An engine as a front end sees it. `in_flight`: its own requests there. `is_away`: it did not answer lately."""

    in_flight: int = 0
    is_away: bool = False


def ranked(name: str, urls: Iterable[str]) -> list[str]:
    """By rendezvous hashing, home first: an engine more or less moves only its own share of the names."""
    return sorted(urls, key=lambda url: hashlib.sha256(f"{url} {name}".encode()).digest(), reverse=True)


def order(name: str, engines: Mapping[str, Load]) -> list[str]:
    """Every engine, the one to ask first. Full ones come after those that are not, ones that are away last of all."""
    bound = _bound(list(engines.values()))
    return sorted(
        ranked(name, engines),  # a stable sort: within each kind this order stays
        key=lambda url: (engines[url].is_away, engines[url].in_flight >= bound),
    )


def lightest(name: str, engines: Mapping[str, Load]) -> list[str]:
    """Every engine, for what belongs to none: by load. `name` decides between equals."""
    return sorted(ranked(name, engines), key=lambda url: (engines[url].is_away, engines[url].in_flight))


def _bound(loads: list[Load]) -> int:
    """How many requests fill an engine, the one to be placed included in the mean."""
    here = [load.in_flight for load in loads if not load.is_away]
    return max(FLOOR, math.ceil(BALANCE * (sum(here) + 1) / max(1, len(here))))
