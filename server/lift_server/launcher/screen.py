"""What a person sees of `lift-serve up`: in: lines and a changing status; out: a terminal or a plain log."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TextIO

PLAIN_STATUS_EVERY_S = 15.0
CLEAR_LINE = "\r\x1b[K"


class Screen:
    """On a terminal the status is one line that is overwritten; elsewhere a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._status = ""
        self._last_status_s = float("-inf")

    def say(self, text: str) -> None:
        """Lines that stay."""
        self._write(f"{CLEAR_LINE}{text}\n{self._status}" if self._is_terminal else f"{text}\n")

    def status(self, text: str) -> None:
        """What is going on; an empty text takes the status away."""
        if self._is_terminal:
            self._status = text
            self._write(f"{CLEAR_LINE}{text}")
        elif text and time.monotonic() - self._last_status_s >= PLAIN_STATUS_EVERY_S:
            self._last_status_s = time.monotonic()
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal was closed: everything must still stop in order
            self._stream.write(text)
            self._stream.flush()


def tail(path: Path, lines: int = 15) -> str:
    """A log's last lines, indented, to be shown where a part has died."""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        last = deque(file, maxlen=lines)
    return "".join(f"    | {line.rstrip()}\n" for line in last).rstrip("\n")
