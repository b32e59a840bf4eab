"""Every block of README and docs/ is run, or says in its source why not: a page's blocks in order, as in one terminal.

Blocks of Python, shell and JavaScript must end without an error; JSON and YAML must be read; `text` is for what is
printed. Those of other people's clients run in the environments of scripts/install_clients.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docs.blocks import PAGES, ROOT, Block, blocks, name_of
from tests.docs.conftest import TITLE, Place

from install_clients import CLIENTS, node_home
from lift_config.prompts import document_line
from lift_config.settings import Settings

pytestmark = pytest.mark.timeout(300)

CLIENT_PAGES = {
    "docs/how-to/langchain.md": "openai3",
    "docs/how-to/llamaindex.md": "openai2",
    "docs/how-to/litellm.md": "openai2",
    "docs/how-to/vercel-ai-sdk.md": "node",
}
SHELL, CONSOLE, PYTHON, JAVASCRIPT = "bash", "console", "python", "javascript"
RUN = (SHELL, CONSOLE, PYTHON, JAVASCRIPT)
READ = {"json": json.loads, "yaml": yaml.safe_load}
SHOWN = ("text",)  # what a command prints, a tree, a drawing
# A shell's variables go on to the page's next block.
BEGIN = "set -euo pipefail; [[ ! -e variables ]] || . ./variables; set -a\n"
END = "\nexport -p >variables\n"
OWN = [page for page in PAGES if name_of(page) not in CLIENT_PAGES]


def code_of(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in RUN and block.reason is None]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_has_a_language_and_is_run_read_or_excused(page: Path) -> None:
    known = {*RUN, *READ, *SHOWN}
    for block in blocks(page):
        assert block.language in known or block.language.startswith("{"), f"{block}: language {block.language!r}"
        assert block.language not in SHOWN or not looks_like_commands(block), f"{block}: commands, shown as text"


def looks_like_commands(block: Block) -> bool:
    starts = ("$ ", "./scripts", ".venv/bin", "curl ", "lift-serve ", "pip ")
    return block.reason is None and block.code.startswith(starts)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_our_command_is_named_where_it_lies(page: Path) -> None:
    """Nothing puts .venv/bin into a reader's PATH; the blocks' own has it, for Node.js."""
    shell = [block for block in code_of(page) if block.language in (SHELL, CONSOLE)]
    assert [str(block) for block in shell if re.search(r"(?<![\w/-])lift-serve\s", block.code)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_json_and_yaml_can_be_read(page: Path) -> None:
    for block in blocks(page):
        if block.language in READ and block.reason is None:
            value = READ[block.language](block.code)
            if block.language == "yaml":
                Settings(**value)  # all YAML here is of config/lift.yaml


@pytest.mark.parametrize("page", [page for page in OWN if code_of(page)], ids=name_of)
async def test_blocks_run(page: Path, place: Place) -> None:
    if "doc_…" in page.read_text("utf-8"):
        await place.upload()
    for block in code_of(page):
        await run(place, block)


async def run(place: Place, block: Block) -> None:
    try:
        if block.language == PYTHON:
            await in_shell(place, f"{sys.executable} - <<'BLOCK'\n{block.code}\nBLOCK")
        else:
            await in_shell(place, commands(block))
    except AssertionError as error:
        raise AssertionError(f"{block}\n{error}") from None


async def in_shell(place: Place, code: str) -> None:
    await place.run(["bash"], f"{BEGIN}{code}{END}")


def commands(block: Block) -> str:
    """Without what a console shows as printed."""
    if block.language == SHELL:
        return block.code
    return "\n".join(line.removeprefix("$ ") for line in block.code.splitlines() if line.startswith("$ "))


@pytest.fixture(scope="module")
def installed() -> None:
    """A client that cannot be installed is a failure: nothing would be known of it."""
    command = [sys.executable, str(ROOT / "scripts" / "install_clients.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.clients
@pytest.mark.parametrize("name", CLIENT_PAGES)
async def test_clients_blocks_run_and_ask_the_adapter(name: str, place: Place, installed: None) -> None:
    document_id = await place.upload()
    for block in code_of(ROOT / name):
        asked = len(place.engine.asked)
        await run_with_client(place, CLIENT_PAGES[name], block)
        (adapter,) = await adapters(place, document_id)
        assert {body["model"] for body in place.engine.asked[asked:]} == {adapter["id"]}, str(block)
        system = place.engine.asked[asked]["messages"][0]
        assert (system["role"], system["content"].partition("\n")[0]) == ("system", document_line(TITLE))


async def run_with_client(place: Place, environment: str, block: Block) -> None:
    if block.language == PYTHON:  # without our packages on its path
        python = str(CLIENTS / environment / "bin" / "python")
        await place.run(["env", "-u", "PYTHONPATH", python], block.code)
    else:
        modules = place.folder / "node_modules"  # Node.js looks for them from where a script lies
        if not modules.exists():
            modules.symlink_to(CLIENTS / environment / "node_modules")
        await place.run([str(node_home() / "bin" / "node")], block.code, ".mjs")


async def adapters(place: Place, document_id: str) -> list[dict[str, Any]]:
    answer = await place.front_end.client.get(f"/v1/documents/{document_id}")
    found: list[dict[str, Any]] = answer.json()["adapters"]
    return found


async def test_plain_vllm_is_asked_as_this_server_asks(place: Place) -> None:
    """The page's example, sent to vLLM itself, is word for word what the server sends for the same question."""
    document_id = await place.upload()
    page = ROOT / "docs/how-to/plain-vllm.md"
    for block in code_of(page):
        await run(place, block)
    files = {path.name: path for path in (place.folder / "lift").iterdir()}
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= files.keys()
    assert document_line(TITLE) in files["README.md"].read_text("utf-8").splitlines()
    plain = place.engine.asked[-1]
    (question,) = (message["content"] for message in plain["messages"] if message["role"] == "user")
    answer = await place.front_end.ask(question, document_id=document_id)
    assert answer.status_code == 200
    ours = place.engine.asked[-1]
    assert (plain["messages"], plain["min_tokens"]) == (ours["messages"], ours["min_tokens"])
