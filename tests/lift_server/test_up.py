"""`lift-serve up` with small programs in place of engine, worker and server, and the real embedded Valkey."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from lift_config.settings import Settings
from lift_server.launcher.embedded import embedded_redis
from lift_server.launcher.processes import sole_user
from lift_server.launcher.supervise import Supervisor
from lift_server.launcher.up import (
    Commands,
    PortInUseError,
    check_ports,
    model_environment,
    parts,
    run_up,
    shared_environment,
)

MODEL = {"path_or_id": "/a/folder", "revision": "r1", "served_name": "smol"}
# Each part tells its arguments and its environment; the server answers /ready.
UP = """
import os, sys
from lift_config.settings import Settings
from lift_server.launcher.up import Commands, run_up

def program(code):
    return (sys.executable, "-c", code)

TELL = "import json, os, sys, time; print(json.dumps([sys.argv[1:], dict(os.environ)]), flush=True);"
SERVER = TELL + '''
import signal
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
from http.server import BaseHTTPRequestHandler, HTTPServer
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
HTTPServer(("127.0.0.1", int(os.environ["LIFT_SERVER__PORT"])), Ready).serve_forever()
'''
sys.exit(run_up(Settings(), os.environ, Commands(
    base_model=program("import os; print(os.environ['MODEL'])"),
    engine=program(TELL + "time.sleep(60)"),
    worker=program(TELL + "time.sleep(60)"),
    server=program(SERVER),
)))
"""


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """run_up keeps its files private; the tests after these are not to."""
    umask = os.umask(0o077)
    os.umask(umask)
    yield
    os.umask(umask)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def up_environment(home: Path) -> dict[str, str]:
    """No setting of the machine that runs the tests gets in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFT_", "REDIS"))}
    ports = {"LIFT_SERVER__PORT": str(free_port()), "LIFT_ENGINE__PORT": str(free_port())}
    return {
        **kept,
        **ports,
        "LIFT_HOME": str(home),
        "MODEL": json.dumps(MODEL),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


@contextmanager
def running_up(home: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", UP],
        env=up_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: "subprocess.Popen[str]", wanted: str) -> str:
    assert process.stdout
    lines: list[str] = []
    while not lines or wanted not in lines[-1]:
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    return "".join(lines)


def told(home: Path, name: str) -> tuple[list[str], dict[str, str]]:
    arguments, environment = json.loads((home / "logs" / f"{name}.log").read_text().splitlines()[0])
    return arguments, environment


def recorded_pids(home: Path) -> dict[str, int]:
    return {part["name"]: part["pid"] for part in json.loads((home / "pids.json").read_text())}


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def redis_answers(url: str) -> bool:
    async with Redis.from_url(url) as redis:
        return bool(await redis.ping())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


async def test_up_starts_everything_says_so_and_stops_it_on_sigterm(tmp_path: Path) -> None:
    with running_up(tmp_path) as process:
        output = read_until(process, "Ctrl-C stops everything.")
        pids = recorded_pids(tmp_path)
        assert list(pids) == ["redis", "engine-0", "worker-0", "server"]
        assert told(tmp_path, "worker-0")[0] == ["--index", "0"]
        _, environment = told(tmp_path, "server")
        assert environment["LIFT_BASE_MODEL"] == "/a/folder"
        assert environment["LIFT_BASE_REVISION"] == "r1"
        assert environment["LIFT_SERVED_NAME"] == "smol"
        assert environment["LIFT_HOME"] == str(tmp_path)
        assert await redis_answers(environment["REDIS_URL"])
        assert (environment["REDIS_URL"], environment["LIFT_ENGINE__API_KEY"]) == (
            told(tmp_path, "engine-0")[1]["REDIS_URL"],
            told(tmp_path, "worker-0")[1]["LIFT_ENGINE__API_KEY"],
        )
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert rest.splitlines()[-1] == "stopped"
    assert not any(is_alive(pid) for pid in pids.values())
    assert f"127.0.0.1:{environment['LIFT_SERVER__PORT']}/v1 (model smol)" in output
    assert environment["LIFT_ENGINE__API_KEY"] not in output


async def test_secrets_are_on_no_command_line_and_no_file_is_open_to_others(tmp_path: Path) -> None:
    with running_up(tmp_path) as process:
        read_until(process, "Ctrl-C stops everything.")
        environment = told(tmp_path, "server")[1]
        password = environment["REDIS_URL"].partition("redis://:")[2].partition("@")[0]
        lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in recorded_pids(tmp_path).values()]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert len(password) == 48
    assert not any(secret in line for line in lines for secret in (password, environment["LIFT_ENGINE__API_KEY"]))
    assert {oct(path.stat().st_mode & 0o077) for path in files if path.exists()} == {"0o0"}


def test_a_second_ctrl_c_kills_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUBBORN", "1")
    with running_up(tmp_path) as process:
        read_until(process, "Ctrl-C stops everything.")
        pids = recorded_pids(tmp_path)
        process.send_signal(signal.SIGINT)
        read_until(process, "stopping")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=8)  # less than the grace of 15 s
    assert process.returncode == 0
    assert not any(is_alive(pid) for pid in pids.values())


