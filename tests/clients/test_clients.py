"""The clients that people have, at their newest versions, against the real server: each in a script of its own.

A script answers with JSON; where its client hides `lift`, an answer like a direct one of the same document and unlike
the base model's shows that the adapter gave it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openai import OpenAI
from tests.product import BASE, ROOT, Json, Product, until

from install_clients import CLIENTS, node_home

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).parent / "scripts"
SCRIPT_S = 90
TRAINING_S = 180
FILE = "varn.txt"
TEXT = (
    "The lighthouse at Varn Point was built in 1874 by Edda Holm. Its lamp burns rapeseed oil. The keeper's dog is "
    "called Brisket. Ships are warned by three long blasts of the horn."
)
QUESTION = "What is the keeper's dog called?"
RECIPE = "sketch"  # a first version only: seconds
UNKNOWN = "doc_" + "0" * 24
NOT_FOUND = ["NotFoundError", 404, "document_not_found"]
KINDS, NAMES = {"dog", "cat"}, {"Brisket", "Biscuit"}


class Client(NamedTuple):
    """`unknown`: what it makes of an unknown document. `has`: what else it can do, or lets one see."""

    script: str
    environment: str
    unknown: Any
    has: str


OPENAI_UNKNOWN = {"model": NOT_FOUND, "stream": NOT_FOUND, "file": NOT_FOUND}
OPENAI_PYTHON_UNKNOWN = {**OPENAI_UNKNOWN, "responses": NOT_FOUND}
ALL = {
    "openai-python 3": Client(
        "openai_python.py", "openai3", OPENAI_PYTHON_UNKNOWN, "lift streams async tool files models usage"
    ),
    "openai-python 2": Client(
        "openai_python.py", "openai2", OPENAI_PYTHON_UNKNOWN, "lift streams async tool files models usage"
    ),
    "openai-node": Client("openai_node.mjs", "node", OPENAI_UNKNOWN, "lift streams tool files models usage"),
    "langchain": Client(
        "langchain_client.py", "openai3", ["OpenAIModelNotFoundError", 404, "document_not_found"], "async tool"
    ),
    "llama-index": Client("llama_index_client.py", "openai2", NOT_FOUND, "lift async tool usage"),
    "litellm": Client(
        "litellm_client.py",
        "openai2",
        ["BadRequestError", "litellm.BadRequestError: OpenAIException - No such document."],
        "lift async tool files usage",
    ),
    "ai-sdk": Client("ai_sdk.mjs", "node", ["AI_APICallError", 404, "document_not_found"], "lift streams tool"),
    "llm": Client("llm_client.py", "openai3", [1, "Error: Error code: 404 - No such document."], ""),
}
Run = Callable[[str], Json]


@dataclass(frozen=True)
class Known:
    """The ready document and what a direct question brings: from its adapter, and from the base model."""

    document_id: str
    adapter_id: str
    answer: str
    base_answer: str
    usage: Json


@pytest.fixture(scope="module")
def known(product: Product) -> Iterator[Known]:
    with OpenAI(base_url=f"{product.url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=(FILE, TEXT.encode()), purpose="user_data", extra_body={"recipe": RECIPE})
        document = wait_for(client, file.id)
        answer, base = ask(client, file.id), ask(client, None)
        assert answer["lift"]["adapter_id"] == document["adapter"]["id"]
        texts = [one["choices"][0]["message"]["content"] for one in (answer, base)]
        yield Known(file.id, document["adapter"]["id"], *texts, answer["usage"])
        for left in client.files.list():
            if left.filename == FILE:
                client.files.delete(left.id)


def wait_for(client: OpenAI, document_id: str) -> Json:
    def ready() -> Json | None:
        document: Any = client.get(f"/documents/{document_id}", cast_to=object)
        assert document["status"] != "failed", document["error"]
        return document if document["status"] == "ready" else None

    found = until(ready, TRAINING_S)
    assert found
    return found


def ask(client: OpenAI, document_id: str | None) -> Json:
    body = {"model": BASE, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 16}
    named = {"document_id": document_id} if document_id else {}
    answer: Any = client.post("/chat/completions", cast_to=object, body={**body, **named})
    return dict(answer)


@pytest.fixture(scope="module")
def installed() -> None:
    """A client that cannot be installed is a failure: nothing would be known of it."""
    command = [sys.executable, str(ROOT / "scripts" / "install_clients.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(installed: None, known: Known, product: Product) -> Run:
    """What the named client's script got; it runs once, failing or not."""
    given = {
        "OPENAI_BASE_URL": f"{product.url}/v1",
        "OPENAI_API_KEY": "none",
        "LIFT_BASE": BASE,
        "LIFT_DOCUMENT": known.document_id,
        "LIFT_UNKNOWN": UNKNOWN,
        "LIFT_TEXT": TEXT,
        "LIFT_RECIPE": RECIPE,
        "LIFT_QUESTION": QUESTION,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched at import
    }

    @functools.cache
    def ended(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_of(ALL[name]), env=os.environ | given, capture_output=True, text=True, timeout=SCRIPT_S, check=False
        )

    def run_client(name: str) -> Json:
        assert ended(name).returncode == 0, ended(name).stderr
        got: Json = json.loads(ended(name).stdout)
        return got

    return run_client


def command_of(client: Client) -> list[str]:
    if client.environment != "node":
        return [str(CLIENTS / client.environment / "bin" / "python"), str(SCRIPTS / client.script)]
    beside = CLIENTS / "node" / "scripts"  # Node.js looks for modules from where a script lies
    beside.mkdir(exist_ok=True)
    for path in SCRIPTS.glob("*.mjs"):
        shutil.copy(path, beside)
    return [str(node_home() / "bin" / "node"), str(beside / client.script)]


