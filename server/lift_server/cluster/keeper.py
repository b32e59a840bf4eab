"""One engine or worker on a host of the cluster. In: settings as variables. Out: its process, kept alive as `lift-serve
up` keeps its own, until it is asked to stop. Ray makes an actor of it; nothing here knows Ray.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lift_config.settings import Settings
from lift_server.launcher.processes import AlreadyRunningError, end_leftovers, sole_user
from lift_server.launcher.supervise import Backoff, Part, PartFailedError, Supervisor
from lift_server.launcher.up import Commands, model_environment

Role = Literal["engine", "worker"]

log = logging.getLogger(__name__)

# OMP_NUM_THREADS: Ray sets it to the CPUs that an actor is counted for.
LEFT_OUT = frozenset({"LIFT_CONFIG", "LIFT_ENGINE__ADDRESS", "LIFT_ENGINE__URLS", "OMP_NUM_THREADS"})
# Of the GPU that is a role's own, where the operator says nothing: the other role has none of it.
ALONE = {
    "engine": {"LIFT_ENGINE__GPU_MEMORY_FRACTION": "0.9", "LIFT_WORKER__GPU_MEMORY_FRACTION": "0.1"},
    "worker": {"LIFT_ENGINE__GPU_MEMORY_FRACTION": "0.1", "LIFT_WORKER__GPU_MEMORY_FRACTION": "0.9"},
}


@dataclass(frozen=True)
class Member:
    """Of a cluster. Numbers count each role's, over all hosts."""

    role: Role
    number: int

    @property
    def name(self) -> str:
        return f"{self.role}-{self.number}"


class Keeper:
    """`host`: asked on the host where it runs, how others reach that one."""

    def __init__(
        self, member: Member, settings: Mapping[str, str], host: Callable[[], str], commands: Commands
    ) -> None:
        self._member, self._commands = member, commands
        self._node = node_environment(os.environ, settings)
        self._environment = part_environment(self._node, member, host())
        self._report = f"{member.name} on {host()}"
        self._loop, self._stopping = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def report(self) -> str:
        """Where it is, and the last that went wrong."""
        return self._report

    def stop(self) -> None:
        """The process is asked to end; returns when nothing is left of it."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except Exception:  # this process's edge: Ray starts another
            log.exception("%s cannot go on", self._report)
            os._exit(1)

    async def _live(self) -> None:
        pause_s = 0.0
        while not self._stopping.is_set():
            began_s = self._loop.time()
            try:
                await self._keep()
            except (AlreadyRunningError, PartFailedError, OSError) as error:
                self._say(str(error))
            pause_s = Backoff().next_s(pause_s, self._loop.time() - began_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _keep(self) -> None:
        """Until it is to stop. What an actor of this name left here, when it died, is ended first."""
        os.umask(0o077)
        home = Path(self._environment["LIFT_HOME"])
        home.mkdir(parents=True, exist_ok=True)
        with sole_user(home):
            await asyncio.to_thread(end_leftovers, home / "pids.json")
            async with Supervisor(home, self._say) as supervisor:
                prepare = Part("base_model", "base_model", self._commands.base_model, self._node)
                environment = self._environment | model_environment(await supervisor.run_once(prepare))
                supervisor.start(Part(self._member.role, self._member.name, self._command(), environment))
                await self._stopping.wait()

    def _command(self) -> tuple[str, ...]:
        """A worker's index makes its name, an engine's would make its port, which part_environment has chosen."""
        if self._member.role == "worker":
            return (*self._commands.worker, "--index", str(self._member.number))
        return (*self._commands.engine, "--index", "0")

    def _say(self, text: str) -> None:
        """Ray keeps what an actor prints, among its logs."""
        self._report = f"{self._report.partition(': ')[0]}: {text.splitlines()[0]}"
        os.write(1, f"{text}\n".encode())


def as_variables(settings: Settings) -> dict[str, str]:
    """What was given, file included, as variables for a host that has no such file."""
    given = settings.model_dump(mode="json", exclude_unset=True, exclude={"server"})
    given["home"] = str(settings.home.resolve())
    if settings.adapter_secrets:
        given["adapter_secrets"] = [one.get_secret_value() for one in settings.adapter_secrets]
    variables: dict[str, str] = {}
    for name, value in given.items():
        section = value if isinstance(value, dict) else {"": value}
        for key, one in section.items():
            variables[f"LIFT_{name}{'__' if key else ''}{key}".upper()] = _as_variable(one)
    return variables


def node_environment(host: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """`host`'s own, and the cluster's settings over them. Where its home is a host may say itself."""
    kept = {name: value for name, value in {**host, **settings}.items() if name not in LEFT_OUT}
    home = host.get("LIFT_HOME") or settings["LIFT_HOME"]
    return kept | {"LIFT_HOME": str(Path(home).resolve()), "LIFT_ENGINE__REGISTERED": "true"}


def part_environment(node: Mapping[str, str], member: Member, host: str) -> dict[str, str]:
    """One engine or one worker a process, whatever else is on this host: a port, a folder of its own. An engine that
    is started again on the same host has the same address, so its adapters' home stays where it was."""
    alone = {} if node.get("LIFT_CLUSTER__TOGETHER") == "true" else ALONE[member.role]
    first_port = int(node.get("LIFT_ENGINE__PORT", Settings.model_fields["engine"].default.port))
    own = {
        "LIFT_HOME": str(Path(node["LIFT_HOME"]) / "cluster" / member.name),
        "LIFT_ENGINES": "1",
        "LIFT_WORKERS": "1",
        "LIFT_ENGINE__HOST": host,
        "LIFT_ENGINE__PORT": str(first_port + member.number),
    }
    return {**alone, **node, **own}


def _as_variable(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
