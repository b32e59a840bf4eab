"""Two keys: nothing that key B can send shows or uses a document of key A, or tells it from one that is not there."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from tests.lift_server.holders import BASE, Holder, holder

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
ASKING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
REFUSED = {400, 404}
# Every way to make a path: of A's, and of what never was. A route with another name in its path fails here.
UNKNOWN = {"document_id": "doc_" + "0" * 24, "upload_id": "upload_" + "0" * 24, "response_id": "resp_0"}


class Stage:
    """A has a ready document, one in training and a file half uploaded; B has a ready document of its own."""

    def __init__(self, front_end: Any, a: Holder, b: Holder) -> None:
        self.front_end, self.a, self.b = front_end, a, b
        self.ready_id = self.queued_id = self.upload_id = self.adapter_id = self.job_key = ""

    async def fill(self, worker: Any) -> Stage:
        await self.b.upload("The harbour of Lund has two cranes.", title="Harbour")
        await worker.train()
        self.ready_id = (await self.a.upload(TEXT, title="Orvel", metadata={"case": "secret-7"})).json()["id"]
        adapter = await worker.train()
        self.adapter_id, self.job_key = adapter.id, adapter.id[:32]
        self.queued_id = (await self.a.upload(TEXT + " And more.")).json()["id"]
        wanted = {"filename": "half.txt", "bytes": 100, "purpose": "user_data", "mime_type": "text/plain"}
        self.upload_id = (await self.a.call("POST", "/v1/uploads", json=wanted)).json()["id"]
        return self

    def names(self, document_id: str) -> dict[str, str]:
        """What A's things are called in paths."""
        return {
            "document_id": document_id,
            "file_id": document_id,
            "upload_id": self.upload_id,
            "model_id": f"{BASE}:{document_id}",
            "response_id": "resp_" + document_id,
        }

    def unknown(self) -> dict[str, str]:
        return UNKNOWN | {"file_id": UNKNOWN["document_id"], "model_id": f"{BASE}:{UNKNOWN['document_id']}"}

    def routes(self) -> Iterator[tuple[str, str]]:
        """Method and path of each route that names something in its path."""
        for route in (route for route in self.front_end.app.routes if isinstance(route, APIRoute)):
            if "{" in route.path:
                yield from ((method, route.path.replace(":path", "")) for method in sorted(route.methods))

    @property
    def secrets(self) -> tuple[str, ...]:
        """What B must never read, unless B said it first."""
        told = (self.ready_id, self.queued_id, self.upload_id, self.adapter_id, self.job_key)
        return (*told, self.a.record.owner, self.a.record.id, "Orvel", "secret-7", "eleven")


@pytest.fixture
async def stage(front_end: Any, worker: Any) -> Stage:
    return await Stage(front_end, await holder(front_end), await holder(front_end)).fill(worker)


