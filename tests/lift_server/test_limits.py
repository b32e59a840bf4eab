"""What a key may use: requests and tokens a minute, documents, bytes and trainings at once; at every front end."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.lift_server.holders import BASE, Holder, holder, keys_of

from lift_config.contract import window_redis_key
from lift_server.limits import duration

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
ANSWER_TOKENS = 13  # of the stand-in engine
RATE_HEADERS = {f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests",)}


def refusal(answer: httpx2.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["type"]


def rates(answer: httpx2.Response, kind: str) -> tuple[int, int]:
    """The limit, and what is left."""
    return tuple(int(answer.headers[f"x-ratelimit-{what}-{kind}"]) for what in ("limit", "remaining"))  # type: ignore[return-value]


async def ended(redis: Any, kind: str, one: Holder) -> None:
    """As a minute later."""
    assert await redis.delete(window_redis_key(kind, one.record.id)) == 1


# ---- a minute -----------------------------------------------------------------------------------------------


async def test_requests_are_counted_over_all_front_ends(start: Any, redis: Any) -> None:
    front_ends = [await start(), await start()]
    mine, other = await holder(front_ends[0], requests_per_minute=3), await holder(front_ends[0], requests_per_minute=3)
    left = []
    for front_end in (*front_ends, front_ends[0]):
        answer = await front_end.client.get("/v1/models", headers=mine.headers)
        assert answer.status_code == 200
        left.append(rates(answer, "requests"))
    assert left == [(3, 2), (3, 1), (3, 0)]
    for front_end in front_ends:
        answer = await front_end.client.get("/v1/models", headers=mine.headers)
        assert refusal(answer) == (429, "rate_limit_exceeded", "requests")
        assert rates(answer, "requests") == (3, 0)
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert "x-should-retry" not in answer.headers  # waiting helps
        assert answer.headers["X-Request-Id"]
    assert (await other.get("/v1/models")).status_code == 200
    assert 0 < await redis.pttl(window_redis_key("requests", mine.record.id)) <= 60_000
    await ended(redis, "requests", mine)
    assert rates(await mine.get("/v1/models"), "requests") == (3, 2)


async def test_many_at_once_are_counted_one_by_one(front_end: Any) -> None:
    mine = await holder(front_end, requests_per_minute=7)
    answers = await asyncio.gather(*(mine.get("/v1/models") for _ in range(20)))
    assert Counter(answer.status_code for answer in answers) == {200: 7, 429: 13}


async def test_errors_carry_the_rates_too_and_open_routes_none(front_end: Any) -> None:
    mine = await holder(front_end, requests_per_minute=3)
    missing = await mine.get("/v1/documents/doc_0")
    assert (missing.status_code, rates(missing, "requests")) == (404, (3, 2))
    healthy = await mine.get("/health")
    assert not RATE_HEADERS & healthy.headers.keys()
    assert rates(await mine.get("/nowhere"), "requests") == (3, 1)


async def test_without_limits_nothing_is_counted_or_told(front_end: Any, redis: Any) -> None:
    mine = await holder(front_end)
    answer = await mine.ask()
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    assert await redis.keys("lift:window:*") == []


@pytest.mark.parametrize("is_stream", [False, True])
async def test_tokens_are_charged_when_they_are_known(front_end: Any, redis: Any, is_stream: bool) -> None:
    """A question is let in while any are left: the second one goes over."""
    mine = await holder(front_end, tokens_per_minute=ANSWER_TOKENS + 1)
    streamed = {"stream": True} if is_stream else {}
    answers = [await mine.ask(**streamed) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    limit = ANSWER_TOKENS + 1
    assert [rates(answer, "tokens") for answer in answers] == [(limit, limit), (limit, 1), (limit, 0)]
    assert refusal(answers[2]) == (429, "rate_limit_exceeded", "tokens")
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    assert int(await redis.get(window_redis_key("tokens", mine.record.id))) == 2 * ANSWER_TOKENS
    assert (await mine.get("/v1/models")).status_code == 200  # what asks no engine goes on
    assert (await mine.upload(TEXT)).status_code == 200
    await ended(redis, "tokens", mine)
    assert (await mine.ask()).status_code == 200


@pytest.mark.parametrize("is_stream", [False, True])
async def test_who_has_the_end_of_an_answer_has_been_charged(front_end: Any, redis: Any, is_stream: bool) -> None:
    """Else a client that asks again at once is let in with tokens that are spent."""
    mine = await holder(front_end, tokens_per_minute=1000)
    question = {"model": BASE, "messages": [{"role": "user", "content": "?"}], "stream": is_stream}
    bodies = [json.dumps(question).encode()]
    charged = []

    async def receive() -> dict[str, Any]:
        if not bodies:
            await asyncio.Event().wait()  # the client stays
        return {"type": "http.request", "body": bodies.pop()}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            charged.append(int(await redis.get(window_redis_key("tokens", mine.record.id)) or 0))

    await front_end.app(asked_of_the_app("/v1/chat/completions", mine), receive, send)
    assert charged == [ANSWER_TOKENS]


def asked_of_the_app(path: str, mine: Holder) -> dict[str, Any]:
    """A POST as uvicorn hands it on (ASGI 3)."""
    headers = {**mine.headers, "Content-Type": "application/json"}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }


async def test_a_stream_that_is_left_is_charged_for_what_came(front_end: Any, engine: Any, redis: Any) -> None:
    engine.gate = asyncio.Event()
    mine = await holder(front_end, tokens_per_minute=1000)
    body = {"model": BASE, "messages": [{"role": "user", "content": "?"}], "stream": True}
    async with front_end.client.stream("POST", "/v1/chat/completions", json=body, headers=mine.headers):
        await engine.streaming.wait()
    await asyncio.wait_for(engine.aborted.wait(), 5)
    async with asyncio.timeout(5):
        while not await redis.get(window_redis_key("tokens", mine.record.id)):
            await asyncio.sleep(0)
    assert 1 <= int(await redis.get(window_redis_key("tokens", mine.record.id))) < ANSWER_TOKENS


async def test_settings_stand_in_for_what_a_key_does_not_say(start: Any) -> None:
    front_end = await start(limits={"requests_per_minute": 2, "tokens_per_minute": 50})
    plain = await holder(front_end)
    own = await holder(front_end, requests_per_minute=9)
    free = await holder(front_end, requests_per_minute=0, tokens_per_minute=0)
    assert rates(await plain.get("/v1/models"), "requests") == (2, 1)
    answer = await own.get("/v1/models")
    assert (rates(answer, "requests"), rates(answer, "tokens")) == ((9, 8), (50, 50))
    assert not RATE_HEADERS & (await free.get("/v1/models")).headers.keys()


async def test_settings_hold_without_keys(start: Any) -> None:
    front_end = await start(limits={"requests_per_minute": 1, "documents": 1})
    assert rates(await front_end.client.get("/v1/models"), "requests") == (1, 0)
    assert refusal(await front_end.client.get("/v1/models"))[0] == 429


async def test_an_sdk_waits_as_it_is_told_or_raises(front_end: Any) -> None:
    mine = await holder(front_end, requests_per_minute=1, documents=1)
    async with openai.AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key=mine.secret, max_retries=0) as client:
        await client.models.list()
        with pytest.raises(openai.RateLimitError) as raised:
            await client.models.list()
    assert raised.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(0, "0s"), (20, "20ms"), (999, "999ms"), (1000, "1s"), (1500, "1.5s"), (59_213, "59.213s"), (60_000, "1m0s"),
     (360_000, "6m0s")],
)  # fmt: skip
def test_durations_are_written_as_openai_does(milliseconds: int, said: str) -> None:
    assert duration(milliseconds) == said


# ---- what an owner has --------------------------------------------------------------------------------------


def stored(store: Path) -> list[str]:
    return sorted(
        str(path.relative_to(store)) for path in store.rglob("*/*") if path.is_file() and "keys" not in str(path)
    )


async def test_documents_are_limited_under_uploads_at_once(start: Any, store: Path) -> None:
    """Over two front ends, of different content; what is refused leaves nothing."""
    front_ends = [await start(), await start()]
    mine = await holder(front_ends[0], documents=3)
    answers = await asyncio.gather(
        *(
            front_ends[number % 2].client.post(
                "/v1/documents", json={"text": f"{TEXT} And {number} more."}, headers=mine.headers
            )
            for number in range(10)
        )
    )
    assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 7}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refusal(refused) == (429, "insufficient_quota", "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    assert "Retry-After" not in refused.headers
    assert len(stored(store)) == 3 * 4  # a document's record and original, its job and text
    taken = next(answer for answer in answers if answer.status_code == 200).json()["id"]
    assert (await mine.call("DELETE", f"/v1/documents/{taken}")).status_code == 200
    assert (await mine.upload(TEXT)).status_code == 200
    assert (await mine.upload(TEXT)).status_code == 429


async def test_uploads_at_once_do_not_make_each_other_look_again(front_end: Any, redis: Any) -> None:
    """Each changes the owner's list, which the others watch."""
    mine = await holder(front_end)
    before = (await redis.info("commandstats")).get("cmdstat_watch", {"calls": 0})["calls"]
    answers = await asyncio.gather(*(mine.upload(f"{TEXT} {number}.") for number in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await redis.info("commandstats"))["cmdstat_watch"]["calls"] - before == len(answers)


async def test_bytes_are_those_of_the_uploads_that_are_there(front_end: Any) -> None:
    mine = await holder(front_end, bytes=2 * len(TEXT))
    first, second = [(await mine.upload(TEXT)).json()["id"] for _ in range(2)]
    assert refusal(await mine.upload(TEXT)) == (429, "insufficient_quota", "insufficient_quota")
    await mine.call("DELETE", f"/v1/documents/{first}")
    assert refusal(await mine.upload(TEXT + "!"))[0] == 429
    answers = await asyncio.gather(*(mine.upload(TEXT) for _ in range(4)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 429: 3}
    await mine.call("DELETE", f"/v1/files/{second}")
    assert (await mine.upload(TEXT)).status_code == 200


async def test_others_documents_do_not_count(front_end: Any) -> None:
    mine, other = await holder(front_end, documents=1, training=1), await holder(front_end)
    for number in range(3):
        await other.upload(f"{TEXT} {number}.")
    assert (await mine.upload(TEXT)).status_code == 200


async def test_every_way_to_upload_is_limited(front_end: Any) -> None:
    mine = await holder(front_end, documents=1)
    assert (await mine.upload(TEXT)).status_code == 200
    file = {"file": ("a.txt", b"The harbour of Lund has two cranes.")}
    part = {"type": "file", "file": {"filename": "a", "file_data": "VGhlIGhhcmJvdXIgaGFzIHR3byBjcmFuZXMu"}}
    asked = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "How many?"}]}]}
    wanted = {"filename": "a.txt", "bytes": 10, "purpose": "user_data", "mime_type": "text/plain"}
    for answer in (
        await mine.call("POST", "/v1/files", files=file, data={"purpose": "user_data"}),
        await mine.call("POST", "/v1/documents", files=file),
        await mine.call("POST", "/v1/uploads", json=wanted),
        await mine.ask(**asked),
    ):
        assert refusal(answer) == (429, "insufficient_quota", "insufficient_quota")


