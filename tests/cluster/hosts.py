"""Hosts on one machine: each a network namespace with a name, an address and a /tmp/ray of its own, on one bridge.

In: names. Out: processes on them, and cables that can be pulled. Needs root, iproute2, util-linux; Linux.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

NET = "10.77.0"
OUTSIDE = f"{NET}.1"  # this machine's address on the bridge
# Each host's processes see its own name (a worker's name is made of it), and Ray's files of its own.
ENTER = 'hostname "$0" && mount --bind "$1" /tmp/ray && shift && exec "$@"'


def why_not() -> str:
    """What is missing here; empty where hosts can be made."""
    if missing := [name for name in ("ip", "unshare", "mount") if not shutil.which(name)]:
        return f"{', '.join(missing)} not found"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "ip", "link", "add", "lift0", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if tried.returncode == 0 and os.geteuid() == 0 else f"no network namespaces: {tried.stderr.strip()}"


class Hosts:
    """A `with` block, at whose end nothing is left of them."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        self._addresses = {name: f"{NET}.{number}" for number, name in enumerate(names, 2)}

    def __enter__(self) -> Self:
        self._remove()
        Path("/tmp/ray").mkdir(exist_ok=True)
        _ip("link", "add", "lift0", "type", "bridge")
        _ip("address", "add", f"{OUTSIDE}/24", "dev", "lift0")
        _ip("link", "set", "lift0", "up")
        for name, address in self._addresses.items():
            (self._folder / name / "ray").mkdir(parents=True, exist_ok=True)
            _ip("netns", "add", _space(name))
            _ip("link", "add", _cable(name), "type", "veth", "peer", "name", "eth0", "netns", _space(name))
            _ip("link", "set", _cable(name), "master", "lift0", "up")
            _ip("-n", _space(name), "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", _space(name), "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def address(self, name: str) -> str:
        return self._addresses[name]

    def home(self, name: str) -> Path:
        """A folder that only this host uses."""
        return self._folder / name

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Its output goes to a file in the host's home, named after the command."""
        with (self.home(name) / f"{Path(command[0]).name}.log").open("ab") as log:
            process = subprocess.Popen(
                self._inside(name, command),
                env={**environment, "LIFT_HOME": str(self.home(name))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
        done = subprocess.run(
            self._inside(name, command),
            env={**environment, "LIFT_HOME": str(self.home(name))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pull(self, name: str) -> None:
        """Its cable: nothing from it, nothing to it, and nobody is told."""
        _ip("link", "set", _cable(name), "down")

    def plug(self, name: str) -> None:
        _ip("link", "set", _cable(name), "up")

    def _inside(self, name: str, command: Sequence[str]) -> list[str]:
        enter = ("unshare", "--uts", "--mount", "sh", "-c", ENTER, name, str(self.home(name) / "ray"))
        return ["ip", "netns", "exec", _space(name), *enter, *command]

    def _remove(self) -> None:
        spaces = _told("ip", "netns", "list").split()
        for name in self._addresses:
            if _space(name) in spaces:
                _end(_space(name))
                _ip("netns", "delete", _space(name))
        for process in self._started:
            process.wait()
        if any(line.startswith("lift0 ") for line in _told("ip", "-br", "link").splitlines()):
            _ip("link", "delete", "lift0")


def _end(space: str) -> None:
    """All of its processes, those included that they start meanwhile."""
    while pids := _told("ip", "netns", "pids", space).split():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _space(name: str) -> str:
    return f"lift-{name}"


def _cable(name: str) -> str:
    return f"lift-{name}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
