"""Processes by what the kernel says of them: which ones belong to a part, how to end them all.

A part leads a session of its own, so its children and theirs are found by that session's number (vLLM's
EngineCore outlives a killed vLLM). Linux; standard library only, so that watch.py stays small.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

POLL_S = 0.05  # nothing can be awaited of processes that are not our children
GRACE_S = 25.0  # a part's time to stop by itself: vLLM drains
KILLED_S = 10.0  # a process that survives SIGKILL for so long hangs in a driver

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class AlreadyRunningError(Exception):
    """Another `lift-serve up` uses this home."""


@dataclass(frozen=True)
class Mark:
    """A part's first process, recognizable even after its pid went to a stranger."""

    name: str
    pid: int
    start_ticks: int
    boot: str


@dataclass(frozen=True)
class _Stat:
    state: str
    session: int
    start_ticks: int


def mark(name: str, pid: int) -> Mark:
    """ProcessLookupError where `pid` has ended and was reaped."""
    stat = _stat(pid)
    if stat is None:
        raise ProcessLookupError(pid)
    return Mark(name, pid, stat.start_ticks, _boot())


def members(part: Mark) -> list[int]:
    """The part's living processes; none where its pid belongs to a stranger by now."""
    leader = _stat(part.pid)
    if part.boot != _boot() or (leader and leader.start_ticks != part.start_ticks):
        return []
    return [pid for pid in _pids() if (stat := _stat(pid)) and _belongs(stat, part)]


def end(part: Mark, grace_s: float = GRACE_S, hurry: Event | None = None) -> list[int]:
    """SIGTERM, and after `grace_s` (at once when `hurry` is set) SIGKILL. Gives the pids that would not end.

    The first process is asked first: it knows how to stop its children. What it leaves behind is asked next.
    """
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while alive := members(part):
        now = time.monotonic()
        if now > deadline + KILLED_S:
            return alive
        if now >= deadline or (hurry and hurry.is_set()):
            deadline = min(deadline, now)
            _signal(alive, signal.SIGKILL)
        else:
            chosen = {part.pid} if part.pid in alive else set(alive)
            _signal(chosen - asked, signal.SIGTERM)
            asked |= chosen
        time.sleep(POLL_S)
    return []


def write_marks(path: Path, parts: Sequence[Mark]) -> None:
    """Whole or not at all: a reader after `kill -9` never meets half a file."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps([asdict(part) for part in parts]), "utf-8")
    draft.replace(path)


def end_leftovers(path: Path, grace_s: float = GRACE_S) -> list[str]:
    """End what a killed run left, the newest part first (Redis is the oldest). Gives the names of those ended."""
    if not path.exists():
        return []
    parts = [Mark(**values) for values in json.loads(path.read_text("utf-8"))]
    found = [part for part in reversed(parts) if members(part)]
    for part in found:
        end(part, grace_s)
    return [part.name for part in found]


@contextmanager
def sole_user(home: Path) -> Iterator[None]:
    """Hold `home` for this process; the kernel lets go of it however the process ends."""
    with (home / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunningError(
                f"already running on {home} (pid {file.read().strip()}): stop that one first, or give this one "
                "another home (setting `home`, LIFT_HOME)"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _signal(pids: set[int] | list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _belongs(stat: _Stat, part: Mark) -> bool:
    return stat.session == part.pid and stat.start_ticks >= part.start_ticks and stat.state not in "ZX"


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _stat(pid: int) -> _Stat | None:
    """None where there is no such process. The name, second of the fields, may hold anything but ends at `)`."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(state=fields[0], session=int(fields[3]), start_ticks=int(fields[19]))


def _boot() -> str:
    return BOOT_ID.read_text("utf-8").strip()
