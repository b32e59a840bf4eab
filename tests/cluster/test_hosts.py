"""Three hosts of a real Ray cluster, with small programs in place of engine, worker and server: where they run,
whatever becomes of the hosts. With real ones: scripts/bench_cluster.py.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from tests.cluster.hosts import Hosts, why_not
from tests.cluster.product import FIRST, OTHERS, Cluster, valkey
from tests.product import until

from lift_config.contract import ENGINES_KEY, WORKER_PREFIX, engine_redis_key

WITHIN_S = 120
# They keep the leases that engine and worker keep, and end as they do.
ENGINE = """
import asyncio, signal
from redis.asyncio import Redis
from lift_config.contract import EngineRecord
from lift_config.settings import Settings
from lift_engine.registration import stay_registered
class Core:
    errored = False
async def main():
    settings = Settings()
    async with Redis.from_url(settings.redis_url, socket_timeout=2) as redis:
        address, record = settings.engine_address(0), EngineRecord("m", "r")
        staying = asyncio.create_task(stay_registered(redis, address, record, Core()))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, staying.cancel)
        await asyncio.gather(staying, return_exceptions=True)
asyncio.run(main())
"""
WORKER = """
import socket, sys, time, redis
from lift_config.settings import Settings
while True:
    try:
        with redis.Redis.from_url(Settings().redis_url, socket_timeout=2) as client:
            client.set(f"lift:worker:{socket.gethostname()}-{sys.argv[2]}", "1", px=5000)
    except redis.RedisError:
        pass
    time.sleep(1)
"""
UP = """
import os, sys
from lift_config.settings import Settings
from lift_server.cluster.__main__ import main
from lift_server.launcher.up import Commands, run_up
def program(name):
    return (sys.executable, os.path.join(os.path.dirname(__file__), name))
MODEL = '{"path_or_id": "/m", "revision": "r", "served_name": "m"}'
commands = Commands(
    base_model=(sys.executable, "-c", f"print({MODEL!r})"), engine=program("engine.py"), worker=program("worker.py"),
    server=(sys.executable, "-c", "import time; time.sleep(600)"), cluster=(sys.executable, __file__),
)
if len(sys.argv) > 1:
    main(commands)
else:
    sys.exit(run_up(Settings(), os.environ, commands, ray="auto"))
"""

pytestmark = [
    pytest.mark.engine,  # as slow
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    for name, code in {"up": UP, "engine": ENGINE, "worker": WORKER}.items():
        (tmp_path / f"{name}.py").write_text(code)
    with ExitStack() as stack:
        hosts = stack.enter_context(Hosts(tmp_path, (FIRST, *OTHERS)))
        url = stack.enter_context(valkey(tmp_path))
        cluster = Cluster(hosts, url, tmp_path / "store", {})
        cluster.start_ray()
        yield cluster


def test_what_a_lost_host_had_is_elsewhere_and_what_is_wanted_changes_with_up(cluster: Cluster, tmp_path: Path) -> None:
    up = (sys.executable, str(tmp_path / "up.py"))
    here = [cluster.hosts.address(name) for name in OTHERS]
    cluster.up(up, engines_min=2, engines_max=2, workers_min=2, workers_max=2)
    until(lambda: running(cluster) == (here, list(OTHERS)), WITHIN_S)

    cluster.hosts.pull(OTHERS[1])
    until(lambda: running(cluster) == ([here[0]] * 2, [OTHERS[0]] * 2), WITHIN_S)
    joined = cluster.ray_starts(OTHERS[1])
    cluster.hosts.plug(OTHERS[1])
    until(lambda: cluster.ray_starts(OTHERS[1]) > joined, WITHIN_S)

    cluster.kill_up()
    cluster.up(up, engines_min=1, engines_max=1, workers_min=3, workers_max=3)
    until(lambda: [len(found) for found in running(cluster)] == [1, 3], WITHIN_S)
    cluster.stop_up()
    assert [len(found) for found in running(cluster)] == [1, 3]

    command = (sys.executable, "-m", "lift_server.cli", "down", "--ray", "auto")
    assert "ended: engine-0, worker-0, worker-1, worker-2" in cluster.hosts.run(FIRST, command, cluster.environment)
    until(lambda: running(cluster) == ([], []), WITHIN_S)


def running(cluster: Cluster) -> tuple[list[str], list[str]]:
    """The address of each engine's host, the name of each worker's, by their leases."""
    with redis.Redis.from_url(cluster.environment["REDIS_URL"], decode_responses=True) as client:
        urls = [url for url in client.smembers(ENGINES_KEY) if client.exists(engine_redis_key(url))]
        workers = [key.removeprefix(WORKER_PREFIX).rpartition("-")[0] for key in client.keys(f"{WORKER_PREFIX}*")]
    return sorted(url.split("/")[2].partition(":")[0] for url in urls), sorted(workers)
