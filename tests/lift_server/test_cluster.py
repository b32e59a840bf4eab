"""Engines and workers on a real Ray cluster of this machine, with small programs in their place."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lift_config.settings import Settings
from lift_server.cli import check_cluster
from lift_server.cluster.keeper import Member, as_variables, node_environment, part_environment
from lift_server.exits import UsageError
from lift_server.launcher.up import Commands

pytestmark = pytest.mark.timeout(240)  # starting Ray's processes takes as long as the machine is busy

ENGINE, OTHER, WORKER = Member("engine", 0), Member("engine", 1), Member("worker", 0)
WITH_TOKEN = {"RAY_AUTH_MODE": "token"}
MODEL = {"path_or_id": "/a/folder", "revision": "r1", "served_name": "smol"}
TELL = "import json, os, sys, time; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]), flush=True);"
STAND_IN = (sys.executable, "-c", TELL + "time.sleep(600)")
COMMANDS = Commands(
    base_model=(sys.executable, "-c", f"print({json.dumps(json.dumps(MODEL))})"), engine=STAND_IN, worker=STAND_IN
)


def settings(home: Path, **more: Any) -> Settings:
    return Settings(
        home=home,
        device="cuda",
        redis_url="redis://:secret@10.0.0.1:6379/0",
        store_url="s3://bucket/lift",
        engine={"api_key": "secret", "port": 9100},
        **more,
    )


def test_settings_travel_as_variables_that_read_as_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(tmp_path, adapter_secrets=["a-secret-of-adapters"], cluster={"together": True})
    for name, value in as_variables(given).items():
        monkeypatch.setenv(name, value)
    assert Settings() == given


def test_each_part_has_a_port_and_a_folder_of_its_own_whatever_else_is_on_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = {"LIFT_CONFIG": "/nowhere.yaml", "OMP_NUM_THREADS": "1", "HF_HOME": "/models", "LIFT_ENGINES": "2"}
    given = part_environment(node_environment(host, as_variables(settings(tmp_path))), OTHER, "10.0.0.5")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    told = Settings()
    assert told.engine_address(0) == "http://10.0.0.5:9101"
    assert (told.engine.registered, told.engines, told.workers) == (True, 1, 1)
    assert told.home == tmp_path / "cluster" / "engine-1"
    assert told.engine.gpu_memory_fraction == 0.9  # it has its GPU alone
    assert given["HF_HOME"] == "/models"
    assert not {"LIFT_CONFIG", "OMP_NUM_THREADS"} & given.keys()


def test_engine_and_worker_on_one_gpu_split_it_as_the_settings_say(tmp_path: Path) -> None:
    node = node_environment({"LIFT_HOME": "/data"}, as_variables(settings(tmp_path, cluster={"together": True})))
    given = part_environment(node, WORKER, "10.0.0.5")
    assert "LIFT_WORKER__GPU_MEMORY_FRACTION" not in given
    assert given["LIFT_HOME"] == "/data/cluster/worker-0"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of one node with four CPUs and three GPUs, which Ray only counts."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the user's home
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 3, "include_dashboard": False}
        )
        yield cluster.address
        cluster.shutdown()


Connect = Callable[..., Any]


@pytest.fixture
async def connect(address: str, tmp_path: Path) -> AsyncIterator[Connect]:
    """A driver: one at a time in a process."""
    from lift_server.cluster.fleet import Fleet

    fleets: list[Fleet] = []

    def connected(**cluster: Any) -> Fleet:
        if fleets:
            fleets[-1].close()
        fleets.append(Fleet(settings(tmp_path, cluster=cluster), address, COMMANDS))
        return fleets[-1]

    yield connected
    await fleets[-1].drain(fleets[-1].members())
    fleets[-1].close()


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(30):
        while not (value := condition()):
            await asyncio.sleep(0.02)
        return value


def log(home: Path, member: Member, but: Sequence[int] = ()) -> list[Any]:
    """Of its processes so far: pid, arguments, environment."""
    path = home / "cluster" / member.name / "logs" / f"{member.name}.log"
    lives = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [life for life in lives if life[0] not in but]


def is_alive(pid: int) -> bool:
    """Not one that has ended and only waits for its new parent, Ray's, to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_they_outlive_their_driver_and_the_next_one_finds_and_drains_them(
    connect: Connect, tmp_path: Path
) -> None:
    fleet = connect()
    for member in (ENGINE, OTHER, WORKER):
        fleet.add(member)
    lives = [(await until(lambda member=member: log(tmp_path, member)))[0] for member in (ENGINE, OTHER, WORKER)]
    pids = [pid for pid, _, _ in lives]
    assert lives[2][1] == ["--index", "0"]
    environment = lives[1][2]
    assert environment["LIFT_BASE_MODEL"] == "/a/folder"
    assert environment["LIFT_ENGINE__PORT"] == "9101"
    assert environment["LIFT_REDIS_URL"] == "redis://:secret@10.0.0.1:6379/0"
    assert "OMP_NUM_THREADS" not in environment
    assert {life[2]["CUDA_VISIBLE_DEVICES"] for life in lives} == {"0", "1", "2"}

    fleet = connect()
    assert fleet.members() == [ENGINE, WORKER, OTHER]
    assert all(map(is_alive, pids))
    assert (await fleet.report(OTHER)).startswith("engine-1 on ")
    await fleet.drain([OTHER])
    assert not is_alive(pids[1])
    assert fleet.members() == [ENGINE, WORKER]


