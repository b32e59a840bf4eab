"""`lift-serve keys`, as a person runs it: beside a server, beside the embedded Valkey, and while nothing runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from tests.lift_server.commands import Command

from lift_config.contract import KEYS_KEY
from lift_server.keys import digest_of
from lift_server.launcher.embedded import embedded_redis, embedded_url

SECRET = re.compile(r"sk-lift-[A-Za-z0-9_-]{43}\n")


def id_in(errors: str) -> str:
    found = re.search(r"key_[0-9a-f]{12}", errors)
    assert found
    return found[0]


async def test_a_running_server_learns_at_once(front_end: Any, tmp_path: Path, valkey_url: str) -> None:
    command = Command("keys", tmp_path, valkey_url)
    code, secret, errors = await command("create", "Ada's notebook", "--requests-per-minute", "9", "--documents", "2")
    assert code == 0
    assert SECRET.fullmatch(secret)  # alone, so that a shell can catch it
    assert "shown this once" in errors
    assert "Redis: told" in errors
    headers = {"Authorization": f"Bearer {secret.strip()}"}
    answer = await front_end.client.get("/v1/documents", headers=headers)
    assert (answer.status_code, answer.headers["x-ratelimit-limit-requests"]) == (200, "9")
    code, output, _ = await command("list")
    assert code == 0
    assert "Ada's notebook" in output
    assert "requests_per_minute=9 documents=2" in output
    assert "active" in output
    assert secret.strip() not in output
    assert (await command("revoke", id_in(errors)))[0] == 0
    assert (await front_end.client.get("/v1/documents", headers=headers)).status_code == 401
    assert "revoked" in (await command("list"))[1]


async def test_listed_as_json(tmp_path: Path, valkey_url: str) -> None:
    command = Command("keys", tmp_path, valkey_url)
    _, secret, _ = await command("create", "mine", "--documents", "2")
    code, output, errors = await command("list", "--json")
    (key,) = json.loads(output)["data"]
    assert (code, errors) == (0, "")
    assert (key["name"], key["limits"]["documents"], key["revoked_s"]) == ("mine", 2, None)
    assert digest_of(secret.strip()) not in output


async def test_made_and_revoked_as_json(tmp_path: Path, valkey_url: str) -> None:
    command = Command("keys", tmp_path, valkey_url)
    code, output, errors = await command("create", "mine", "--documents", "2", "--json")
    made = json.loads(output)
    assert (code, errors, bool(SECRET.fullmatch(made["key"] + "\n"))) == (0, "", True)
    assert (made["name"], made["limits"]["documents"], "digest" in made) == ("mine", 2, False)
    code, output, errors = await command("revoke", made["id"], "--json")
    revoked = json.loads(output)
    assert (code, errors, revoked["id"], "key" in revoked) == (0, "", made["id"], False)
    assert revoked["revoked_s"] > 0
    code, output, errors = await command("revoke", "key_none", "--json")
    assert (code, output, json.loads(errors)["error"]["type"]) == (1, "", "command_error")


async def test_a_second_key_for_an_owner(front_end: Any, tmp_path: Path, valkey_url: str) -> None:
    document = await front_end.upload("The lighthouse keeper of Orvel keeps eleven bees.")
    code, secret, _ = await Command("keys", tmp_path, valkey_url)("create", "heir", "--owner", "default")
    assert code == 0
    headers = {"Authorization": f"Bearer {secret.strip()}"}
    assert (await front_end.client.get(f"/v1/documents/{document['id']}", headers=headers)).status_code == 200


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[str]:
    """As `lift-serve up` runs it: its URL."""
    part, url = embedded_redis(tmp_path, 64, os.environ)
    process = await asyncio.create_subprocess_exec(*part.command, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(10), Redis.from_url(url) as redis:
            while not await answers(redis):
                await asyncio.sleep(0)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def answers(redis: Redis) -> bool:
    try:
        return bool(await redis.ping())
    except RedisError:
        return False


async def test_the_embedded_valkey_is_found_by_a_file_that_only_its_user_reads(embedded: str, tmp_path: Path) -> None:
    assert embedded_url(tmp_path) == embedded
    assert stat.S_IMODE((tmp_path / "redis" / "valkey.conf").stat().st_mode) == 0o600
    code, _, errors = await Command("keys", tmp_path)("create", "mine")
    assert code == 0
    assert "Redis: told" in errors
    async with Redis.from_url(embedded) as redis:
        assert await redis.exists(KEYS_KEY) == 1


async def test_while_nothing_runs_the_store_is_written(start: Any, tmp_path: Path) -> None:
    embedded_redis(tmp_path, 64, os.environ)  # the file of one that has ended
    command = Command("keys", tmp_path)
    code, secret, errors = await command("create", "early")
    assert code == 0
    assert "the next one to start takes it over" in errors
    (path,) = (tmp_path / "store" / "keys").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    headers = {"Authorization": f"Bearer {secret.strip()}"}
    assert (await (await start()).client.get("/v1/documents", headers=headers)).status_code == 200
    assert (await command("revoke", id_in(errors)))[0] == 0
    assert (await (await start()).client.get("/v1/documents", headers=headers)).status_code == 401


async def test_a_revocation_that_no_server_may_know_of_fails(tmp_path: Path) -> None:
    command = Command("keys", tmp_path, "redis://127.0.0.1:9/0")
    code, secret, errors = await command("create", "away")
    assert (code, bool(SECRET.fullmatch(secret))) == (0, True)
    code, _, errors = await command("revoke", id_in(errors))
    assert code == 1
    assert "run it again" in errors


@pytest.mark.parametrize(
    "arguments",
    [("create", "a", "--owner", "nobody"), ("create", ""), ("create", "a\nb"), ("create", "a" * 101),
     ("create", "a", "--documents", "-1"), ("create", "a", "--documents", "many"), ("create",),
     ("revoke", "key_0"), ()],
)  # fmt: skip
async def test_wrong_arguments_write_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, output, errors = await Command("keys", tmp_path)(*arguments)
    assert code in (1, 2)
    assert output == ""
    assert errors
    assert "Traceback" not in errors
    assert not (tmp_path / "store" / "keys").exists()
