"""The product's clients, stock openai-python throughout, and the one document that is trained at length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from tests.product import API_KEY, BASE, Ask, Json, Product, Trained, until

TRAINING_S = 900


@pytest.fixture(scope="session")
def invented() -> Json:
    """title, text, qa: facts that no model can know."""
    values: Json = json.loads((Path(__file__).parent / "invented.json").read_text("utf-8"))
    return values


@pytest.fixture(scope="session")
def client(product: Product) -> Iterator[OpenAI]:
    """As a user has it; every error is shown at once."""
    with OpenAI(base_url=f"{product.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def engine_client(product: Product) -> Iterator[OpenAI]:
    """Straight to the private engine."""
    with OpenAI(base_url=f"{product.engine_url}/v1", api_key=API_KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def ask(client: OpenAI) -> Ask:
    """A greedy answer; `document_id` and `lift` as in the body, anything else as the SDK names it."""

    def ask_question(question: str, *, document_id: str | None = None, lift: Json | None = None, **more: Any) -> Any:
        own = {"document_id": document_id, "lift": lift, **more.pop("extra_body", {})}
        return client.chat.completions.create(
            messages=[{"role": "user", "content": question}],
            extra_body={name: value for name, value in own.items() if value is not None},
            **{"model": BASE, "temperature": 0, "max_tokens": 32, **more},
        )

    return ask_question


@pytest.fixture(scope="session")
def watch(client: OpenAI) -> Callable[[str], list[Json]]:
    """Look at a document until its last version is there, or it has failed; every different state of it."""

    def watch_document(document_id: str) -> list[Json]:
        seen: list[Json] = []

        def has_ended() -> bool:
            document: Any = client.get(f"/documents/{document_id}", cast_to=object)
            if not seen or document != seen[-1]:
                seen.append(document)
            return not document["unfinished"]

        until(has_ended, TRAINING_S)
        return seen

    return watch_document


@pytest.fixture(scope="session")
def trained(client: OpenAI, invented: Json, watch: Callable[[str], list[Json]]) -> Trained:
    """The invented document with recipe `max`, uploaded as a file."""
    uploaded: Any = client.post(
        "/documents",
        cast_to=object,
        body={"title": invented["title"], "recipe": "max", "metadata": '{"shelf": "7"}'},
        files=[("file", ("handbook.txt", invented["text"].encode(), "text/plain"))],
        options={"headers": {"Content-Type": "multipart/form-data"}},
    )
    seen = [uploaded, *watch(uploaded["id"])]
    assert seen[-1]["status"] == "ready", seen[-1]["error"]
    return Trained(seen[-1], seen)
