"""Kills, pauses and losses of data on the running product while several owners use it: what is lost, who hears what.

In: a number of kills and a seed. Out: docs/benchmarks/<out>.md and .json; exit code 1 where something happened that
must not (tests/faults/invariants.py). A run that was broken off goes on with the same command.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_common import HOME, ROOT, stated, table, where, write

sys.path.insert(0, str(ROOT))

from tests.faults.run import run, summary
from tests.product import BASE


def main() -> int:
    arguments = _arguments()
    measured = where(BASE)
    began_s = time.monotonic()
    journal = run(
        arguments.home or HOME / "faults" / arguments.out,
        seed=arguments.seed,
        kills=arguments.kills,
        say=lambda text: print(f"{(time.monotonic() - began_s) / 60:.1f} min: {text}", flush=True),
    )
    values = {"measured": measured, "minutes": round(journal.minutes, 1), **summary(journal), "faults": journal.faults}
    write(arguments.out, values, list(_report(values, arguments)))
    for violation in journal.violations:
        print(f"VIOLATION: {violation}")
    return 1 if journal.violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="where the run lives; by default below .lift/faults")
    parser.add_argument("--out", default="faults", help="name of the table below docs/benchmarks")
    return parser.parse_args()


def _report(values: dict[str, Any], arguments: argparse.Namespace) -> Iterator[str]:
    yield from (
        f"# {arguments.out}: parts killed while clients are at work",
        "",
        f"`scripts/bench_faults.py --kills {arguments.kills} --seed {arguments.seed}`; " + stated(values["measured"]),
        "Real vLLM on CPU (float32), real Valkey, two workers, three owners; lease 5 s. `lose` kills Redis, which",
        "comes back empty. Each fault comes after the product was ready again from the last one. What was still to be",
        "trained a minute after the last one, its owners cancelled.",
        "",
        f"{values['minutes']} minutes. {values['kills']} kills, {values['of the engine']} of them of the engine, "
        f"and {values['pauses']} pauses. {values['documents']} documents taken in, {values['deleted']} deleted; "
        f"{values['answers']} answers from {values['adapters that answered']} adapters and the base model.",
        "",
        f"**{len(values['violations'])} violations.**",
        *(f"- {violation}" for violation in values["violations"]),
        "",
        "| fault | times | ready again after s, median | worst |",
        "| --- | --- | --- | --- |",
    )
    seconds = defaultdict(list)
    for fault in values["faults"]:
        seconds[fault["what"]].append(fault["ready_after_s"])
    rows = [(what, len(took), round(statistics.median(took), 2), max(took)) for what, took in sorted(seconds.items())]
    yield from table(("fault", "times", "ready again after s, median", "worst"), rows)[2:]
    yield from ("", "What clients were refused with, meanwhile:", "")
    yield from table(("code", "times"), list(values["refused"].items()))


if __name__ == "__main__":
    raise SystemExit(main())