def ways(document_id: str) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Route, fields and headers: every way to name a document in a question."""
    for route in ASKING:
        for mode in (None, "auto", "context", "hybrid"):
            lift = {"lift": {"mode": mode, "max_wait_s": 0}} if mode else {}
            yield route, {"document_id": document_id, **lift}, {}
        yield route, {"metadata": {"document_id": document_id}}, {}
        yield route, {"model": f"{BASE}:{document_id}"}, {}
        yield route, {}, {"X-Document-Id": document_id}
    part = {"type": "file", "file": {"file_id": document_id}}
    yield ASKING[0], {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]}, {}
    part = {"type": "input_file", "file_id": document_id}
    asked = [part, {"type": "input_text", "text": "What?"}]
    yield ASKING[2], {"input": [{"role": "user", "content": asked}]}, {}


def question(route: str, fields: dict[str, Any]) -> dict[str, Any]:
    words = {
        ASKING[0]: {"messages": [{"role": "user", "content": "What is kept?"}]},
        ASKING[1]: {"prompt": "What is kept?"},
        ASKING[2]: {"input": "What is kept?"},
    }
    return {"model": BASE, **words[route], **fields}


def told(answer: httpx2.Response, *names: str) -> tuple[int, str]:
    """Status and body; the names that were asked for are taken out."""
    text = answer.text
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "NAME")
    return answer.status_code, text


async def test_no_path_tells_a_foreign_id_from_an_unknown_one(stage: Stage) -> None:
    assert len(list(stage.routes())) >= 14
    for method, path in stage.routes():
        for document_id in (stage.ready_id, stage.queued_id):
            foreign, unknown = stage.names(document_id), stage.unknown()
            of_a = await stage.b.call(method, path.format(**foreign))
            of_nobody = await stage.b.call(method, path.format(**unknown))
            assert told(of_a, *foreign.values()) == told(of_nobody, *unknown.values()), (method, path)
            assert of_a.status_code in REFUSED, (method, path)
    assert await everything_is_there(stage)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_no_way_of_asking_reaches_a_foreign_document(stage: Stage, engine: Any, is_stream: bool) -> None:
    for document_id in (stage.ready_id, stage.queued_id):
        for (route, fields, headers), (_, others, other_headers) in zip(
            ways(document_id), ways(UNKNOWN["document_id"]), strict=True
        ):
            streamed = {"stream": True} if is_stream else {}
            of_a = await stage.b.call("POST", route, json=question(route, fields | streamed), headers=headers)
            of_nobody = await stage.b.call(
                "POST", route, json=question(route, others | streamed), headers=other_headers
            )
            assert told(of_a, document_id) == told(of_nobody, UNKNOWN["document_id"]), (route, fields, headers)
            assert of_a.status_code in REFUSED
    assert engine.asked == []
    assert engine.loads.count(stage.adapter_id) <= 1  # by itself, when it was published


async def test_each_way_of_asking_does_reach_ones_own(stage: Stage) -> None:
    """Else the test above would pass with a typo in a way."""
    for route, fields, headers in ways(stage.ready_id):
        if (mode := fields.get("lift", {}).get("mode")) in ("context", "hybrid") and route == ASKING[1]:
            continue  # has no place for the text
        answer = await stage.a.call("POST", route, json=question(route, fields), headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["lift"]["document_id"] == stage.ready_id, (route, mode)


async def test_lists_have_ones_own_only(stage: Stage) -> None:
    for path in ("/v1/documents", "/v1/files", "/v1/models"):
        for query in ("", "?order=asc") if path != "/v1/models" else ("",):
            answer = await stage.b.get(path + query)
            assert answer.status_code == 200
            assert not [secret for secret in stage.secrets if secret in answer.text]
    assert len((await stage.b.get("/v1/documents")).json()["data"]) == 1
    assert len((await stage.b.get("/v1/models")).json()["data"]) == 2


@pytest.mark.parametrize("path", ["/v1/documents", "/v1/files"])
async def test_a_foreign_cursor_is_an_unknown_one(stage: Stage, path: str) -> None:
    for order in ("asc", "desc"):
        of_a = await stage.b.get(path, params={"after": stage.ready_id, "order": order})
        of_nobody = await stage.b.get(path, params={"after": UNKNOWN["document_id"], "order": order})
        assert told(of_a, stage.ready_id) == told(of_nobody, UNKNOWN["document_id"])
        assert of_a.status_code == 400


async def test_the_same_content_is_trained_for_each(stage: Stage, worker: Any) -> None:
    """No status, progress, id or adapter in common; and it waits its turn like any other."""
    of_a = (await stage.a.get(f"/v1/documents/{stage.ready_id}")).json()
    of_b = (await stage.b.upload(TEXT, title="Orvel", metadata={"case": "secret-7"})).json()
    assert (of_a["status"], of_b["status"]) == ("ready", "queued")
    assert (of_b["adapters"], of_b["progress"]["fraction"], of_b["tokens"]) == ([], 0, 0)
    assert of_b["timeline"].keys() == {"queue"}
    adapter = await worker.train()
    of_b = (await stage.b.get(f"/v1/documents/{of_b['id']}")).json()
    assert adapter.id == of_b["adapter"]["id"]
    assert not {of_b["id"], of_b["adapter"]["id"], adapter.id[:32]} & set(stage.secrets)
    assert (await stage.b.call("DELETE", f"/v1/documents/{of_b['id']}")).status_code == 200
    answer = await stage.a.ask(document_id=stage.ready_id)
    assert answer.json()["lift"]["adapter_id"] == stage.adapter_id  # A's is not gone with it


async def test_a_file_sent_within_a_question_finds_no_foreign_document(stage: Stage, engine: Any) -> None:
    content = base64.b64encode(TEXT.encode()).decode()
    data = {"type": "file", "file": {"filename": "a.txt", "file_data": content}}
    asked = {"messages": [{"role": "user", "content": [data, {"type": "text", "text": "How many?"}]}]}
    answer = await stage.b.ask(**asked, lift={"max_wait_s": 0})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "document_not_ready")
    assert engine.asked == []
    assert len((await stage.b.get("/v1/documents")).json()["data"]) == 2


async def test_the_engines_prefix_cache_is_each_ones_own(stage: Stage, engine: Any) -> None:
    """Else B could tell by the time to a first token what A has asked about."""
    for one in (stage.a, stage.b, stage.b):
        assert (await one.ask()).status_code == 200
    assert (await stage.b.ask(cache_salt=stage.a.record.owner)).status_code == 200
    of_a, of_b, again, given = (body["cache_salt"] for body in engine.asked)
    assert of_b == again
    assert len({of_a, of_b, given}) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", salt) for salt in (of_a, of_b, given))


@pytest.mark.parametrize("seed", range(5))
async def test_no_walk_of_calls_gets_anywhere(stage: Stage, engine: Any, seed: int) -> None:
    """Calls in any order, paths and bodies mixed, lists in between."""
    chance = random.Random(seed)
    paths, asked = list(stage.routes()), list(ways("DOCUMENT"))
    bodies = ({}, {"part_ids": []}, {"part_ids": ["part_0"]}, question(ASKING[0], {"document_id": stage.ready_id}))
    for _ in range(60):
        document_id = chance.choice((stage.ready_id, stage.queued_id))
        if chance.random() < 0.5:
            method, path = chance.choice(paths)
            options: dict[str, Any] = {"json": chance.choice(bodies)} if method == "POST" else {}
            answer = await stage.b.call(method, path.format(**stage.names(document_id)), **options)
        else:
            route, fields, headers = json.loads(json.dumps(chance.choice(asked)).replace("DOCUMENT", document_id))
            answer = await stage.b.call("POST", route, json=question(route, fields), headers=headers)
        assert answer.status_code in REFUSED, (answer.request.method, answer.request.url)
        said = answer.request.content.decode() + str(answer.request.url) + str(answer.request.headers)
        assert not [secret for secret in stage.secrets if secret in answer.text and secret not in said]
        listed = await stage.b.get(chance.choice(("/v1/documents", "/v1/files", "/v1/models")))
        assert not [secret for secret in stage.secrets if secret in listed.text]
    assert (engine.asked, engine.removed) == ([], [])
    assert engine.loads.count(stage.adapter_id) <= 1  # by itself, when it was published
    assert await everything_is_there(stage)


async def everything_is_there(stage: Stage) -> bool:
    """Nothing that B did cancelled, deleted or completed anything of A's."""
    ready = (await stage.a.get(f"/v1/documents/{stage.ready_id}")).json()
    queued = (await stage.a.get(f"/v1/documents/{stage.queued_id}")).json()
    part = await stage.a.call("POST", f"/v1/uploads/{stage.upload_id}/parts", files={"data": ("a", b"bytes")})
    return (ready["status"], queued["status"], part.status_code) == ("ready", "queued", 200)
