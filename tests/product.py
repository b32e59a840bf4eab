"""The whole product as its operator runs it: `lift-serve up` with a real vLLM, on ports and in a folder of its own.

In: an empty folder. Out: addresses, settings and logs of what runs, and ways to end it, orderly and not.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from openai.types.chat import ChatCompletion

from lift_config.settings import BUNDLED_MODEL, Settings
from lift_engine.base_model import prepare

ROOT = Path(__file__).resolve().parent.parent
UP = (str(Path(sys.executable).with_name("lift-serve")), "up")
BASE = BUNDLED_MODEL  # the base model's name in the API
MAX_LORAS, MAX_CPU_LORAS = 2, 3  # so few that adapters really leave the engine's memory
API_KEY = "shared-by-server-worker-and-engine"
START_S, STOP_S = 300, 60
POLL_S = 0.25

T = TypeVar("T")
Json = dict[str, Any]
Ask = Callable[..., ChatCompletion]


@dataclass(frozen=True)
class Trained:
    """A document's object when ready, and every different one seen on the way there."""

    document: Json
    seen: list[Json]

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def adapter_id(self) -> str:
        return str(self.document["adapter"]["id"])

    @property
    def job_key(self) -> str:
        return self.adapter_id.partition("-")[0]


@dataclass(frozen=True)
class Key:
    id: str
    secret: str


class Product:
    """One home, in which `up` is started, ended and started again. Its Redis is the embedded one. `environment` is put
    over what all of them have."""

    def __init__(self, home: Path, environment: dict[str, str] | None = None) -> None:
        self.home = home
        self._given = environment or {}
        self._server_port, self._engine_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self._server_port}"
        self.engine_url = f"http://127.0.0.1:{self._engine_port}"
        self._up: subprocess.Popen[bytes] | None = None
        models = ROOT / ".lift" / "models"  # the base model is prepared once for all runs
        models.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # a home that was used before
            (home / "models").symlink_to(models)

    @property
    def settings(self) -> Settings:
        """As the running engine reads them, but for Redis."""
        engine = {"port": self._engine_port, "max_loras": MAX_LORAS, "max_cpu_loras": MAX_CPU_LORAS}
        given = Settings(home=self.home, device="cpu", engine={**engine, "api_key": API_KEY})
        model = prepare(given)
        changed = {"base_model": model.path_or_id, "base_revision": model.revision, "served_name": model.served_name}
        return given.model_copy(update=changed)

    def start(self) -> None:
        """Returns when /ready says so."""
        with (self.home / "up.log").open("ab") as log:
            self._up = subprocess.Popen(
                UP, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until(self.is_ready, START_S)

    def is_ready(self) -> bool:
        assert self._up
        assert self._up.poll() is None, f"`lift-serve up` ended:\n{(self.home / 'up.log').read_text()}"
        with suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/ready").status_code == 200
        return False

    def stop(self) -> None:
        """SIGTERM; afterwards nothing may be left. Nothing to do after `kill`."""
        if self._up is None:
            return
        assert self._up.poll() is None, "`lift-serve up` ended by itself"
        sessions = self._sessions()
        self._up.terminate()
        try:
            assert self._up.wait(STOP_S) == 0
        finally:
            self._up.kill()  # its watcher ends the rest
        assert not [process for process in living() if process.session in sessions]

    def end(self) -> None:
        """Whatever came before, nothing of it runs on; nothing to do after `stop`."""
        if self._up is not None and self._up.poll() is None:
            self.kill()

    def kill(self) -> None:
        """`kill -9` of `up`; returns when nothing of it is left."""
        assert self._up
        sessions = self._sessions()
        self._up.kill()
        self._up.wait()
        self._up = None
        until(lambda: not [process for process in living() if process.session in sessions], STOP_S)

    def kill_part(self, name: str) -> None:
        """`kill -9` of the first process of `worker-0`, `engine-0`, `server` or `redis`."""
        os.kill(self.pid(name), signal.SIGKILL)

    def pid(self, name: str) -> int:
        """Of a part's first process; it changes when the part is started again."""
        parts = json.loads((self.home / "pids.json").read_text())
        (pid,) = (part["pid"] for part in parts if part["name"] == name)
        return int(pid)

    def children(self, name: str) -> list[int]:
        """The pids of what a part's first process started."""
        return [process.pid for process in living() if process.parent == self.pid(name)]

    def log(self, name: str) -> str:
        return (self.home / "logs" / f"{name}.log").read_text(errors="replace")

    def create_key(self, name: str, *limits: str) -> Key:
        """From the first one on, whoever shows none is refused. `limits` as on the command line."""
        done = self._keys("create", name, *limits)
        (key_id,) = set(re.findall(r"key_[0-9a-f]+", done.stderr))
        return Key(key_id, done.stdout.strip())

    def revoke_key(self, key: Key) -> None:
        self._keys("revoke", key.id)

    def _keys(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = (UP[0], "keys", *arguments)
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    def _environment(self) -> dict[str, str]:
        """No setting of the machine that runs the tests gets in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFT_", "REDIS"))}
        return {
            **kept,
            "LIFT_HOME": str(self.home),
            "LIFT_DEVICE": "cpu",
            "LIFT_SERVER__PORT": str(self._server_port),
            "LIFT_ENGINE__PORT": str(self._engine_port),
            "LIFT_ENGINE__API_KEY": API_KEY,
            "LIFT_ENGINE__MAX_LORAS": str(MAX_LORAS),
            "LIFT_ENGINE__MAX_CPU_LORAS": str(MAX_CPU_LORAS),
            **self._given,
        }

    def _sessions(self) -> set[int]:
        """`up`'s own session, and those of its parts and its watcher: each leads one."""
        assert self._up
        return {self._up.pid} | {process.session for process in living() if process.parent == self._up.pid}


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    session: int


def living() -> Iterator[Process]:
    """Every process of this machine that has not ended."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent, _, session, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if state not in "ZX":
                yield Process(int(path.parent.name), int(parent), int(session))


def until(condition: Callable[[], T | None], within_s: float) -> T:
    """The first value that is true. It polls: what other processes do cannot be awaited from here."""
    deadline_s = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"it did not come within {within_s:g} s"
        time.sleep(POLL_S)
    return value


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
