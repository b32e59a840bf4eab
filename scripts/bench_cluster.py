"""Three hosts, two engines, two workers, three owners at work, while a host is cut off: what is lost, who hears what.

In: a seed. Out: docs/benchmarks/<out>.md and .json; exit code 1 where something happened that must not
(tests/faults/invariants.py). Needs root and the extra `ray`; real vLLM on CPU, in network namespaces of this machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_common import HOME, ROOT, stated, table, where, write

sys.path.insert(0, str(ROOT))

from tests.cluster.hosts import why_not
from tests.cluster.run import run
from tests.faults.run import summary
from tests.product import BASE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="where the run lives; must not exist; by default below .lift/cluster")
    parser.add_argument("--out", default="cluster", help="name of the table below docs/benchmarks")
    arguments = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    measured, began_s = where(BASE), time.monotonic()
    journal = run(
        arguments.home or HOME / "cluster" / f"{arguments.out}-{int(time.time())}",
        seed=arguments.seed,
        say=lambda text: print(f"{(time.monotonic() - began_s) / 60:.1f} min: {text}", flush=True),
    )
    found = summary(journal)
    kept = ("documents", "deleted", "answers", "adapters that answered", "refused", "violations")
    values = {
        "measured": measured,
        "minutes": round(journal.minutes, 1),
        **{name: found[name] for name in kept},
        "changes": journal.faults,
    }
    write(arguments.out, values, list(_report(values, arguments.seed)))
    for violation in journal.violations:
        print(f"VIOLATION: {violation}")
    return 1 if journal.violations else 0


def _report(values: dict[str, Any], seed: int) -> Iterator[str]:
    yield from (
        "# cluster: three hosts by Ray, one of them cut off",
        "",
        f"`scripts/bench_cluster.py --seed {seed}`; " + stated(values["measured"]),
        "Network namespaces on one machine: Ray's head and the server on the first host, an engine (real vLLM on CPU,",
        "float32) and a worker on each other one, a real Valkey outside. Ray gives up a silent host after some five",
        "seconds here (its default is some thirty), a worker's lease is 10 s. Three owners upload, ask, cancel and",
        "delete all the while; at the end every document is asked again. Seconds are those until all is well again:",
        "most of them an engine takes to start.",
        "",
    )
    rows = [(change["what"], f"{change['ready_after_s']:.0f}") for change in values["changes"]]
    yield from table(("change", "s"), rows)
    refused = ", ".join(f"{n} {why}" for why, n in values["refused"].items()) or "none"
    yield from (
        "",
        f"{values['minutes']} minutes, {values['documents']} documents ({values['deleted']} deleted), "
        f"{values['answers']} answers from {values['adapters that answered']} adapters. Refused: {refused}.",
        "",
        "Violations: " + ("; ".join(values["violations"]) or "none") + ".",
    )


if __name__ == "__main__":
    sys.exit(main())
