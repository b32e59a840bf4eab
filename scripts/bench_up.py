"""`lift-serve up` with bench_worker.py for its workers, for a base model with random weights.

In: settings, as `lift-serve up` reads them. Out: the product, until SIGTERM.
"""

from __future__ import annotations

import os
import sys

from bench_common import ROOT
from lift_config.settings import Settings
from lift_server.launcher.up import Commands, run_up

WORKER = (sys.executable, str(ROOT / "scripts" / "bench_worker.py"))


def main() -> int:
    return run_up(Settings(), os.environ, Commands(worker=WORKER))


if __name__ == "__main__":
    sys.exit(main())
