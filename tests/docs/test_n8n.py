"""n8n's requests, replayed with the bodies that docs/how-to/n8n.md has: n8n itself is too large to install.

What it sends was read in github.com/n8n-io/n8n and is written anew here; no code is taken over:
- packages/nodes-base/nodes/HttpRequest/V3, HttpRequestV3.node.ts at cc15061e7698 and Description.ts at d81bdf18bbb0:
  `gzip`, an `accept` header, JSON as it is typed in, multipart with a file's name and kind; the answer's kind is told
  by its `content-type`;
- packages/@n8n/nodes-langchain/nodes/llms/LMChatOpenAi, LmChatOpenAi.node.ts at 01526fc87f7b and methods/loadModels.ts
  at 0028232d1882: a list of models by openai-node; LangChain.js's ChatOpenAI, `useResponsesApi` on at first. What that
  sends: github.com/langchain-ai/langchainjs, libs/providers/langchain-openai/src/chat_models/responses.ts at
  c3600b02f947.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.docs.blocks import ROOT, blocks
from tests.docs.conftest import TEXT, TITLE, Place
from tests.lift_server.conftest import BASE

from lift_config.prompts import document_line

Json = dict[str, Any]
PAGE = ROOT / "docs/how-to/n8n.md"
HEADERS = {
    "accept": "application/json,text/html,application/xhtml+xml,application/xml,text/*;q=0.9, image/*;q=0.8, */*;q=0.7",
    "accept-encoding": "gzip, compress, deflate, br",
    "user-agent": "axios/1.12.0",
}
ANSWER = "The answer is 42."
QUESTION = "Who built the lighthouse?"


def bodies() -> list[str]:
    """The upload's and the question's, as they are typed into the nodes."""
    return [block.code for block in blocks(PAGE) if block.language == "json"]


def filled_in(body: str, item: Json) -> Json:
    """With n8n's expression replaced by what the node before gave."""
    found: Json = json.loads(body.replace("{{ $json.id }}", item["id"]))
    assert "{{" not in json.dumps(found)
    return found


async def request(place: Place, path: str, **options: Any) -> Json:
    answer = await place.front_end.client.post(path, headers=HEADERS, **options)
    assert answer.status_code == 200, answer.text
    assert "application/json" in answer.headers["content-type"]
    item: Json = answer.json()
    return item


async def test_two_nodes_upload_and_ask_without_a_loop_between(place: Place) -> None:
    upload, question = bodies()
    document = await request(place, "/v1/documents", json=json.loads(upload))
    answer = await request(place, "/v1/chat/completions", json=filled_in(question, document))
    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert answer["lift"]["answered_from"] == "adapter"
    assert answer["lift"]["document_id"] == document["id"]


async def test_a_file_of_the_workflow_is_uploaded_as_a_form(place: Place) -> None:
    form = {"title": TITLE, "recipe": "sketch"}
    document = await request(
        place, "/v1/documents", data=form, files={"file": ("log.txt", TEXT.encode(), "text/plain")}
    )
    assert (document["title"], document["filename"]) == (TITLE, "log.txt")
    answer = await request(place, "/v1/chat/completions", json=filled_in(bodies()[1], document))
    assert answer["choices"][0]["message"]["content"] == ANSWER


async def test_the_page_names_what_the_answer_has() -> None:
    assert "$json.choices[0].message.content" in PAGE.read_text("utf-8")
    assert "$json.lift.answered_from" in PAGE.read_text("utf-8")


async def test_the_chat_model_node_lists_models(place: Place) -> None:
    document_id = await place.upload()
    await place.front_end.client.get(f"/v1/documents/{document_id}/events")  # ends when it is trained
    answer = await place.front_end.client.get("/v1/models")
    assert {one["id"] for one in answer.json()["data"]} == {BASE, f"{BASE}:{document_id}"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_chat_model_node_asks_by_responses(place: Place, stream: bool) -> None:
    document_id = await place.upload()
    body = {
        "model": f"{BASE}:{document_id}",
        "input": [{"type": "message", "role": "user", "content": QUESTION}],
        "text": {},
        "stream": stream,
    }
    answer = await place.front_end.client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    asked = place.engine.asked[-1]
    assert asked["model"] != BASE
    assert document_line(TITLE) in json.dumps(asked, ensure_ascii=False).replace('\\"', '"')
    if stream:
        assert "response.completed" in answer.text
    else:
        assert answer.json()["output"][0]["content"][0]["text"] == ANSWER


@pytest.mark.parametrize("stream", [False, True])
async def test_the_chat_model_node_asks_by_chat(place: Place, stream: bool) -> None:
    document_id = await place.upload()
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    messages = [{"role": "system", "content": "You are a helpful assistant"}, {"role": "user", "content": QUESTION}]
    body = {"model": f"{BASE}:{document_id}", "messages": messages, "stream": stream, "temperature": 0.7, **usage}
    answer = await place.front_end.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    system = place.engine.asked[-1]["messages"][0]["content"]
    assert system == f"{document_line(TITLE)}\n\nYou are a helpful assistant"
