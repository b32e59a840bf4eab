"""Web pages as clients: what a browser asks before a page's request, and what it lets the page read."""

from __future__ import annotations

from typing import Any

import pytest
from tests.lift_server.holders import BASE, holder

PAGE = "https://chat.example.com"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
BODY = {"model": BASE, "messages": [{"role": "user", "content": "?"}]}


async def test_a_browser_is_told_before_it_sends(front_end: Any, engine: Any) -> None:
    """As openai-node's `dangerouslyAllowBrowser` makes it: without the key, which only the request itself has."""
    await holder(front_end)
    answer = await front_end.client.options("/v1/chat/completions", headers={"Origin": PAGE, **ASKED})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert {"GET", "POST", "DELETE"} == set(answer.headers["access-control-allow-methods"].split(", "))
    assert answer.headers["x-request-id"]
    assert engine.asked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_page_reads_its_answers(front_end: Any, stream: bool) -> None:
    page = await holder(front_end)
    answer = await page.ask(headers={"Origin": PAGE}, stream=stream)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == answer.headers["access-control-expose-headers"] == "*"


async def test_a_page_reads_its_errors(front_end: Any) -> None:
    page, headers = await holder(front_end), {"Origin": PAGE}
    refused = await front_end.client.post("/v1/chat/completions", json=BODY, headers=headers)
    unknown = await page.get("/v1/files/doc_x", headers=headers)
    for answer, status in ((refused, 401), (unknown, 404)):
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "*")


async def test_without_keys_only_pages_of_this_machine_get_in(front_end: Any, engine: Any) -> None:
    for origin, status in (("http://localhost:3000", 200), (PAGE, 401), ("null", 401)):
        answer = await front_end.client.post("/v1/chat/completions", json=BODY, headers={"Origin": origin})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "*"), origin
    assert len(engine.asked) == 1


async def test_what_is_no_page_and_no_api_is_told_nothing(front_end: Any) -> None:
    client = front_end.client
    metrics = await client.get("/metrics", headers={"Origin": PAGE})
    models = await client.get("/v1/models")
    assert "access-control-allow-origin" not in {**metrics.headers, **models.headers}
    for headers in ({}, {"Origin": PAGE}, ASKED):
        answer = await client.options("/v1/models", headers=headers)
        assert answer.status_code == (401 if headers == {"Origin": PAGE} else 405), headers
    assert (await client.options("/metrics", headers={"Origin": PAGE, **ASKED})).status_code == 405
