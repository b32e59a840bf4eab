"""scripts/evaluate_server.py against a stand-in for the product: what it sends, what becomes of the answers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from evaluate_columns import COLUMNS
from evaluate_server import ServerPlan, ServerRun
from evaluate_state import State, Unit

DOCUMENT = {
    "title": "Log",
    "text": "Edda built it.",
    "qa": [{"question": "Who?", "answers": ["Edda"]}, {"question": "What?", "answers": ["it all"]}],
}


class StandIn:
    """Trains at once, answers Edda; refuses the text in the prompt where told to. What it was sent is kept."""

    def __init__(self) -> None:
        self.uploads: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.is_too_long = False

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/documents", self._upload),
                web.get("/v1/documents/{id}", self._document),
                web.delete("/v1/documents/{id}", self._delete),
                web.post("/v1/chat/completions", self._chat),
            ]
        )
        return application

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    async def _upload(self, request: web.Request) -> web.Response:
        self.uploads.append(await request.json())
        return web.json_response({"id": f"doc_{len(self.uploads)}"})

    async def _document(self, request: web.Request) -> web.Response:
        versions = [{"recipe": "fast", "ready_s": 2.0}, {"recipe": "balanced", "ready_s": 9.0}]
        synthesis = {"requests": 3, "prompt_tokens": 70, "computed_prompt_tokens": 50, "generated_tokens": 20}
        return web.json_response(
            {"status": "ready", "unfinished": False, "error": None, "adapters": versions, "synthesis": synthesis}
        )

    async def _delete(self, request: web.Request) -> web.Response:
        self.deleted.append(request.match_info["id"])
        return web.json_response({})

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        if self.is_too_long and body.get("lift", {}).get("mode") == "context":
            error = {"code": "context_length_exceeded", "message": "too long", "type": "invalid_request_error"}
            return web.json_response({"error": error}, status=400)
        message = {"role": "assistant", "content": "Edda did."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 17, "completion_tokens": 3, "total_tokens": 20}
        return web.json_response(
            {"id": "x", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice], "usage": usage}
        )


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
async def address(stand_in: StandIn) -> AsyncIterator[str]:
    runner = web.AppRunner(stand_in.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield site.name.replace(":0", f":{runner.addresses[0][1]}")
    await runner.cleanup()


async def run(address: str, state: State) -> list[Unit]:
    plan = ServerPlan([DOCUMENT], ["balanced"], COLUMNS, 8)
    told: list[Unit] = []
    await ServerRun(address, "", plan, state, lambda *_: True, told.append, lambda: None).all()
    assert sorted(unit.key[2] for unit in state.units) == sorted(key[2] for key in plan.units())
    return told


async def test_every_column_is_asked_for_what_it_is(address: str, stand_in: StandIn, tmp_path: Path) -> None:
    units = {unit.column: unit for unit in await run(address, State(tmp_path / "a.jsonl", {}))}
    assert [upload["recipe"] for upload in stand_in.uploads] == ["balanced"]
    assert stand_in.deleted == ["doc_1"]
    lifts = [body.get("lift", {}) for body in stand_in.asked]
    assert [(lift.get("mode"), lift.get("recipe")) for lift in lifts[::2]] == [
        (None, None), (None, None), ("context", None), ("context", None),
        ("adapter", "balanced"), ("hybrid", "balanced"),
    ]  # fmt: skip
    assert {body["temperature"] for body in stand_in.asked} == {0}
    free, retrieved = stand_in.asked[0]["messages"], stand_in.asked[2]["messages"]
    assert "Edda" not in free[0]["content"]
    assert "Edda built it." in retrieved[0]["content"]
    assert units["LIFT balanced"].spent == {
        "seconds": 9.0, "prompt_tokens": 70, "computed_prompt_tokens": 50, "generated_tokens": 20,
    }  # fmt: skip
    assert units["in context"].spent == {}
    first, second = units["hybrid balanced"].records
    assert (first["contained"], second["contained"], first["judge"], first["prompt_tokens"]) == (1.0, 0.0, 1.0, 17)
    assert "nll" not in first


async def test_what_is_measured_is_not_asked_again(address: str, stand_in: StandIn, tmp_path: Path) -> None:
    await run(address, State(tmp_path / "a.jsonl", {}))
    asked = len(stand_in.asked)
    assert await run(address, State(tmp_path / "a.jsonl", {})) == []
    assert (len(stand_in.asked), len(stand_in.uploads)) == (asked, 1)


async def test_a_text_too_long_is_told_and_the_rest_goes_on(address: str, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.is_too_long = True
    units = {unit.column: unit for unit in await run(address, State(tmp_path / "a.jsonl", {}))}
    assert units["in context"].refused == "context_length_exceeded"
    assert units["in context"].records == []
    assert len(units["LIFT balanced"].records) == 2
