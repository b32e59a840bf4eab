"""The watcher beside `lift-serve up`: in: `up`'s end, however it came; out: no part is left running.

Its standard input is a pipe that only `up` holds, so reading ends when `up` does, `kill -9` included.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lift_server.launcher.processes import end_leftovers


def main() -> None:
    sys.stdin.buffer.read()
    end_leftovers(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
