"""`lift-serve`'s commands, run as an operator does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any


class Command:
    """Runs `name` with a home, a Redis where one is given, and more of the environment."""

    def __init__(self, name: str, home: Path, redis_url: str = "", **environment: str) -> None:
        self._name = name
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFT_", "REDIS"))}
        self._environment = {
            **kept,
            "LIFT_HOME": str(home),
            "REDIS_URL": redis_url,
            "XDG_STATE_HOME": str(home / "state"),
            "PYTHONPATH": os.pathsep.join(sys.path),
            **environment,
        }

    async def start(self, *arguments: str, **streams: Any) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "lift_server.cli", self._name, *arguments)
        return await asyncio.create_subprocess_exec(
            *command, env=self._environment, preexec_fn=_hear_interrupts, **streams
        )

    async def __call__(self, *arguments: str, given: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output, standard error. `given` is standard input."""
        pipe = asyncio.subprocess.PIPE
        process = await self.start(*arguments, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd)
        output, errors = await asyncio.wait_for(process.communicate(given.encode()), 50)
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()


def _hear_interrupts() -> None:
    """A shell has what it starts in the background ignore SIGINT, and so would all that the tests start there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Screen:
    """A terminal's other end. What was looked for and seen is not seen again."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._shown = ""

    def types(self, text: str) -> None:
        os.write(self._number, text.encode())

    async def shows(self, text: str) -> None:
        while text not in self._shown:
            self._shown += (await asyncio.to_thread(os.read, self._number, 1024)).decode()
        self._shown = self._shown.partition(text)[2]
