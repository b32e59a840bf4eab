"""API keys on the product, with a real vLLM: what A has, B can neither see, use nor notice; limits; revoking.

Runs last of all (tests/conftest.py): the first key closes the product to every client without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from tests.product import BASE, Json, Key, Product, until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TRAINING_S = 120
TEXT = "The lighthouse keeper of Orvel keeps eleven bees. Her boat is called Petrel."
NEW_TEXT = "The ferry master of Brannoch owns seven crows. His horn is called Gander II."  # as long; nobody has it
QUESTION = "How many bees does the keeper of Orvel keep?"
UNKNOWN = f"doc_{'0' * 24}"
EVERY_TIME_ANOTHER = {"id", "created_at", "sha256", "timeline", "progress"}  # of two uploads
LONG = " ".join(f"lamp {number} hangs in room {number * 7}," for number in range(40))  # many of vLLM's cache blocks


@dataclass(frozen=True)
class Holder:
    """A key's, with the client that a user would have."""

    key: Key
    client: OpenAI

    def upload(self, text: str, recipe: str = "sketch") -> Json:
        body = {"text": text, "title": "Orvel", "recipe": recipe}
        document: Any = self.client.post("/documents", cast_to=object, body=body)
        return dict(document)

    def look(self, document_id: str) -> Json:
        document: Any = self.client.get(f"/documents/{document_id}", cast_to=object)
        return dict(document)

    def ready(self, document_id: str) -> Json:
        until(lambda: not self.look(document_id)["unfinished"], TRAINING_S)
        document = self.look(document_id)
        assert document["status"] == "ready", document["error"]
        return document


MakeHolder = Callable[..., Holder]
Way = Callable[[OpenAI, str], Any]


@pytest.fixture(scope="module")
def holder(product: Product) -> Iterator[MakeHolder]:
    """Makes a key as the operator does, with limits as on the command line."""
    clients = []

    def make(*limits: str) -> Holder:
        key = product.create_key("a test", *limits)
        clients.append(OpenAI(base_url=f"{product.url}/v1", api_key=key.secret, max_retries=0))
        return Holder(key, clients[-1])

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def a(holder: MakeHolder) -> Holder:
    return holder()


@pytest.fixture(scope="module")
def b(holder: MakeHolder) -> Holder:
    return holder()


@pytest.fixture(scope="module")
def of_a(a: Holder) -> Json:
    """A's document, ready."""
    return a.ready(a.upload(TEXT)["id"])


def chat(client: OpenAI, question: Any = QUESTION, **more: Any) -> Any:
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(**{"model": BASE, "messages": messages, "max_tokens": 8, **more})


