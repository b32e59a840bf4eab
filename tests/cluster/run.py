"""Owners at work on three hosts while one is cut off and comes back, an engine is drained and a worker added.

In: a home, a seed. Out: the journal of what they were told (tests/faults), and how long each change took.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import redis
from tests.cluster.hosts import Hosts
from tests.cluster.product import FIRST, OTHERS, Cluster, valkey
from tests.faults import invariants
from tests.faults.journal import Journal
from tests.faults.load import Load
from tests.product import Key, until

from lift_config.contract import ENGINES_KEY, STREAMS, WORKER_PREFIX, engine_redis_key
from lift_config.settings import Settings
from lift_engine.base_model import prepare

OWNERS = ("ada", "bert", "cleo")
START_S, CHANGE_S, REST_S = 900, 900, 1800
BEFORE = 3  # documents that are ready before the first change: their adapters are looked for again
ENVIRONMENT = {
    "LIFT_CPU_DTYPE": "float32",  # one adapter says the same whatever else is computed
    "LIFT_RECIPE": "sketch",
    "LIFT_ENGINE__CPU_KV_CACHE_GIB": "1",
    "LIFT_ENGINE__MAX_LORAS": "2",
    "LIFT_ENGINE__MAX_CPU_LORAS": "4",
    "LIFT_WORKER__LEASE_S": "10",
}
Json = dict[str, Any]
Say = Callable[[str], None]


def run(home: Path, *, seed: int, say: Say) -> Journal:
    """AssertionError where a change did not come about; else the journal tells of violations."""
    home.mkdir(parents=True)
    journal, began_s = Journal(home / "journal.jsonl"), time.monotonic()
    try:
        with Hosts(home, (FIRST, *OTHERS)) as hosts, valkey(home) as url:
            model = prepare(Settings(home=home.parent, device="cpu")).path_or_id  # once, not on each host
            given = {**ENVIRONMENT, "LIFT_BASE_MODEL": model}
            cluster = Cluster(hosts, url, home / "store", given)
            cluster.start_ray()
            say("three Ray nodes are up")
            asyncio.run(_work(cluster, journal, seed, say))
    finally:
        journal.ran((time.monotonic() - began_s) / 60)
        journal.close()
    return journal


async def _work(cluster: Cluster, journal: Journal, seed: int, say: Say) -> None:
    up = (sys.executable, "-m", "lift_server.cli", "up", "--ray", "auto")
    cluster.up(up, engines_min=2, engines_max=2, workers_min=2, workers_max=2)
    await asyncio.to_thread(until, lambda: _is_ready(cluster) and _members(cluster) == [2, 2], START_S)
    say(f"up: {_engines(cluster)}")
    keys = {name: _key(cluster, name) for name in OWNERS}
    loads = [Load(name, cluster.url, key.secret, journal, seed) for name, key in keys.items()]
    stop = asyncio.Event()
    at_work = [asyncio.create_task(load.run(stop)) for load in loads]
    try:
        changing = asyncio.create_task(asyncio.to_thread(_change, cluster, keys, journal, up, say))
        await asyncio.wait({changing, *at_work}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.gather(changing, *at_work)
        say("coming to rest")
        shown = await asyncio.to_thread(until, lambda: _at_rest(cluster, keys), REST_S)
        for load in loads:
            for document in shown[load.name]:
                if document["id"] not in load.owned.fates:
                    journal.uploaded(load.name, document["id"], "")  # its answer had been lost
                if document["status"] == "ready":
                    await load.ask_about(document["id"])
        for violation in (
            *invariants.of_documents(journal, shown),
            *invariants.of_answers(journal, shown),
            *invariants.of_trainings(journal),
        ):
            journal.violation(violation)
    finally:
        for load in loads:
            await load.close()


def _change(cluster: Cluster, keys: dict[str, Key], journal: Journal, up: tuple[str, ...], say: Say) -> None:
    """One after the other, and between them all must be well again."""

    def step(what: str, act: Callable[[], None], is_done: Callable[[], object]) -> None:
        say(what)
        began_s = time.monotonic()
        act()
        until(is_done, CHANGE_S)
        journal.fault(what, time.monotonic() - began_s)
        say(f"done: {_engines(cluster)}")

    until(lambda: len(_ready(cluster, keys)) >= BEFORE, CHANGE_S)
    rest = [cluster.hosts.address(OTHERS[0])] * 2
    step("a host is cut off for a moment", lambda: _for_a_moment(cluster), lambda: _members(cluster) == [2, 2])
    step("a host is cut off: its engine and worker on another", lambda: cluster.hosts.pull(OTHERS[1]),
         lambda: _engines(cluster) == rest and _is_ready(cluster))  # fmt: skip
    joined = cluster.ray_starts(OTHERS[1])
    step("it comes back", lambda: cluster.hosts.plug(OTHERS[1]), lambda: cluster.ray_starts(OTHERS[1]) > joined)
    limits = {"engines_min": 1, "engines_max": 1, "workers_min": 3, "workers_max": 3}
    step("`up` again: an engine is drained, a worker added", lambda: cluster.up(up, **limits),
         lambda: _members(cluster) == [1, 3] and _is_ready(cluster))  # fmt: skip


def _for_a_moment(cluster: Cluster) -> None:
    """Shorter than Ray's patience: for the clients the same as a network that loses packets."""
    cluster.hosts.pull(OTHERS[0])
    time.sleep(2)  # the fault itself
    cluster.hosts.plug(OTHERS[0])


