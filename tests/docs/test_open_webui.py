"""Open WebUI's requests, replayed: it is too large to install with the tests.

What it sends was read in github.com/open-webui/open-webui, below backend/open_webui, and is written anew here; no code
is taken over:
- routers/openai.py at 671f577264ed: `GET {url}/models` to verify a connection and for the list; `POST
  {url}/chat/completions` as JSON with `Authorization: Bearer`, by aiohttp; `metadata` is taken out,
  `max_completion_tokens` sent as `max_tokens`; an event stream is passed on as it comes, of an error its `message` is
  shown;
- main.py at cf17bb9e8129: what is taken out of a chat before that (`chat_id`, `session_id`, …);
- routers/tasks.py at 884bb3f44c64: title, tags and follow-up questions, each one user message, not streamed;
- utils/middleware.py at cd9dae0f3a68: passages of a file go into the system message; of a stream only lines that begin
  with `data: ` are read, and of these `choices[0].delta.content`.
"""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from tests.docs.conftest import TITLE
from tests.lift_server.conftest import BASE, FakeEngine, FrontEnd
from tests.lift_server.holders import Holder, holder

from lift_config.prompts import document_line

Json = dict[str, Any]
LINE = document_line(TITLE)
ANSWER = "The answer is 42."
USER = {"role": "user", "content": "Who built the lighthouse?"}
TASKS = {"title": {"max_tokens": 1000}, "tags": {}, "follow-up questions": {}}  # what goes with each
PASSAGES = (
    "### Task: respond to the user query using the provided context.\n<context><source>Other text.</source></context>"
)


class OpenWebUI:
    """One connection, as an administrator made it: an address and a key."""

    def __init__(self, front_end: FrontEnd, key: str) -> None:
        self.url = f"{front_end.url}/v1"
        self.headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    async def models(self) -> list[Json]:
        address = f"{self.url}/models"
        async with aiohttp.ClientSession() as session, session.get(address, headers=self.headers) as answer:
            assert answer.status == 200
            data: list[Json] = (await answer.json())["data"]
            return data

    async def chat(self, model: str, messages: list[Json], **fields: Any) -> tuple[int, str, str]:
        """Status, content type, body."""
        body = json.dumps({"model": model, "messages": messages, **fields})
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/chat/completions", data=body, headers=self.headers) as answer,
        ):
            return answer.status, answer.headers["Content-Type"], await answer.text()


@pytest.fixture
async def owner(front_end: FrontEnd) -> Holder:
    return await holder(front_end)


@pytest.fixture
async def open_webui(front_end: FrontEnd, owner: Holder) -> OpenWebUI:
    return OpenWebUI(front_end, owner.secret)


@pytest.fixture
async def model(owner: Holder, trained: None) -> str:
    """A ready document's, as the list of models has it."""
    document = (await owner.upload("The lighthouse was built by Edda Holm.", title=TITLE, recipe="sketch")).json()
    events = await owner.get(f"/v1/documents/{document['id']}/events")  # ends when the training has
    *_, last = (line for line in events.text.splitlines() if line.startswith("data: {"))
    assert json.loads(last.removeprefix("data: "))["status"] == "ready"
    return f"{BASE}:{document['id']}"


def shown(stream: str) -> str:
    """What of a stream appears in the chat."""
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


async def test_the_connection_lists_documents_as_models(open_webui: OpenWebUI, model: str) -> None:
    listed = {one["id"]: one for one in await open_webui.models()}
    assert set(listed) == {BASE, model}
    assert (listed[model]["object"], listed[model]["name"]) == ("model", TITLE)


async def test_a_wrong_key_is_told_in_words(front_end: FrontEnd, owner: Holder) -> None:
    stranger = OpenWebUI(front_end, "sk-wrong")
    status, _, body = await stranger.chat(BASE, [USER], stream=True)
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")
    assert json.loads(body)["error"]["message"]


@pytest.mark.parametrize("usage", [{}, {"stream_options": {"include_usage": True}}])
async def test_a_chat_is_streamed_from_the_adapter(
    open_webui: OpenWebUI, model: str, engine: FakeEngine, usage: Json
) -> None:
    status, kind, body = await open_webui.chat(model, [USER], stream=True, **usage)
    assert (status, kind.partition(";")[0], shown(body)) == (200, "text/event-stream", ANSWER)
    (asked,) = engine.asked
    assert asked["messages"] == [{"role": "system", "content": LINE}, USER]
    assert asked["model"] not in (BASE, model)  # the adapter's id


async def test_the_conversation_is_sent_anew_with_its_system_prompt(
    open_webui: OpenWebUI, model: str, engine: FakeEngine
) -> None:
    turns = [USER, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": "And when?"}]
    system = {"role": "system", "content": "Be brief."}
    params = {"temperature": 0.2, "top_p": 0.9, "max_tokens": 64, "frequency_penalty": 0.1, "seed": 1, "stop": ["END"]}
    status, _, body = await open_webui.chat(model, [system, *turns], stream=True, **params)
    assert (status, shown(body)) == (200, ANSWER)
    (asked,) = engine.asked
    assert asked["messages"] == [{"role": "system", "content": f"{LINE}\n\nBe brief."}, *turns]
    assert params.items() <= asked.items()


async def test_passages_of_a_file_stay_below_the_documents_line(
    open_webui: OpenWebUI, model: str, engine: FakeEngine
) -> None:
    """A file dropped into the chat never reaches this server; its passages come as a system message."""
    status, _, body = await open_webui.chat(model, [{"role": "system", "content": PASSAGES}, USER], stream=True)
    assert (status, shown(body)) == (200, ANSWER)
    assert engine.asked[0]["messages"][0]["content"] == f"{LINE}\n\n{PASSAGES}"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("is_base", [True, False])
async def test_titles_and_the_like_are_answered_whole(
    open_webui: OpenWebUI, model: str, engine: FakeEngine, task: str, is_base: bool
) -> None:
    prompt = {"role": "user", "content": f"### Task: generate {task} for the chat.\n<chat_history>…</chat_history>"}
    status, kind, body = await open_webui.chat(BASE if is_base else model, [prompt], stream=False, **TASKS[task])
    assert (status, kind.partition(";")[0]) == (200, "application/json")
    assert json.loads(body)["choices"][0]["message"]["content"] == ANSWER
    assert (engine.asked[0]["model"] == BASE) == is_base


async def test_a_picture_part_is_passed_on(open_webui: OpenWebUI, model: str, engine: FakeEngine) -> None:
    """Whether the base model sees pictures is vLLM's to say."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content = [{"type": "text", "text": "What is this?"}, picture]
    status, _, _ = await open_webui.chat(model, [{"role": "user", "content": content}], stream=True)
    assert status == 200
    assert engine.asked[0]["messages"][-1]["content"] == content


async def test_a_document_deleted_meanwhile_is_told_in_words(open_webui: OpenWebUI, owner: Holder, model: str) -> None:
    assert (await owner.call("DELETE", f"/v1/documents/{model.partition(':')[2]}")).status_code == 200
    status, _, body = await open_webui.chat(model, [USER], stream=True)
    assert (status, json.loads(body)["error"]["message"]) == (404, "No such document.")
    assert [one["id"] for one in await open_webui.models()] == [BASE]