async def test_trainings_at_once_are_limited(front_end: Any, worker: Any) -> None:
    mine = await holder(front_end, training=1)
    other = await holder(front_end)
    await mine.upload(TEXT)
    refused = await mine.upload(TEXT + " And more.")
    assert refusal(refused) == (429, "rate_limit_exceeded", "training")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await mine.upload(TEXT)).status_code == 200  # it shares the training there is
    assert (await other.upload(TEXT)).status_code == 200
    of_others = await worker.newest_job()
    await worker.publish(await worker.claim(of_others))
    assert (await mine.upload(TEXT + " And more.")).status_code == 429
    await worker.publish(await worker.claim(await oldest_job(worker)))
    assert (await mine.upload(TEXT + " And more.")).status_code == 200
    answers = await asyncio.gather(*(mine.upload(f"{TEXT} {number}.") for number in range(3)))
    assert {answer.status_code for answer in answers} == {429}


async def test_a_question_that_wants_a_training_is_limited_too(front_end: Any, worker: Any) -> None:
    mine = await holder(front_end, training=1)
    document = (await mine.upload(TEXT, recipe="fast")).json()["id"]
    await worker.train()
    await mine.upload(TEXT + " And more.")
    answer = await mine.ask(document_id=document, lift={"recipe": "max", "max_wait_s": 1})
    assert refusal(answer) == (429, "rate_limit_exceeded", "training")


