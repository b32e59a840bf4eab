"""`lift-serve mcp`, as an agent's client starts it, against the front end over its socket."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from tests.lift_server.holders import holder

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
UNKNOWN = "doc_" + "0" * 24


@asynccontextmanager
async def agent(url: str, *arguments: str) -> AsyncIterator[Client]:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    command = ["-m", "lift_server.cli", "mcp", "--url", url, *arguments]
    async with Client(StdioServerParameters(command=sys.executable, args=command, env=environment)) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """What the tool returns, from the text that every client shows; AssertionError with the reason where it failed."""
    result = await client.call_tool(tool, arguments)
    texts = [content.text for content in result.content]  # type: ignore[union-attr]
    assert not result.is_error, texts
    values = [json.loads(text) for text in texts]
    return values[0] if result.structured_content is None or "result" not in result.structured_content else values


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]


async def test_an_agent_uploads_and_asks(front_end: Any, worker: Any, tmp_path: Path) -> None:
    async with agent(front_end.url) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools.keys() == {
            "upload_file", "upload_text", "list_documents", "show_document", "ask_document", "ask_documents",
        }  # fmt: skip
        assert all(tool.description for tool in tools.values())
        path = tmp_path / "log.txt"
        path.write_text(TEXT)
        document = await call(client, "upload_file", path=str(path), title="Orvel")
        assert (document["filename"], document["title"], document["status"]) == ("log.txt", "Orvel", "queued")
        await worker.train()
        assert (await call(client, "show_document", document_id=document["id"]))["status"] == "ready"
        answer = await call(client, "ask_document", document_id=document["id"], question="How many bees?")
        assert (answer["answer"], answer["answered_from"]) == ("The answer is 42.", "adapter")
        assert [one["text"] for one in answer["evidence"]] == [TEXT]
        other = await call(client, "upload_text", text=TEXT + " And more.")
        assert [one["id"] for one in await call(client, "list_documents")] == [other["id"], document["id"]]
        ids = [document["id"], other["id"]]
        answer = await call(client, "ask_documents", document_ids=ids, question="How many bees?")
        assert (answer["answer"], answer["answered_from"]) == ("The answer is 42.", "context")
        made = (await call(client, "list_documents"))[0]
        assert sorted(made["document_ids"]) == sorted(ids)


async def test_an_answer_outlives_its_evidence(front_end: Any, engine: Any, worker: Any) -> None:
    message = {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}
    engine.scoring_error = (500, message)
    document = await front_end.upload(TEXT)
    await worker.train()
    async with agent(front_end.url) as client:
        answer = await call(client, "ask_document", document_id=document["id"], question="How many bees?")
    assert (answer["answer"], answer["evidence"]) == ("The answer is 42.", [])
    assert "out of memory" in answer["evidence_error"]


async def test_refusals_are_told_in_the_servers_words(front_end: Any, tmp_path: Path) -> None:
    async with agent(front_end.url) as client:
        assert "No such document" in await refused(client, "ask_document", document_id=UNKNOWN, question="?")
        assert "No such document" in await refused(client, "show_document", document_id=UNKNOWN)
        assert "missing.pdf" in await refused(client, "upload_file", path=str(tmp_path / "missing.pdf"))
        assert "empty" in await refused(client, "upload_text", text=" ")
        assert "2 to 32" in await refused(client, "ask_documents", document_ids=[], question="?")
        assert "mode" in await refused(client, "ask_document", document_id=UNKNOWN, question="?", mode="guess")


async def test_an_agent_sees_what_its_key_sees(front_end: Any) -> None:
    a, b = await holder(front_end), await holder(front_end)
    await a.upload(TEXT)
    async with agent(front_end.url, "--key", a.secret) as client:
        assert len(await call(client, "list_documents")) == 1
    async with agent(front_end.url, "--key", b.secret) as client:
        result = await client.call_tool("list_documents", {})
        assert not result.is_error
        assert result.structured_content == {"result": []}
    async with agent(front_end.url, "--key", "sk-lift-no") as client:
        assert "API key" in await refused(client, "list_documents")


async def test_a_server_that_is_away_is_told_each_time() -> None:
    async with agent("http://127.0.0.1:9") as client:
        for _ in range(2):
            assert "Cannot connect" in await refused(client, "list_documents")
