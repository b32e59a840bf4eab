"""Bad requests by the ten thousand to a running server: none may end in a 500, take a second, or leave memory behind.

In: a seed, how many cases or seconds. Out: docs/benchmarks/<out>.md and .json; exit code 1 where something was found,
with the numbers of the cases: `--first N --cases 1` sends one again. The server is a process of its own with a real
Valkey and a folder as store; engine and worker are the tests' stand-ins.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_common import stated, table, where, write
from bench_server_parts import NAME
from fuzz_cases import Case, case
from fuzz_server import CONVERSION_S, WAITS, Serving, serving

AT_ONCE = 8
SLOW_S = 1.0
SWEEP = 500  # after so many cases documents that were made are deleted, and memory is looked at


@dataclass
class Found:
    """`wrong`: a line for each case that must not be."""

    took_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    memory_mb: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(len(took) for took in self.took_s.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long, however many they are")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="the server's log")
    parser.add_argument("--out", default="", help="name of the table below docs/benchmarks; none: only what is printed")
    arguments = parser.parse_args()
    measured = where(NAME)
    found = asyncio.run(
        fuzz(
            arguments.seed, range(arguments.first, arguments.first + arguments.cases), arguments.seconds, arguments.log
        )
    )
    if arguments.out:
        _write(arguments, measured, found)
    print("\n".join(found.wrong) or f"{found.cases} cases, nothing wrong")
    return 1 if found.wrong else 0


async def fuzz(seed: int, numbers: range, seconds: float = float("inf"), log: Path | None = None) -> Found:
    found, until_s = Found(), time.monotonic() + seconds
    async with serving(log) as server:
        for first in range(numbers.start, numbers.stop, SWEEP):
            if time.monotonic() > until_s:
                break
            waiting = iter(range(first, min(first + SWEEP, numbers.stop)))
            await asyncio.gather(*(_some(server, seed, waiting, found) for _ in range(AT_ONCE)))
            await server.sweep()
            found.memory_mb.append(round(server.resident_mb(), 1))
            print(f"{found.cases} cases, {found.memory_mb[-1]} MB, {len(found.wrong)} wrong", flush=True)
    return found


async def _some(server: Serving, seed: int, numbers: Iterator[int], found: Found) -> None:
    for number in numbers:
        one = case(seed, number, server.documents)
        status, took_s = await server.send(one)
        if _is_slow(one, took_s):  # alone it is told whether the request or the machine is slow
            status, took_s = await server.send_alone(one)
        found.took_s[one.kind].append(took_s)
        found.statuses[one.kind][status] += 1
        if status == 500 or (status == 0 and one.is_whole) or _is_slow(one, took_s):
            found.wrong.append(f"case {number} of seed {seed}, {one.kind}: status {status} after {took_s:.2f} s")
            print(found.wrong[-1], flush=True)


def _is_slow(one: Case, took_s: float) -> bool:
    return took_s > (CONVERSION_S if one.kind in WAITS else SLOW_S)


# ---- the table ----------------------------------------------------------------------------------------------------


def _write(arguments: argparse.Namespace, measured: dict[str, str], found: Found) -> None:
    lines = {kind: _line(found, kind) for kind in sorted(found.took_s)}
    quarter = found.memory_mb[len(found.memory_mb) // 4 :]
    write(
        arguments.out,
        {"measured": measured, "cases": found.cases, "first": arguments.first, "seed": arguments.seed}
        | {"kinds": lines, "memory_mb": found.memory_mb, "wrong": found.wrong},
        [
            f"# {arguments.out}: bad requests",
            "",
            f"`scripts/fuzz.py --first {arguments.first} --cases {found.cases} --seed {arguments.seed}`; "
            + stated(measured),
            f"{found.cases} cases, {AT_ONCE} at once, against one front end with a real Valkey and stand-ins for",
            f"engine and worker. Status or code 500, no answer, or one after over {SLOW_S:.0f} s: {len(found.wrong)}.",
            "What took longer beside the others was sent again alone, and counts by that. Files are converted one at",
            f"a time for an owner, so they may wait; {CONVERSION_S:.0f} s is the limit there.",
            "",
            f"Memory of the server: {quarter[0]} MB after a quarter of the cases, {quarter[-1]} MB at the end,",
            f"{max(found.memory_mb)} MB at most. Milliseconds to the end of an answer.",
            "",
            *table(("kind", *next(iter(lines.values()))), [(kind, *line.values()) for kind, line in lines.items()]),
            *(["", "Wrong:", "", *(f"- {one}" for one in found.wrong)] if found.wrong else []),
        ],
    )


def _line(found: Found, kind: str) -> dict[str, Any]:
    took_ms, statuses = [1000 * one for one in found.took_s[kind]], found.statuses[kind]
    return {
        "cases": len(took_ms),
        **{
            f"{hundreds}xx": sum(n for status, n in statuses.items() if status // 100 == hundreds)
            for hundreds in (2, 4)
        },
        "502": statuses[502],
        "503": statuses[503],
        "500": statuses[500],
        "no answer": statuses[0],
        "median": round(statistics.median(took_ms), 1),
        "p99": round(statistics.quantiles(took_ms, n=100)[-1], 1) if len(took_ms) > 1 else round(took_ms[0], 1),
        "most": round(max(took_ms), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
