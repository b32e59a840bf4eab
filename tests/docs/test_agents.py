"""The MCP entries of docs/how-to/agents.md and README: what they start is a server with the tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from tests.docs.blocks import ROOT, blocks
from tests.docs.conftest import TEXT, TITLE, Place
from tests.lift_server.holders import holder

from lift_config.prompts import document_line

Json = dict[str, Any]
TOOLS = {"upload_file", "upload_text", "list_documents", "show_document", "ask_document", "ask_documents"}


def entries() -> list[Json]:
    """Whatever a program calls them."""
    written = [block for page in ("README.md", "docs/how-to/agents.md") for block in blocks(ROOT / page)]
    values = [json.loads(block.code) for block in written if block.language == "json"]
    return [value[name]["lift-serve"] for value in values for name in ("mcpServers", "servers") if name in value]


def test_they_are_found() -> None:
    assert len(entries()) == 3


@pytest.mark.parametrize("number", range(3))
async def test_an_entry_starts_a_server_that_answers(place: Place, number: int) -> None:
    entry = entries()[number]
    assert (entry["command"], entry["args"][0], set(entry["env"])) == ("lift-serve", "mcp", {"LIFT_API_KEY"})
    owner = await holder(place.front_end)
    document = (await owner.upload(TEXT, title=TITLE, recipe="sketch")).json()
    command = str(Path(sys.prefix) / "bin" / entry["command"])
    arguments = [place.here(argument) for argument in entry["args"]]
    environment = place.environment() | {"LIFT_API_KEY": owner.secret}
    async with Client(StdioServerParameters(command=command, args=arguments, env=environment)) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        asked = {"document_id": document["id"], "question": "Who built the lighthouse?"}
        result = await client.call_tool("ask_document", asked)
        assert not result.is_error, result.content
    assert place.engine.asked[0]["messages"][0]["content"].startswith(document_line(TITLE))
