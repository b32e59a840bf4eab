"""`lift-serve bench` against the front end: what it asks, counts and leaves behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.lift_server.commands import Command

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


@pytest.mark.parametrize("how", [[], ["--json"]])
async def test_a_file_is_measured_cold_and_warm_and_leaves_nothing(
    front_end: Any, worker: Any, engine: Any, tmp_path: Path, how: list[str]
) -> None:
    """Cold although the server knows the text: its title is new."""
    await front_end.upload(TEXT)
    await worker.train()
    path = tmp_path / "log.txt"
    path.write_text(TEXT)
    pipe = asyncio.subprocess.PIPE
    bench = Command("bench", tmp_path)
    process = await bench.start(str(path), "--url", front_end.url, "-n", "3", *how, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(50):
        while await worker.redis.xlen("lift:jobs") < 2:
            await asyncio.sleep(0)
        await worker.train()
        output, errors = (part.decode() for part in await process.communicate())
    assert (process.returncode, errors, len(engine.asked)) == (0, "", 1 + 1 + 3)
    assert len((await front_end.client.get("/v1/documents")).json()["data"]) == 1
    if not how:
        assert [line.partition(":")[0] for line in output.splitlines()] == ["cold", "warm"]
        return
    measured = json.loads(output)
    cold, warm = measured["cold"], measured["warm"]
    assert (cold["recipe"], warm["recipe"], warm["questions"]) == ("balanced", "balanced", 3)
    assert cold["ttft_s"] > 0
    assert 0 < warm["ttft_p50_s"] <= warm["ttft_p95_s"]
    assert warm["tokens_per_s"] > 0


async def test_a_document_that_is_there_is_measured_warm(
    front_end: Any, worker: Any, engine: Any, tmp_path: Path
) -> None:
    document = await front_end.upload(TEXT)
    await worker.train()
    bench = Command("bench", tmp_path)
    asked = ("--document", document["id"], "--url", front_end.url, "-n", "1", "--json")
    code, output, _ = await bench(*asked)
    assert (code, json.loads(output)["cold"], json.loads(output)["warm"]["questions"]) == (0, None, 1)
    assert (await front_end.client.get(f"/v1/documents/{document['id']}")).status_code == 200
    engine.words = []
    code, output, errors = await bench(*asked)
    assert (code, output, "there is no first token" in errors) == (1, "", True)


async def test_one_of_both_is_named(tmp_path: Path) -> None:
    bench = Command("bench", tmp_path)
    for arguments in ((), ("log.txt", "--document", "doc_" + "0" * 24), ("log.txt", "-n", "0")):
        assert (await bench(*arguments, "--url", "127.0.0.1:9"))[:2] == (2, "")
