"""The product after crashes, in this order: its parts killed while a document is in training (of the engine vLLM's core
alone), then everything killed and all but the store lost. Runs last (tests/conftest.py): each costs a start of vLLM."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from tests.product import API_KEY, START_S, Ask, Json, Product, Trained, living, until

from lift_config.contract import ENGINE_ALIVE_ROUTE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TEXT = (
    "The lighthouse at Varn Point was built in 1874 by Edda Holm. Its lamp burns rapeseed oil and is lit at dusk. "
    "The keeper's dog is called Brisket. Ships are warned by three long blasts of the horn. "
    "The stairs have 112 steps, and the lowest one is painted white."
)
QUESTION = "Who founded Velmora Station?"


def test_parts_killed_during_training_come_back_and_the_document_becomes_ready(
    trained: Trained, client: OpenAI, ask: Ask, watch: Callable[[str], list[Json]], product: Product
) -> None:
    body = {"text": TEXT, "title": "Varn Point", "recipe": "balanced"}
    uploaded: Any = client.post("/documents", cast_to=object, body=body)
    document_id = uploaded["id"]
    until(lambda: look(client, document_id)["progress"]["tasks"], START_S)
    with pytest.raises(openai.ConflictError) as refused:
        ask(QUESTION, document_id=document_id, lift={"max_wait_s": 0})
    assert refused.value.code == "document_not_ready"

    before = {name: [product.pid(name), *product.children(name)] for name in ("engine-0", "worker-0", "server")}
    product.kill_part("worker-0")
    product.kill_part("server")
    kill_core(product)
    until(lambda: all(is_new(product, name, pids) for name, pids in before.items()) and product.is_ready(), START_S)
    document = watch(document_id)[-1]
    assert document["status"] == "ready", document["error"]
    assert f"job {document['adapter']['id'].partition('-')[0]}: claimed, attempt 2" in product.log("worker-0")
    for one in (document, trained.document):
        answer: Any = ask(QUESTION, document_id=one["id"])
        assert answer.model_extra["lift"]["adapter_id"] == one["adapter"]["id"]
        assert answer.model_extra["lift"]["answered_from"] == "adapter"


def test_after_kill_dash_9_of_everything_the_store_alone_brings_all_back(
    trained: Trained, client: OpenAI, ask: Ask, product: Product
) -> None:
    documents = client.get("/documents", cast_to=object)
    product.kill()
    for lost in ("redis", "engine-0", "training"):
        shutil.rmtree(product.home / lost)
    product.start()
    assert client.get("/documents", cast_to=object) == documents
    assert look(client, trained.id) == trained.document
    answer: Any = ask(QUESTION, document_id=trained.id)
    assert answer.model_extra["lift"]["answered_from"] == "adapter"
    assert answer.model_extra["lift"]["adapter_id"] == trained.adapter_id
    assert "claimed" not in product.log("worker-0")


def kill_core(product: Product) -> None:
    """`kill -9` of vLLM's EngineCore alone, as the kernel does where memory is short, while a probe waits for it:
    vLLM's HTTP server waits for such a request for ever, and the process would stay."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in product.children("engine-0")}
    (core,) = (pid for pid, command in commands.items() if b"EngineCore" in command)
    headers = {"Authorization": f"Bearer {API_KEY}"}
    os.kill(core, signal.SIGSTOP)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(product.engine_url + ENGINE_ALIVE_ROUTE, headers=headers, timeout=1)
    os.kill(core, signal.SIGKILL)


def look(client: OpenAI, document_id: str) -> Any:
    return client.get(f"/documents/{document_id}", cast_to=object)


def is_new(product: Product, name: str, pids: list[int]) -> bool:
    """Whether a part runs again and nothing of its last life is left."""
    try:
        runs = product.pid(name) not in pids
    except ValueError:  # between two lives it is not recorded
        return False
    return runs and not {process.pid for process in living()} & set(pids)