async def test_a_process_that_dies_is_started_again_and_so_is_an_actor(connect: Connect, tmp_path: Path) -> None:
    fleet = connect()
    fleet.add(ENGINE)
    (first, _, _), *_ = await until(lambda: log(tmp_path, ENGINE))
    os.kill(first, signal.SIGKILL)
    second = (await until(lambda: log(tmp_path, ENGINE)[1:]))[0][0]
    actor = int((tmp_path / "cluster" / "engine-0" / "up.lock").read_text())
    os.kill(actor, signal.SIGKILL)
    third, _, environment = (await until(lambda: log(tmp_path, ENGINE, but=(first, second))))[0]
    assert not is_alive(second)
    assert is_alive(third)
    assert environment["LIFT_ENGINE__PORT"] == "9100"  # its adapters' home is where it was


async def test_engine_and_worker_together_are_on_the_same_gpu(connect: Connect, tmp_path: Path) -> None:
    fleet = connect(together=True)
    for member in (ENGINE, WORKER, OTHER, Member("worker", 1)):
        fleet.add(member)
    gpus = [
        (await until(lambda member=member: log(tmp_path, member)))[0][2]["CUDA_VISIBLE_DEVICES"]
        for member in (ENGINE, WORKER, OTHER, Member("worker", 1))
    ]
    assert gpus[0] == gpus[1] != gpus[2] == gpus[3]


async def test_what_finds_no_host_waits_and_can_be_taken_away(connect: Connect) -> None:
    fleet = connect(engine_gpus=4)
    fleet.add(ENGINE)
    assert fleet.members() == [ENGINE]
    await fleet.drain([ENGINE])
    assert fleet.members() == []


SERVER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", int(os.environ["LIFT_SERVER__PORT"])), Ready).serve_forever()
"""
UP = """
import json, os, sys
from lift_config.settings import Settings
from lift_server.cluster.__main__ import main
from lift_server.launcher.up import Commands, run_up

commands = {name: tuple(command) for name, command in json.loads(os.environ["COMMANDS"]).items()}
commands = Commands(**{**commands, "cluster": (sys.executable, __file__)})
if len(sys.argv) > 1:
    main(commands)
else:
    sys.exit(run_up(Settings(), os.environ, commands, ray=os.environ["RAY_AT"]))
"""


@pytest.fixture
def environment(address: str, valkey_url: str, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFT_", "REDIS"))}
    return {
        **kept,
        "RAY_AT": address,
        "COMMANDS": json.dumps(asdict(replace(COMMANDS, server=(sys.executable, "-c", SERVER)))),
        "REDIS_URL": valkey_url,
        "LIFT_STORE_URL": (tmp_path / "store").as_uri(),
        "LIFT_HOME": str(tmp_path),
        "LIFT_DEVICE": "cpu",
        "LIFT_SERVER__PORT": str(free_port()),
        "LIFT_ENGINE__API_KEY": "secret",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run(environment: dict[str, str], *command: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environment, stdout=PIPE, stderr=STDOUT, start_new_session=True
    )


async def read_until(process: Process, wanted: str) -> str:
    assert process.stdout
    text = ""
    while wanted not in text:
        line = await process.stdout.readline()
        assert line, text
        text += line.decode()
    return text


async def down(environment: dict[str, str]) -> tuple[int | None, str]:
    process = await run(environment, "-m", "lift_server.cli", "down", "--ray", environment["RAY_AT"])
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_up_is_started_again_after_kill_9_and_finds_what_runs_and_down_ends_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "up.py"
    script.write_text(UP)
    first = await run(environment, str(script))
    text = await read_until(first, "down --ray")
    assert "base model smol" in text
    pid, _, told = (await until(lambda: log(tmp_path, ENGINE)))[0]
    worker = (await until(lambda: log(tmp_path, WORKER)))[0][0]
    assert (told["LIFT_DEVICE"], told["LIFT_ENGINE__REGISTERED"]) == ("cpu", "true")
    first.kill()
    await first.communicate()

    second = await run({**environment, "LIFT_CLUSTER__WORKERS_MIN": "2", "LIFT_CLUSTER__WORKERS_MAX": "2"}, str(script))
    await read_until(second, "down --ray")
    await until(lambda: log(tmp_path, Member("worker", 1)))
    assert [life[0] for life in log(tmp_path, ENGINE)] == [pid]
    code, said = await down(environment)
    assert code == 1
    assert "another `lift-serve up --ray` looks after this cluster" in said
    second.terminate()
    await second.communicate()
    assert second.returncode == 0
    assert is_alive(pid)

    code, said = await down(environment)
    assert (code, said.splitlines()[-1]) == (0, "ended: engine-0, worker-0, worker-1")
    assert not is_alive(pid)
    assert not is_alive(worker)


def test_a_cluster_wants_ray_and_what_its_hosts_share(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pip install 'lift-serve\[ray\]'"):
        check_cluster(settings(tmp_path), WITH_TOKEN, is_installed=False)
    check_cluster(settings(tmp_path), WITH_TOKEN, is_installed=True)
    with pytest.raises(UsageError, match=r"set REDIS_URL, store_url, engine[.]api_key"):
        check_cluster(Settings(home=tmp_path), WITH_TOKEN, is_installed=True)
    given = settings(tmp_path)
    fixed = given.model_copy(update={"engine": given.engine.model_copy(update={"urls": ("http://a:1",)})})
    with pytest.raises(UsageError, match=r"engine[.]urls must be empty"):
        check_cluster(fixed, WITH_TOKEN, is_installed=True)
    with pytest.raises(UsageError, match="set RAY_AUTH_MODE=token"):
        check_cluster(settings(tmp_path), {}, is_installed=True)
