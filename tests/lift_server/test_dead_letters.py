"""`lift-serve dead-letters`: what failed after every attempt is listed, and goes into the queue again when told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.lift_server.commands import Command

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


@pytest.fixture
def command(tmp_path: Path, valkey_url: str) -> Command:
    return Command("dead-letters", tmp_path, valkey_url)


async def failed(front_end: Any, worker: Any, redis: Any, text: str = TEXT) -> tuple[str, str]:
    """A document and its job, as a worker leaves them after the last attempt."""
    document = await front_end.upload(text)
    job = await worker.newest_job()
    await worker.fail(job, "No engine wrote the synthetic tasks.", attempts=3)
    await redis.delete("lift:jobs")
    return document["id"], job.key


async def test_listed_with_reason_and_documents(front_end: Any, worker: Any, redis: Any, command: Command) -> None:
    document_id, job_key = await failed(front_end, worker, redis)
    code, output, _ = await command("list")
    assert code == 0
    for part in (job_key, "no_tasks, 3 attempts", document_id, "No engine wrote the synthetic tasks."):
        assert part in output


async def test_listed_as_json(front_end: Any, worker: Any, redis: Any, command: Command) -> None:
    document_id, job_key = await failed(front_end, worker, redis)
    code, output, errors = await command("list", "--json")
    (letter,) = json.loads(output)["data"]
    assert (code, errors) == (0, "")
    assert abs(letter.pop("at_s") - time.time()) < 60
    assert letter == {
        "job": job_key,
        "code": "no_tasks",
        "attempts": 3,
        "documents": [document_id],
        "message": "No engine wrote the synthetic tasks.",
    }


async def test_retried_it_is_trained(front_end: Any, worker: Any, redis: Any, command: Command) -> None:
    document_id, job_key = await failed(front_end, worker, redis)
    assert (await command("retry"))[:2] == (0, f"{job_key}  is in the queue again\n")
    document = (await front_end.client.get(f"/v1/documents/{document_id}")).json()
    assert (document["status"], document["error"], document["unfinished"]) == ("queued", None, True)
    assert [fields[b"job"].decode() for _, fields in await redis.xrange("lift:jobs")] == [job_key]
    assert await redis.zcard("lift:dead-letters") == 0
    await worker.train()
    assert (await front_end.client.get(f"/v1/documents/{document_id}")).json()["status"] == "ready"


async def test_only_the_one_that_is_named(front_end: Any, worker: Any, redis: Any, command: Command) -> None:
    _, one = await failed(front_end, worker, redis)
    _, other = await failed(front_end, worker, redis, TEXT + " And a goat.")
    code, output, errors = await command("retry", other, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(output) == {"object": "list", "data": [{"job": other, "is_queued": True}]}
    assert await redis.zrange("lift:dead-letters", 0, -1) == [one.encode()]


@pytest.mark.parametrize("how", ["deleted", "uploaded again"])
async def test_what_is_deleted_or_taken_up_is_no_letter_any_more(
    front_end: Any, worker: Any, redis: Any, command: Command, how: str
) -> None:
    document_id, _ = await failed(front_end, worker, redis)
    if how == "deleted":
        await front_end.client.delete(f"/v1/documents/{document_id}")
    else:
        await front_end.upload(TEXT)
    assert (await command("list"))[:2] == (0, "\n")
    assert await redis.zcard("lift:dead-letters") == 0


async def test_a_lost_redis_loses_none(start: Any, worker: Any, redis: Any, command: Command) -> None:
    """The store has them; what another attempt would not mend is none."""
    front_end = await start()
    _, job_key = await failed(front_end, worker, redis)
    before = await command("list", "--json")
    await front_end.upload(TEXT + " And a goat.")
    await worker.fail(await worker.newest_job(), "The document has no text to learn from.")
    await redis.flushall()
    await start()
    assert await command("list", "--json") == before
    assert await redis.zrange("lift:dead-letters", 0, -1) == [job_key.encode()]


async def test_while_redis_is_filled_none_is_not_said(redis: Any, command: Command) -> None:
    code, output, errors = await command("list")
    assert (code, output, "being filled from the store" in errors) == (1, "", True)


async def test_what_names_none_is_refused(front_end: Any, command: Command, tmp_path: Path) -> None:
    code, _, errors = await command("retry", "0" * 32)
    assert (code, f"no such dead letter: {'0' * 32}" in errors) == (1, True)
    code, _, errors = await Command("dead-letters", tmp_path / "other")("list")
    assert (code, "no Redis" in errors) == (1, True)