async def test_after_kill_dash_9_nothing_is_left_and_the_next_start_succeeds(tmp_path: Path) -> None:
    with running_up(tmp_path) as process:
        read_until(process, "Ctrl-C stops everything.")
        pids = recorded_pids(tmp_path)
        process.kill()
        await until(lambda: not any(is_alive(pid) for pid in pids.values()))
    with running_up(tmp_path) as process:
        read_until(process, "Ctrl-C stops everything.")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_base_model_that_cannot_be_prepared_ends_up_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(home=tmp_path, server={"port": free_port()}, engine={"port": free_port()})
    commands = Commands(base_model=(sys.executable, "-c", "raise SystemExit('no such folder: /model')"))
    assert run_up(settings, os.environ, commands) == 1
    assert "no such folder: /model" in capsys.readouterr().out


def test_a_second_up_on_the_same_home_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sole_user(tmp_path):
        assert run_up(Settings(home=tmp_path), {}) == 1
    assert f"already running on {tmp_path} (pid {os.getpid()})" in capsys.readouterr().out


@pytest.mark.parametrize("section", ["server", "engine"])
def test_a_port_in_use_is_refused_with_the_settings_name(
    tmp_path: Path, section: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"server": {"port": free_port()}, "engine": {"port": free_port()}, section: {"port": port}}
        assert run_up(Settings.model_validate({"home": tmp_path, **ports}), {}) == 1
    output = capsys.readouterr().out
    assert f"cannot listen on 127.0.0.1:{port}" in output
    assert f"set {section}.port in config/lift.yaml, or LIFT_{section.upper()}__PORT" in output
    assert not (tmp_path / "logs").exists()


def test_every_engine_has_its_port_checked() -> None:
    with two_ports() as (first, second):
        second.listen()
        port = first.getsockname()[1]
        first.close()
        settings = Settings(server={"port": free_port()}, engine={"port": port}, engines=2)
        with pytest.raises(PortInUseError, match=f":{port + 1} "):
            check_ports(settings)
        elsewhere = {"port": port, "urls": ["http://gpu-1:8100"]}
        check_ports(Settings(server={"port": free_port()}, engine=elsewhere, engines=2))


@contextmanager
def two_ports() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Bound to ports that follow each other."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            with suppress(OSError):
                second.bind(("127.0.0.1", first.getsockname()[1] + 1))
                yield first, second
                return
    raise AssertionError("no two free ports in a row")


def test_engines_elsewhere_are_not_started_here_and_keep_their_key() -> None:
    settings = Settings(engine={"urls": ["http://gpu-1:8100"]}, workers=2)
    assert [part.name for part in parts(settings, {}, Commands())] == ["worker-0", "worker-1", "server"]
    assert "LIFT_ENGINE__API_KEY" not in shared_environment(settings, {})


def test_a_key_that_is_set_is_kept() -> None:
    assert "LIFT_ENGINE__API_KEY" not in shared_environment(Settings(engine={"api_key": "mine"}), {})


def test_paths_reach_the_parts_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shared = shared_environment(Settings(home=Path("state")), {"LIFT_CONFIG": "lift.yaml"})
    assert (shared["LIFT_HOME"], shared["LIFT_CONFIG"]) == (str(tmp_path / "state"), str(tmp_path / "lift.yaml"))


def test_the_prepared_model_is_the_last_line() -> None:
    assert model_environment(f"downloading …\n{json.dumps(MODEL)}\n")["LIFT_BASE_MODEL"] == "/a/folder"


async def test_the_embedded_valkey_comes_back_with_its_data_port_and_password(tmp_path: Path) -> None:
    died = asyncio.Event()
    async with Supervisor(tmp_path, lambda _: died.set()) as supervisor:
        redis, url = embedded_redis(tmp_path, 64, os.environ)
        supervisor.start(redis)
        await until_redis_answers(url)
        async with Redis.from_url(url, decode_responses=True) as client:
            await client.set("lift:job:a", "kept")
            assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] == "volatile-lru"
            await client.bgrewriteaof()
            with pytest.raises(AuthenticationError):
                await redis_answers(url.replace("redis://:", "redis://:wrong"))
        (marked,) = supervisor.marks
        os.kill(marked.pid, signal.SIGTERM)
        await asyncio.wait_for(died.wait(), 10)
        await until_redis_answers(url)
        async with Redis.from_url(url, decode_responses=True) as client:
            assert await client.get("lift:job:a") == "kept"
    assert oct((tmp_path / "redis" / "valkey.conf").stat().st_mode & 0o777) == "0o600"


async def until_redis_answers(url: str) -> None:
    async with asyncio.timeout(10), Redis.from_url(url) as client:
        while True:
            try:
                await client.ping()
                return
            except RedisError:
                await asyncio.sleep(0.02)
