"""Parts are started again with growing pauses, and stopped in order with nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lift_server.launcher.processes import end_leftovers, members
from lift_server.launcher.supervise import Backoff, Part, PartFailedError, Supervisor, trim

QUICK = Backoff(first_s=0.01, longest_s=0.05)
SLEEP = "import time; print('begun', flush=True); time.sleep(60)"


def part(name: str, code: str, role: str = "role", **environment: str) -> Part:
    return Part(role, name, (sys.executable, "-c", code), {**os.environ, **environment})


class Reports:
    """A report that can be waited for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        task = asyncio.ensure_future(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def count(self, wanted: int) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.lines) >= wanted)


async def until(condition: Callable[[], bool]) -> None:
    """For what only another process can tell."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def has_begun(supervisor: Supervisor, one: Part) -> Callable[[], bool]:
    """It says so in its log, and the supervisor knows it by its mark."""
    path = supervisor.log_path(one)
    return lambda: any(mark.name == one.name for mark in supervisor.marks) and "begun" in path.read_text()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_pauses_double_up_to_a_limit_and_begin_anew_after_a_good_run() -> None:
    backoff, pauses = Backoff(), [0.0]
    for _ in range(8):
        pauses.append(backoff.next_s(pauses[-1], ran_s=1))
    assert pauses[1:] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.next_s(30, ran_s=61) == 0.5


async def test_a_part_that_dies_is_told_of_and_started_again(tmp_path: Path) -> None:
    report = Reports()
    dying = part("engine-0", "import sys; print('out of memory'); sys.exit(3)")
    async with Supervisor(tmp_path, report, QUICK) as supervisor:
        supervisor.start(dying)
        await report.count(3)
        log = supervisor.log_path(dying)
    assert report.lines[0].startswith(f"engine-0 ended with exit code 3; log: {log}\n    | out of memory\n")
    assert [line.rpartition("again in ")[2] for line in report.lines[:3]] == ["0.01 s", "0.02 s", "0.04 s"]


async def test_a_part_killed_by_a_signal_takes_its_children_along_before_it_starts_again(tmp_path: Path) -> None:
    report = Reports()
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).wait()"
    engine = part("engine-0", child)
    async with Supervisor(tmp_path, report, QUICK) as supervisor:
        supervisor.start(engine)
        await until(has_begun(supervisor, engine))
        (marked,) = supervisor.marks
        assert len(members(marked)) == 2
        os.kill(marked.pid, signal.SIGKILL)
        await report.count(1)
        assert members(marked) == []
    assert "engine-0 was killed by SIGKILL" in report.lines[0]


async def test_stopping_goes_in_reverse_order_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "def stop(*_):\n    print(os.environ['NAME'], file=open(os.environ['ORDER'], 'a')); sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop); print('begun', flush=True); time.sleep(60)"
    )
    order = tmp_path / "order"
    parts = [part(name, code, name, NAME=name, ORDER=str(order)) for name in ("redis", "engine", "worker", "server")]
    before = children_of(os.getpid())
    async with Supervisor(tmp_path, Reports()) as supervisor:
        for one in parts:
            supervisor.start(one)
        for one in parts:
            await until(has_begun(supervisor, one))
    assert order.read_text().split() == ["server", "worker", "engine", "redis"]
    assert children_of(os.getpid()) == before
    assert supervisor.pids_path.read_text() == "[]"


async def test_a_part_waiting_to_start_again_is_not_started_by_stopping(tmp_path: Path) -> None:
    report = Reports()
    async with Supervisor(tmp_path, report, Backoff(first_s=60)) as supervisor:
        supervisor.start(part("worker-0", "print('begun')"))
        await report.count(1)
    assert supervisor.log_path(part("worker-0", "")).read_text() == "begun\n"


async def test_a_part_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    stubborn = part("server", f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}")
    async with Supervisor(tmp_path, Reports(), grace_s=0.2) as supervisor:
        supervisor.start(stubborn)
        await until(has_begun(supervisor, stubborn))
        (marked,) = supervisor.marks
    assert members(marked) == []


async def test_a_part_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    report = Reports()
    async with Supervisor(tmp_path, report, QUICK) as supervisor:
        supervisor.start(part("greedy", "", TOO_LONG="x" * 2**20))
        await report.count(2)
    assert "greedy could not be started: [Errno 7]" in report.lines[0]


async def test_a_part_whose_program_is_missing_says_so(tmp_path: Path) -> None:
    report = Reports()
    async with Supervisor(tmp_path, report, QUICK) as supervisor:
        supervisor.start(Part("role", "lost", ("/no/such/program",), {}))
        await report.count(1)
    assert "lost ended with exit code 127" in report.lines[0]
    assert "/no/such/program: not found" in report.lines[0]


async def test_what_runs_once_gives_its_output(tmp_path: Path) -> None:
    async with Supervisor(tmp_path, Reports()) as supervisor:
        assert await supervisor.run_once(part("base_model", "print('{}')")) == "{}\n"


async def test_what_runs_once_and_fails_shows_its_log(tmp_path: Path) -> None:
    async with Supervisor(tmp_path, Reports()) as supervisor:
        with pytest.raises(
            PartFailedError, match=r"base_model ended with exit code 1; log: .*\n(.*\n)*.*no such model"
        ):
            await supervisor.run_once(part("base_model", "raise SystemExit('no such model')"))


async def test_what_runs_once_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    once = part("base_model", f"import sys; print('begun', file=sys.stderr, flush=True); {SLEEP}")
    async with Supervisor(tmp_path, Reports()) as supervisor:
        task = asyncio.create_task(supervisor.run_once(once))
        await until(has_begun(supervisor, once))
        (marked,) = supervisor.marks
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert members(marked) == []


async def test_the_log_of_the_last_run_is_kept(tmp_path: Path) -> None:
    for word in ("first", "second"):
        report = Reports()
        async with Supervisor(tmp_path, report) as supervisor:
            supervisor.start(part("server", f"print('{word}')"))
            await report.count(1)
    assert (tmp_path / "logs" / "server.log").read_text() == "second\n"
    assert (tmp_path / "logs" / "server.log.1").read_text() == "first\n"


def test_a_log_that_grew_too_long_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("123456")
    trim(log, max_bytes=6)
    assert log.read_text() == "123456"
    trim(log, max_bytes=5)
    assert (log.read_text(), (tmp_path / "server.log.1").read_text()) == ("", "123456")


SUPERVISED = """
import asyncio, os, sys
from pathlib import Path
from lift_server.launcher.supervise import Part, Supervisor

async def main():
    home = Path(sys.argv[1])
    async with Supervisor(home, print, grace_s=1) as supervisor:
        child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"
        part = Part("engine", "engine", (sys.executable, "-c", child, sys.argv[2]), os.environ)
        supervisor.start(part)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_kill_dash_9_of_the_supervisor_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SUPERVISED, str(tmp_path), SLEEP]
    supervisor = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    log = tmp_path / "logs" / "engine.log"
    await until(lambda: log.exists() and "begun" in log.read_text())
    engine = next(pid for pid in children_of(supervisor.pid) if children_of(pid))
    (grandchild,) = children_of(engine)
    supervisor.kill()
    supervisor.wait()
    await until(lambda: not Path(f"/proc/{engine}").exists() and not Path(f"/proc/{grandchild}").exists())
    assert end_leftovers(tmp_path / "pids.json") == []
