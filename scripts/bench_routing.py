"""Where questions go among several engines: how often to one that holds the adapter already, how evenly, what a leaving
engine moves.

In: engines, documents, questions, a seed. Out: docs/benchmarks/<out>.md and .json. The policy is the server's own
module (lift_server/placement.py); engines and questions are simulated: arrivals at random, each question at its engine
for an exponential time, each engine with room for so many adapters, the least recently asked leaving first.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

from bench_common import given, stated, table, where, write
from lift_server.placement import Load, lightest, order, ranked

Policy = Callable[[str, Mapping[str, Load], random.Random], str]


@dataclass
class Engines:
    """What one run knows and counts. `seen`: for each front end, its own questions at each engine."""

    urls: Sequence[str]
    room: int
    front_ends: int
    held: dict[str, OrderedDict[str, None]] = field(init=False)
    seen: list[Counter[str]] = field(init=False)
    took: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    fullest: list[float] = field(default_factory=list)  # at each question, the fullest engine against the mean

    def __post_init__(self) -> None:
        self.held = {url: OrderedDict() for url in self.urls}
        self.seen = [Counter() for _ in range(self.front_ends)]

    def begin(self, front_end: int, url: str, name: str, *, counts: bool) -> None:
        self.seen[front_end][url] += 1
        adapters = self.held[url]
        is_held = name in adapters
        adapters[name] = None
        adapters.move_to_end(name)
        if len(adapters) > self.room:
            adapters.popitem(last=False)
        if counts:
            self.hits += is_held
            self.took[url] += 1
            in_flight = [sum(seen[url] for seen in self.seen) for url in self.urls]
            self.fullest.append(max(in_flight) * len(in_flight) / sum(in_flight))


def main() -> int:
    arguments = _parser().parse_args()
    urls = [f"http://engine-{number:02d}:8100" for number in range(arguments.engines)]
    rows = [
        {"policy": name, "front ends": front_ends, **_measured(arguments, urls, policy, front_ends), "moved": moved}
        for name, policy, front_ends, moved in _policies(arguments, urls)
    ]
    values = {"measured": where("-"), "arguments": vars(arguments), "rows": rows}
    write(arguments.out, values, list(_report(values, arguments)))
    return 0


def simulate(arguments: argparse.Namespace, urls: Sequence[str], policy: Policy, front_ends: int) -> Engines:
    """The first third fills the engines and is not counted. The same questions at the same times for every policy."""
    questions, choices = random.Random(arguments.seed), random.Random(arguments.seed + 1)
    weights = list(accumulate(1 / rank**arguments.zipf for rank in range(1, arguments.documents + 1)))
    engines = Engines(urls, arguments.room, front_ends)
    rate = arguments.in_flight * len(urls)  # questions a second, each a second long on average
    now_s = 0.0
    ends: list[tuple[float, int, str]] = []
    for number in range(arguments.questions):
        now_s += questions.expovariate(rate)
        while ends and ends[0][0] <= now_s:
            _, front_end, url = heapq.heappop(ends)
            engines.seen[front_end][url] -= 1
        (document,) = questions.choices(range(arguments.documents), cum_weights=weights)
        front_end, name = questions.randrange(front_ends), f"document {document}"
        loads = {url: Load(engines.seen[front_end][url]) for url in urls}
        url = policy(name, loads, choices)
        engines.begin(front_end, url, name, counts=number >= arguments.questions // 3)
        heapq.heappush(ends, (now_s + questions.expovariate(1), front_end, url))
    return engines


def _policies(arguments: argparse.Namespace, urls: Sequence[str]) -> Iterator[tuple[str, Policy, int, float | None]]:
    """Name, policy, front ends, the share of documents that one leaving engine moves; None where none has a place."""
    home = lru_cache(maxsize=None)(lambda name: ranked(name, urls)[0])
    names = [f"document {number}" for number in range(arguments.documents)]
    moved = sum(home(name) != ranked(name, urls[1:])[0] for name in names) / len(names)
    yield "random", lambda name, loads, choices: choices.choice(urls), 1, None
    yield "least loaded", lambda name, loads, choices: lightest(str(choices.random()), loads)[0], 1, None
    yield "rendezvous", lambda name, loads, choices: home(name), 1, moved
    for front_ends in (1, 4):
        yield (
            "rendezvous, bounded (the server's)",
            lambda name, loads, choices: order(name, loads)[0],
            front_ends,
            moved,
        )


def _measured(arguments: argparse.Namespace, urls: Sequence[str], policy: Policy, front_ends: int) -> dict[str, float]:
    engines = simulate(arguments, urls, policy, front_ends)
    counted, fullest = engines.took.total(), sorted(engines.fullest)
    return {
        "held": engines.hits / counted,
        "spread": max(engines.took.values()) * len(urls) / counted,
        "fullest p50": fullest[len(fullest) // 2],
        "fullest p99": fullest[len(fullest) * 99 // 100],
    }


def _report(values: dict[str, Any], arguments: argparse.Namespace) -> Iterator[str]:
    yield from (
        f"# {arguments.out}: which engine is asked",
        "",
        f"`{' '.join(('scripts/bench_routing.py', *given(arguments, _parser())))}`; " + stated(values["measured"]),
        "",
        f"Simulated: {arguments.engines} engines with room for {arguments.room} adapters each, {arguments.documents} "
        f"documents asked by Zipf's law with exponent {arguments.zipf}, on average {arguments.in_flight} questions at",
        f"once for each engine; {arguments.questions} questions, the first third not counted. The bounded policy is",
        "the server's own module. Each front end knows the questions that it sent itself, clients ask any of them.",
        "",
    )
    rows = [
        (
            row["policy"],
            row["front ends"],
            f"{100 * row['held']:.1f} %",
            f"{row['spread']:.2f}",
            f"{row['fullest p50']:.2f}",
            f"{row['fullest p99']:.2f}",
            "-" if row["moved"] is None else f"{100 * row['moved']:.2f} %",
        )
        for row in values["rows"]
    ]
    columns = (
        "policy", "front ends", "asked where the adapter is held", "most questions of an engine / mean",
        "fullest engine at a moment / mean, p50", "p99", "documents moved when one engine leaves",
    )  # fmt: skip
    yield from table(columns, rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=16)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=300_000)
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of the documents' popularity")
    parser.add_argument("--room", type=int, default=128, help="adapters that an engine holds")
    parser.add_argument("--in-flight", type=int, default=16, help="questions at once for each engine, on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="routing", help="name of the table below docs/benchmarks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
