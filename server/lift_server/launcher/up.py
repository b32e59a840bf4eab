"""`lift-serve up`: in: settings; out: Redis, engines, workers and the server, until Ctrl-C or SIGTERM. With `ray`, a
cluster's address, engines and workers are there, kept by another process (lift_server.cluster), and outlive this one.

Order: check that nothing is in the way → base model → Redis → everything else at once → wait for /ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lift_config.settings import Settings
from lift_server.client.connection import own_address
from lift_server.launcher.embedded import embedded_redis
from lift_server.launcher.examples import examples
from lift_server.launcher.processes import AlreadyRunningError, end_leftovers, sole_user
from lift_server.launcher.screen import Screen
from lift_server.launcher.supervise import Part, PartFailedError, Supervisor

POLL_S = 0.25


@dataclass(frozen=True)
class Commands:
    """What the parts run; engine and worker get `--index N` too, `cluster` Ray's address. Tests put small programs
    here."""

    base_model: tuple[str, ...] = (sys.executable, "-m", "lift_engine.base_model")
    engine: tuple[str, ...] = (sys.executable, "-m", "lift_engine")
    worker: tuple[str, ...] = (sys.executable, "-m", "lift_workers")
    server: tuple[str, ...] = (sys.executable, "-m", "lift_server")
    cluster: tuple[str, ...] = (sys.executable, "-m", "lift_server.cluster")


class PortInUseError(Exception):
    """An address that the server or an engine shall listen on is taken."""


def run_up(settings: Settings, environment: Mapping[str, str], commands: Commands | None = None, ray: str = "") -> int:
    """The process's exit code: 0 after an orderly stop, 1 where it could not start."""
    os.umask(0o077)  # documents, logs and adapters are nobody else's business
    screen = Screen(sys.stdout)
    home = settings.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        with sole_user(home):
            for name in end_leftovers(home / "pids.json"):
                screen.say(f"ended {name}, left over from a run that was killed")
            check_ports(settings, ray)
            supervisor = Supervisor(home, screen.say)
            launch = _Launch(settings, dict(environment), commands or Commands(), screen, supervisor, ray)
            asyncio.run(_until_stopped(launch))
    except (AlreadyRunningError, PortInUseError, PartFailedError) as error:
        screen.say(f"lift-serve up: {error}")
        return 1
    return 0


def check_ports(settings: Settings, ray: str = "") -> None:
    """PortInUseError naming the setting to change."""
    for address, setting in _listeners(settings, ray):
        with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                variable = f"LIFT_{setting.replace('.', '__').upper()}"
                raise PortInUseError(
                    f"cannot listen on {address[0]}:{address[1]} ({error.strerror}): set {setting} in "
                    f"config/lift.yaml, or {variable}"
                ) from error


def _listeners(settings: Settings, ray: str) -> Iterator[tuple[tuple[str, int], str]]:
    yield (settings.server.host, settings.server.port), "server.port"
    if not settings.engine.urls and not ray:
        for index in range(settings.engines):
            yield (settings.engine.host, settings.engine.port + index), "engine.port"


@dataclass(frozen=True)
class _Launch:
    """What starting goes by. `environment` is every part's; it grows as the start goes on."""

    settings: Settings
    environment: dict[str, str]
    commands: Commands
    screen: Screen
    supervisor: Supervisor
    ray: str
    began_s: float = field(default_factory=time.monotonic)


async def _until_stopped(launch: _Launch) -> None:
    stop = asyncio.Event()
    _on_signals(stop, launch)
    async with launch.supervisor:
        starting = asyncio.create_task(_start(launch))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await starting  # raises what went wrong; else all is up
            await stopped
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    launch.screen.status("")
    launch.screen.say("stopped")


def _on_signals(stop: asyncio.Event, launch: _Launch) -> None:
    def asked() -> None:
        if stop.is_set():
            launch.supervisor.hurry.set()
        stop.set()
        launch.screen.status("")
        launch.screen.say("stopping at once" if launch.supervisor.hurry.is_set() else "stopping; Ctrl-C again: at once")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup stays in force
            asyncio.get_running_loop().add_signal_handler(number, asked)


async def _start(launch: _Launch) -> None:
    settings, environment, screen, supervisor = launch.settings, launch.environment, launch.screen, launch.supervisor
    environment |= shared_environment(settings, environment)
    if launch.ray:  # before the base model: each host prepares it for itself
        supervisor.start(Part("cluster", "cluster", (*launch.commands.cluster, launch.ray), dict(environment)))
        environment |= {"LIFT_ENGINE__REGISTERED": "true", "LIFT_ENGINE__HOST": "127.0.0.1"}
    screen.status("preparing the base model …")
    prepare = Part("base_model", "base_model", launch.commands.base_model, environment)
    environment |= model_environment(await supervisor.run_once(prepare))
    screen.say(f"base model {environment['LIFT_SERVED_NAME']} is prepared")
    if not settings.redis_url:
        redis, url = embedded_redis(settings.home.resolve(), settings.redis.max_memory_mb, environment)
        supervisor.start(redis)
        await _redis_answers(url)
        environment["REDIS_URL"] = url
        screen.say("Redis (embedded Valkey) is started")
    for part in parts(settings, environment, launch.commands, launch.ray):
        supervisor.start(part)
        screen.say(f"{part.name} is starting; log: {supervisor.log_path(part)}")
    address = own_address(settings.server)
    await _server_ready(address, launch)
    screen.status("")
    screen.say(examples(address, environment["LIFT_SERVED_NAME"], time.monotonic() - launch.began_s, launch.ray))


def shared_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """What every part must agree on. Secrets travel here, never on a command line."""
    shared = {"LIFT_HOME": str(settings.home.resolve())}
    if config := environment.get("LIFT_CONFIG"):
        shared["LIFT_CONFIG"] = str(Path(config).resolve())
    if not settings.engine.urls and not settings.engine.api_key:
        shared["LIFT_ENGINE__API_KEY"] = secrets.token_hex(24)
    return shared


def model_environment(prepared: str) -> dict[str, str]:
    """From the JSON line that `python -m lift_engine.base_model` prints last."""
    model = json.loads(prepared.strip().splitlines()[-1])
    return {
        "LIFT_BASE_MODEL": model["path_or_id"],
        "LIFT_BASE_REVISION": model["revision"],
        "LIFT_SERVED_NAME": model["served_name"],
    }


def parts(settings: Settings, environment: Mapping[str, str], commands: Commands, ray: str = "") -> list[Part]:
    """In starting order; they are stopped in the reverse order."""
    engines, workers = 0 if settings.engine.urls or ray else settings.engines, 0 if ray else settings.workers
    return [
        *(_numbered("engine", i, commands.engine, environment) for i in range(engines)),
        *(_numbered("worker", i, commands.worker, environment) for i in range(workers)),
        Part("server", "server", commands.server, environment),
    ]


def _numbered(role: str, index: int, command: tuple[str, ...], environment: Mapping[str, str]) -> Part:
    return Part(role, f"{role}-{index}", (*command, "--index", str(index)), environment)


async def _redis_answers(url: str) -> None:
    """While it still reads its append-only file, it refuses to answer."""
    async with Redis.from_url(url) as redis:
        while True:
            try:
                await redis.ping()
                return
            except RedisError:
                await asyncio.sleep(POLL_S)


async def _server_ready(address: str, launch: _Launch) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while not await _is_ready(session, address):
            launch.screen.status(
                f"starting, {time.monotonic() - launch.began_s:.0f} s so far (the engine is slowest) …"
            )
            await asyncio.sleep(POLL_S)


async def _is_ready(session: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with session.get(f"{address}/ready") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
