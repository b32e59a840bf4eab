"""Parts kept alive: in: commands; out: running processes, started again when they die, stopped in order.

Each part leads its own session and writes its own bounded log. What runs is recorded in `pids.json`, which
the watcher and the next start read when this process was killed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lift_server.launcher.processes import GRACE_S, Mark, end, mark, write_marks
from lift_server.launcher.screen import tail

LOG_MAX_BYTES = 32 * 2**20
LOG_CHECK_S = 10.0

# A part begins when it stands in pids.json: this process killed before that, the read meets the pipe's end.
WHEN_RECORDED = ("/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh")

Report = Callable[[str], None]


class PartFailedError(Exception):
    """A part that runs once ended with another exit code than 0."""


@dataclass(frozen=True)
class Part:
    """One process to run. Parts of one `role` are stopped together."""

    role: str
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)  # holds secrets


@dataclass(frozen=True)
class Backoff:
    """Pauses before a part is started again: doubled each time, from the first anew after a good run."""

    first_s: float = 0.5
    longest_s: float = 30.0
    good_run_s: float = 60.0

    def next_s(self, pause_s: float, ran_s: float) -> float:
        if ran_s >= self.good_run_s or not pause_s:
            return self.first_s
        return min(pause_s * 2, self.longest_s)


@dataclass
class _Kept:
    part: Part
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Supervisor:
    """An `async with` block: parts started in it are kept alive, and stopped in reverse order at its end."""

    def __init__(self, home: Path, report: Report, backoff: Backoff | None = None, grace_s: float = GRACE_S) -> None:
        self.pids_path = home / "pids.json"
        self.logs = home / "logs"
        self.hurry = threading.Event()  # set: stop without grace
        self._report, self._backoff, self._grace_s = report, backoff or Backoff(), grace_s
        self._kept: list[_Kept] = []
        self.marks: list[Mark] = []

    async def __aenter__(self) -> Supervisor:
        self.logs.mkdir(parents=True, exist_ok=True)
        write_marks(self.pids_path, [])
        self._watcher = subprocess.Popen(
            [sys.executable, "-m", "lift_server.launcher.watch", str(self.pids_path)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._trimming = asyncio.create_task(_trim_for_ever(self.logs, self._report))
        return self

    async def __aexit__(self, *_: object) -> None:
        for _role, kept in itertools.groupby(reversed(self._kept), lambda one: one.part.role):
            await asyncio.gather(*(self._stop(one) for one in kept))
        self._trimming.cancel()
        await asyncio.to_thread(self._watcher.communicate)  # nothing is left for it: it ends at once

    def start(self, part: Part) -> None:
        """Keep `part` running from now on. The log of the last run stays beside the new one."""
        path = self.log_path(part)
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        kept = _Kept(part)
        kept.task = asyncio.create_task(self._keep(part, kept.stopping))
        self._kept.append(kept)

    async def run_once(self, part: Part) -> str:
        """What `part` prints. Cancelled, it is ended. PartFailedError where it fails."""
        self.log_path(part).unlink(missing_ok=True)
        process = await self._spawn(part, stdout=subprocess.PIPE)
        try:
            output, _ = await process.communicate()
        finally:
            await self._end(part, grace_s=0)
        if process.returncode:
            raise PartFailedError(self._obituary(part, _how(process.returncode)))
        return output.decode()

    def log_path(self, part: Part) -> Path:
        return self.logs / f"{part.name}.log"

    async def _keep(self, part: Part, stopping: asyncio.Event) -> None:
        pause_s = 0.0
        while not stopping.is_set():
            began_s = time.monotonic()
            how = await self._run(part, stopping)
            if stopping.is_set():
                return
            ran_s = time.monotonic() - began_s
            pause_s = self._backoff.next_s(pause_s, ran_s)
            self._report(f"{self._obituary(part, how)}\n  {part.name} had run {ran_s:.0f} s; again in {pause_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause_s)

    async def _run(self, part: Part, stopping: asyncio.Event) -> str:
        """One life of `part`, and how it ended."""
        try:
            process = await self._spawn(part)
        except OSError as error:  # no memory, no more processes: may pass
            return f"could not be started: {error}"
        await _first_of(process.wait(), stopping.wait())
        # Also where it died by itself: vLLM leaves its EngineCore behind.
        await self._end(part, self._grace_s if stopping.is_set() else 0)
        return _how(await process.wait())

    async def _spawn(self, part: Part, stdout: int | None = None) -> Process:
        gate, opener = os.pipe()
        # O_APPEND: the log may be cut while the part writes to it.
        log = os.open(self.log_path(part), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *WHEN_RECORDED,
                *part.command,
                env=dict(part.environment),
                stdin=gate,
                stdout=log if stdout is None else stdout,
                stderr=log,
                start_new_session=True,
            )
            self._record([*self.marks, mark(part.name, process.pid)])
            os.write(opener, b"\n")
        finally:
            for descriptor in (gate, opener, log):
                os.close(descriptor)
        return process

    async def _end(self, part: Part, grace_s: float) -> None:
        for found in [one for one in self.marks if one.name == part.name]:
            if stuck := await asyncio.to_thread(end, found, grace_s, self.hurry):
                self._report(f"{part.name}: processes {stuck} cannot be ended")
            try:
                self._record([one for one in self.marks if one is not found])
            except OSError as error:  # a full disk must not keep the part from being started again
                self._report(f"{self.pids_path} cannot be written: {error}")

    async def _stop(self, kept: _Kept) -> None:
        kept.stopping.set()
        assert kept.task
        await kept.task

    def _record(self, marks: list[Mark]) -> None:
        self.marks = marks
        write_marks(self.pids_path, marks)

    def _obituary(self, part: Part, how: str) -> str:
        path = self.log_path(part)
        return f"{part.name} {how}; log: {path}\n{tail(path)}"


def trim(path: Path, max_bytes: int = LOG_MAX_BYTES) -> None:
    """Start a log anew that grew too long; what it held so far becomes the old log."""
    if path.stat().st_size > max_bytes:
        shutil.copyfile(path, path.with_suffix(".log.1"))
        os.truncate(path, 0)


async def _trim_for_ever(logs: Path, report: Report) -> None:
    while True:
        await asyncio.sleep(LOG_CHECK_S)
        for path in logs.glob("*.log"):
            try:
                trim(path)
            except OSError as error:  # the next round tries again
                report(f"{path} cannot be cut: {error}")


async def _first_of(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"