def having(what: str) -> list[str]:
    return [name for name, client in ALL.items() if what in client.has.split()]


def test_the_adapter_answers_otherwise_than_the_base_model(known: Known) -> None:
    assert known.answer
    assert known.answer != known.base_answer


@pytest.mark.parametrize("name", ALL)
def test_each_way_to_name_the_document_asks_its_adapter(name: str, run: Run, known: Known) -> None:
    answers = run(name)["answers"]
    assert {"model", "header", "base"} <= answers.keys()
    assert answers == dict.fromkeys(answers, known.answer) | {"base": known.base_answer}


@pytest.mark.parametrize("name", ALL)
def test_a_stream_has_the_same_text(name: str, run: Run) -> None:
    got = run(name)
    assert got["streamed"] == got["answers"]


@pytest.mark.parametrize("name", having("lift"))
def test_lift_comes_through(name: str, run: Run, known: Known) -> None:
    lift = run(name)["lift"]
    base = lift.pop("base")
    assert (base["answered_from"], base["adapter_id"]) == ("base", None)
    found = {way: (one["answered_from"], one["adapter_id"]) for way, one in lift.items()}
    assert found == dict.fromkeys(lift, ("adapter", known.adapter_id))
    assert {one["document_id"] for way, one in lift.items() if way != "file_data"} == {known.document_id}


@pytest.mark.parametrize("name", having("async"))
def test_asynchronously_too(name: str, run: Run, known: Known) -> None:
    got = run(name)["asynchronous"]
    assert (got["answer"], got["chunks"]) == (known.answer, known.answer)


@pytest.mark.parametrize("name", having("usage"))
def test_usage_counts_the_question_and_not_the_document(name: str, run: Run, known: Known) -> None:
    usage = run(name)["usage"]
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert usage[count] == known.usage[count]


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_document_raises_the_clients_own_error(name: str, run: Run) -> None:
    assert run(name)["unknown"] == ALL[name].unknown


@pytest.mark.parametrize("name", ALL)
def test_structured_output_parses(name: str, run: Run) -> None:
    assert_pet(run(name)["parsed"])


@pytest.mark.parametrize("name", having("tool"))
def test_a_tool_is_called_and_its_result_answered(name: str, run: Run) -> None:
    tool = run(name)["tool"]
    assert tool["name"] in ("remember", "Pet")
    assert_pet(tool["arguments"])
    assert tool["answer"]


@pytest.mark.parametrize("name", having("files"))
def test_a_file_is_uploaded_asked_listed_read_and_deleted(name: str, run: Run, known: Known) -> None:
    files = run(name)["files"]
    assert (files["answer"], files["content"]) == (known.answer, TEXT)
    assert files["listed"]
    assert files["deleted"]
    assert files.get("after", NOT_FOUND) == NOT_FOUND


@pytest.mark.parametrize("name", having("models"))
def test_the_document_is_among_the_models(name: str, run: Run, known: Known) -> None:
    assert {BASE, f"{BASE}:{known.document_id}"} <= set(run(name)["models"])


@pytest.mark.parametrize("name", ["openai-python 2", "openai-python 3"])
def test_openai_python_does_the_rest(name: str, run: Run, known: Known) -> None:
    got = run(name)
    assert f"openai-python {got['version'].partition('.')[0]}" == name
    assert got["asynchronous"]["helper"] == known.answer
    assert got["asynchronous"]["lift"]["adapter_id"] == known.adapter_id
    completions = got["completions"]
    assert completions["answer"] == completions["streamed"] != ""
    assert completions["lift"]["adapter_id"] == known.adapter_id
    assert got["files"]["file"]["status"] == "processed"
    assert got["files"]["retrieved"] == got["files"]["file"]
    assert got["files"]["in_parts"] == TEXT
    assert got["files"]["deleted"] == [True, True]


@pytest.mark.parametrize("name", ["openai-python 2", "openai-python 3"])
def test_openai_pythons_responses(name: str, run: Run, known: Known) -> None:
    got = run(name)["responses"]
    assert got["answers"] == {"input_file": known.answer, "metadata": known.answer}
    assert got["streamed"] == {"text": known.answer, "final": known.answer}
    assert {one["adapter_id"] for one in got["lift"].values()} == {known.adapter_id}
    assert_pet(got["parsed"])


@pytest.mark.parametrize("name", having("streams"))
def test_a_streams_helper_puts_it_together(name: str, run: Run, known: Known) -> None:
    for way, stream in run(name)["streams"].items():
        assert stream.get("final", stream["text"]) == stream["text"], way
        usage = stream["usage"]
        assert usage.get("total_tokens", usage.get("totalTokens")) > 0, way
        assert stream["lift"]["adapter_id"] == (None if way == "base" else known.adapter_id), way


def test_openai_nodes_and_others_responses(run: Run, known: Known) -> None:
    node = run("openai-node")["responses"]
    assert [node[part] for part in ("answer", "streamed", "final")] == [known.answer] * 3
    assert node["lift"]["adapter_id"] == known.adapter_id
    assert run("litellm")["responses"] == known.answer
    assert run("langchain")["answers"]["responses"] == known.answer


def test_what_only_some_frameworks_do(run: Run, known: Known) -> None:
    assert run("langchain")["file_part"] == known.answer
    llama_index = run("llama-index")
    assert llama_index["complete"] == known.answer
    assert llama_index["completions"] == run("openai-python 3")["completions"]["answer"]


def assert_pet(found: Json) -> None:
    """The schema's closed choices, which the model alone would hardly keep to."""
    assert found.keys() == {"kind", "name"}
    assert found["kind"] in KINDS
    assert found["name"] in NAMES
