"""`lift-serve`'s commands, run as an operator does."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path


class Command:
    """Runs `name` with a home, and a Redis where one is given."""

    def __init__(self, name: str, home: Path, redis_url: str = "") -> None:
        self._name = name
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFT_", "REDIS"))}
        self._environment = {
            **kept,
            "LIFT_HOME": str(home),
            "REDIS_URL": redis_url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lift_server.cli", self._name, *arguments),
            env=self._environment,
            stdout=pipe,
            stderr=pipe,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()