# ---- with a key, and without --------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["none", "sk-lift-" + "x" * 43])
@pytest.mark.usefixtures("a")
def test_without_a_good_key_nobody_is_let_in(product: Product, secret: str) -> None:
    with OpenAI(base_url=f"{product.url}/v1", api_key=secret, max_retries=0) as stranger:
        for call in (stranger.models.list, stranger.files.list, lambda: chat(stranger)):
            with pytest.raises(openai.AuthenticationError) as refused:
                call()
            assert (refused.value.status_code, refused.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_asks_its_own_document(a: Holder, of_a: Json, stream: bool) -> None:
    answer = chat(a.client, extra_body={"document_id": of_a["id"]}, stream=stream)
    told = list(answer)[-1] if stream else answer
    assert told.model_extra["lift"]["answered_from"] == "adapter"
    assert told.model_extra["lift"]["adapter_id"] == of_a["adapter"]["id"]


# ---- the engine's prefix cache ------------------------------------------------------------------------------------


def chat_cached(client: OpenAI, words: str) -> int:
    return int(chat(client, words).usage.prompt_tokens_details.cached_tokens)


def completion_cached(client: OpenAI, words: str) -> int:
    usage: Any = client.completions.create(model=BASE, prompt=words, max_tokens=8).usage
    return int(usage.prompt_tokens_details.cached_tokens)


def response_cached(client: OpenAI, words: str) -> int:
    usage: Any = client.responses.create(model=BASE, input=words, max_output_tokens=8).usage
    return int(usage.input_tokens_details.cached_tokens)


@pytest.mark.parametrize("cached", [chat_cached, completion_cached, response_cached])
def test_a_prefix_that_a_had_computed_is_none_of_bs(a: Holder, b: Holder, cached: Callable[[OpenAI, str], int]) -> None:
    """vLLM took the salt, or the request had been refused, and it kept to it: else B's first would be a hit."""
    words = f"By {cached.__name__}: {LONG}"
    first, again = cached(a.client, words), cached(a.client, words)
    of_b, of_b_again = cached(b.client, words), cached(b.client, words)
    assert first == of_b == 0
    assert again == of_b_again > 0


# ---- what is A's --------------------------------------------------------------------------------------------------


def with_file(client: OpenAI, document_id: str) -> Any:
    part = {"type": "file", "file": {"file_id": document_id}}
    return chat(client, [part, {"type": "text", "text": QUESTION}])


def response_with_file(client: OpenAI, document_id: str) -> Any:
    content: Any = [{"type": "input_file", "file_id": document_id}, {"type": "input_text", "text": QUESTION}]
    return client.responses.create(model=BASE, input=[{"role": "user", "content": content}], max_output_tokens=8)


def streamed(client: OpenAI, document_id: str) -> Any:
    return list(chat(client, extra_body={"document_id": document_id}, stream=True))


def content_of(path: str) -> Way:
    return lambda client, document_id: client.get(f"/documents/{document_id}{path}", cast_to=httpx2.Response)


WAYS: dict[str, Way] = {
    "look": lambda client, document_id: client.get(f"/documents/{document_id}", cast_to=object),
    "content": content_of("/content"),
    "events": content_of("/events"),
    "adapter": content_of("/adapter"),
    "file": lambda client, document_id: client.files.retrieve(document_id),
    "file content": lambda client, document_id: client.files.content(document_id),
    "model": lambda client, document_id: client.models.retrieve(f"{BASE}:{document_id}"),
    "asked: document_id": lambda client, document_id: chat(client, extra_body={"document_id": document_id}),
    "asked: metadata": lambda client, document_id: chat(client, metadata={"document_id": document_id}),
    "asked: model": lambda client, document_id: chat(client, model=f"{BASE}:{document_id}"),
    "asked: header": lambda client, document_id: chat(client, extra_headers={"X-Document-Id": document_id}),
    "asked: file part": with_file,
    "asked: streamed": streamed,
    "asked: completion": lambda client, document_id: client.completions.create(
        model=BASE, prompt=QUESTION, max_tokens=8, extra_body={"document_id": document_id}
    ),
    "asked: response": lambda client, document_id: client.responses.create(
        model=BASE, input=QUESTION, max_output_tokens=8, extra_body={"document_id": document_id}
    ),
    "asked: response with a file": response_with_file,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_as_document_is_to_b_as_one_that_never_was(a: Holder, b: Holder, of_a: Json, way: Way) -> None:
    way(a.client, of_a["id"])  # reaches A: the way is no typo
    assert refusal(b, way, of_a["id"]) == refusal(b, way, UNKNOWN)


def test_b_deletes_nothing_of_as(a: Holder, b: Holder, of_a: Json) -> None:
    def delete(client: OpenAI, document_id: str) -> Any:
        return client.delete(f"/documents/{document_id}", cast_to=object)

    for way in (delete, lambda client, document_id: client.files.delete(document_id)):
        assert refusal(b, way, of_a["id"]) == refusal(b, way, UNKNOWN)
    assert a.look(of_a["id"]) == of_a


def refusal(one: Holder, way: Way, document_id: str) -> tuple[int, str]:
    """Status and text, the id taken out."""
    with pytest.raises(openai.NotFoundError) as refused:
        way(one.client, document_id)
    return refused.value.status_code, refused.value.response.text.replace(document_id, "ID")


def test_lists_have_ones_own_only(a: Holder, b: Holder, of_a: Json) -> None:
    assert of_a["id"] in listed(a.client)
    assert of_a["id"] not in listed(b.client)
    assert BASE in [model.id for model in b.client.models.list()]


def listed(client: OpenAI) -> set[str]:
    """Ids of documents that stand in all three lists."""
    documents: Any = client.get("/documents", cast_to=object)
    models = {model.id.removeprefix(f"{BASE}:") for model in client.models.list()} - {BASE}
    files = {file.id for file in client.files.list()}
    assert models <= files == {document["id"] for document in documents["data"]}
    return models


def test_the_same_content_is_trained_for_b_too_and_looks_new(b: Holder, of_a: Json, product: Product) -> None:
    new, same = b.upload(NEW_TEXT), b.upload(TEXT)
    assert new["status"] == "queued"
    assert told(new) == told(same)
    b.client.delete(f"/documents/{new['id']}", cast_to=object)
    ready = b.ready(same["id"])
    assert ready["id"] != of_a["id"]
    assert ready["adapter"]["id"] != of_a["adapter"]["id"]
    job_key = ready["adapter"]["id"].partition("-")[0]
    assert product.log("worker-0").count(f"job {job_key}: claimed, attempt 1") == 1
    answer = chat(b.client, extra_body={"document_id": same["id"]})
    assert answer.model_extra["lift"]["adapter_id"] == ready["adapter"]["id"]


def test_what_synthesis_cost_does_not_show_that_a_had_the_text(a: Holder, b: Holder) -> None:
    """The prompts for a text that A had trained are in the engine's prefix cache, but not for B."""
    of_a, of_b = (one.ready(one.upload(LONG, "fast")["id"])["synthesis"] for one in (a, b))
    assert of_b["computed_prompt_tokens"] > of_a["computed_prompt_tokens"] / 2


def told(document: Json) -> Json:
    """But for what differs between any two uploads; of times, which ones there are."""
    progress = {name: value for name, value in document["progress"].items() if name != "eta_s"}
    alike = {name: value for name, value in document.items() if name not in EVERY_TIME_ANOTHER}
    return {**alike, "progress": progress, "timeline": set(document["timeline"])}


# ---- limits, revoking ---------------------------------------------------------------------------------------------


def test_requests_a_minute(holder: MakeHolder) -> None:
    mine = holder("--requests-per-minute", "2")
    for left in ("1", "0"):
        headers = mine.client.models.with_raw_response.list().headers
        assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", left)
    assert refused_for(mine.client.models.list, "requests") == ("2", "0")


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_a_minute(holder: MakeHolder, stream: bool) -> None:
    """Who has an answer's end and asks again at once is refused: it is charged by then."""
    mine = holder("--tokens-per-minute", "10")
    answer = chat(mine.client, stream=stream)
    if stream:
        assert list(answer)
    assert refused_for(lambda: chat(mine.client), "tokens") == ("10", "0")
    assert mine.client.models.list().data  # takes no tokens


def refused_for(call: Callable[[], Any], kind: str) -> tuple[str, str]:
    """The limit, and what is left of it."""
    with pytest.raises(openai.RateLimitError) as refused:
        call()
    headers = refused.value.response.headers
    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", kind)
    assert 1 <= int(headers["Retry-After"]) <= 60
    return headers[f"x-ratelimit-limit-{kind}"], headers[f"x-ratelimit-remaining-{kind}"]


def test_a_revoked_key_is_refused_from_the_next_request_on(holder: MakeHolder, a: Holder, product: Product) -> None:
    mine = holder()
    assert mine.client.models.list().data
    product.revoke_key(mine.key)
    with pytest.raises(openai.AuthenticationError) as refused:
        mine.client.models.list()
    assert (refused.value.status_code, refused.value.code) == (401, "invalid_api_key")
    assert a.client.models.list().data