async def test_the_queue_of_all_is_limited(start: Any, worker: Any) -> None:
    """Whoever waits in it; what is there already can be uploaded again, and what left it makes room."""
    front_end = await start(limits={"max_queued": 2})
    mine, other = await holder(front_end), await holder(front_end)
    documents = [(await one.upload(TEXT, recipe="fast")).json()["id"] for one in (mine, other)]
    refused = await mine.upload(TEXT + " And more.")
    assert refusal(refused) == (429, "rate_limit_exceeded", "queue")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await mine.upload(TEXT, recipe="fast")).status_code == 200
    await worker.train()
    question = {"document_id": documents[1], "lift": {"recipe": "max", "max_wait_s": 1}}
    assert refusal(await other.ask(**question)) == (429, "rate_limit_exceeded", "queue")
    await worker.redis.xtrim("lift:jobs", maxlen=1, approximate=False)  # as a worker does with what is done
    assert (await mine.upload(TEXT + " And more.")).status_code == 200


async def test_the_newest_key_of_an_owner_says_what_it_may_have(front_end: Any) -> None:
    old = await holder(front_end, documents=1)
    await old.upload(TEXT)
    assert (await old.upload(TEXT)).status_code == 429
    new = await holder(front_end, owner=old.record.owner, documents=3)
    assert (await old.upload(TEXT)).status_code == 200
    await keys_of(front_end).revoke(new.record.id)
    assert (await old.upload(TEXT)).status_code == 429


async def oldest_job(worker: Any) -> Any:
    _, fields = (await worker.redis.xrange("lift:jobs", count=1))[0]
    return await worker.job(fields[b"job"].decode())
