"""What belongs to a part, how all of it is ended, and who may use a home."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from lift_server.launcher.processes import (
    AlreadyRunningError,
    Mark,
    end,
    end_leftovers,
    mark,
    members,
    sole_user,
    write_marks,
)

# Says so when it is ready; a child that ignores SIGTERM beside it.
STUBBORN_CHILD = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STUBBORN_CHILD!r}])
time.sleep(60)
"""

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python code in a session of its own and waits for its first line."""
    with ExitStack() as stack:

        def run(code: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
            stack.callback(process.communicate)
            stack.callback(end, mark("test", process.pid), 0)
            assert process.stdout
            process.stdout.readline()
            return process

        yield run


def test_a_parts_members_are_its_whole_session(start: Start) -> None:
    process = start(PARENT)
    assert len(members(mark("part", process.pid))) == 2


def test_a_process_that_stops_when_asked_is_not_killed(start: Start) -> None:
    process = start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print(flush=True); time.sleep(60)"
    )
    assert end(mark("part", process.pid), grace_s=10) == []
    assert process.wait() == 7


def test_what_does_not_stop_is_killed_with_all_its_children(start: Start) -> None:
    part = mark("part", start(PARENT).pid)
    assert end(part, grace_s=0.3) == []
    assert members(part) == []


def test_children_of_a_dead_leader_are_ended_too(start: Start) -> None:
    process = start(PARENT)
    part = mark("part", process.pid)
    process.kill()
    process.wait()
    assert len(members(part)) == 1
    assert end(part, grace_s=0) == []
    assert members(part) == []


def test_hurry_cuts_the_grace_short(start: Start) -> None:
    part = mark("part", start(STUBBORN_CHILD).pid)
    hurry = threading.Event()
    hurry.set()
    began_s = time.monotonic()
    assert end(part, grace_s=30, hurry=hurry) == []
    assert time.monotonic() - began_s < 5


def test_a_pid_that_went_to_a_stranger_is_left_alone(start: Start) -> None:
    part = mark("part", start(STUBBORN_CHILD).pid)
    for stranger in (replace(part, start_ticks=part.start_ticks - 1), replace(part, boot="another")):
        assert members(stranger) == []
    assert members(part) == [part.pid]


def test_marking_a_process_that_is_gone_fails() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        mark("part", process.pid)


def test_leftovers_are_ended_newest_first(start: Start, tmp_path: Path) -> None:
    first, second = (mark(name, start(STUBBORN_CHILD).pid) for name in ("redis", "server"))
    gone = Mark("gone", os.getpid(), 0, first.boot)
    write_marks(tmp_path / "pids.json", [first, gone, second])
    assert end_leftovers(tmp_path / "pids.json", grace_s=0) == ["server", "redis"]
    assert members(first) == members(second) == []


def test_no_leftovers_where_nothing_ran(tmp_path: Path) -> None:
    assert end_leftovers(tmp_path / "pids.json") == []


def test_marks_survive_being_written(tmp_path: Path) -> None:
    part = mark("me", os.getpid())
    write_marks(tmp_path / "pids.json", [part])
    assert [Mark(**values) for values in json.loads((tmp_path / "pids.json").read_text())] == [part]
    assert [path.name for path in tmp_path.iterdir()] == ["pids.json"]


def test_a_second_user_of_a_home_is_refused_by_name(tmp_path: Path) -> None:
    refusal = rf"already running on .* \(pid {os.getpid()}\)"
    with sole_user(tmp_path), pytest.raises(AlreadyRunningError, match=refusal), sole_user(tmp_path):
        pass
    with sole_user(tmp_path):
        pass