def _key(cluster: Cluster, name: str) -> Key:
    command = (sys.executable, "-m", "lift_server.cli", "keys", "create", name)
    told = cluster.hosts.run(FIRST, command, cluster.environment)
    return Key(name, told.strip().splitlines()[-1])


def _is_ready(cluster: Cluster) -> bool:
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{cluster.url}/ready", timeout=5).status_code == 200
    return False


def _engines(cluster: Cluster) -> list[str]:
    """The address of each one's host."""
    with redis.Redis.from_url(cluster.environment["REDIS_URL"], decode_responses=True) as client:
        urls = [str(url) for url in client.smembers(ENGINES_KEY) if client.exists(engine_redis_key(url))]
    return sorted(url.split("/")[2].partition(":")[0] for url in urls)


def _members(cluster: Cluster) -> list[int]:
    with redis.Redis.from_url(cluster.environment["REDIS_URL"]) as client:
        return [len(_engines(cluster)), len(client.keys(f"{WORKER_PREFIX}*"))]


def _ready(cluster: Cluster, keys: dict[str, Key]) -> list[str]:
    return [one["id"] for shown in _shown(cluster, keys).values() for one in shown if one["status"] == "ready"]


def _at_rest(cluster: Cluster, keys: dict[str, Key]) -> dict[str, list[Json]] | None:
    """What each owner is shown when nothing is trained and nothing waits any more."""
    shown = _shown(cluster, keys)
    with redis.Redis.from_url(cluster.environment["REDIS_URL"]) as client:
        is_at_work = any(map(client.xlen, STREAMS))
    is_training = any(document["unfinished"] for documents in shown.values() for document in documents)
    return None if is_at_work or is_training or not shown else shown


def _shown(cluster: Cluster, keys: dict[str, Key]) -> dict[str, list[Json]]:
    """Nothing where the server does not answer."""
    found: dict[str, list[Json]] = {}
    for name, key in keys.items():
        headers = {"Authorization": f"Bearer {key.secret}"}
        with suppress(httpx2.HTTPError):
            answer = httpx2.get(f"{cluster.url}/v1/documents", params={"limit": 100}, headers=headers, timeout=30)
            if answer.status_code == 200:
                found[name] = answer.json()["data"]
    return found if len(found) == len(keys) else {}
