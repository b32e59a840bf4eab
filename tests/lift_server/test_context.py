"""Modes `auto` and `hybrid`: whether a text fits the prompt, which part of it is taken, what is then answered from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lift_config.prompts import document_line, frame
from lift_server.context import ANSWER_TOKENS, CHARACTERS_PER_TOKEN, EXCERPT_TOKENS, NEAR_TOKENS, SAMPLE_CHARS
from lift_server.passages import CUT

BASE = "smollm2-135m-instruct"
TEXT = " ".join(f"Keeper number {number} of Orvel keeps {number} bees." for number in range(40))
LONG = " ".join(f"Keeper number {number} of Orvel keeps {number} bees." for number in range(500))
WORDS = len(TEXT.split())
ASKED: Any = [{"role": "user", "content": "What is the answer?"}]
AROUND = len(document_line(None).split()) + 4 + 2 * 3  # words of system line and question, frames of two messages


def lift(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["lift"]


async def test_a_conversation_moves_from_the_text_to_the_adapter(front_end: Any, worker: Any, engine: Any) -> None:
    document = await front_end.upload(TEXT)
    question = {"document_id": document["id"], "lift": {"mode": "auto"}}
    first = lift(await front_end.ask(**question))
    assert (first["answered_from"], first["adapter_id"]) == ("context", None)
    assert first["phases"].keys() == {"accept", "fit", "prefill"}
    adapter = await worker.train("fast")
    second = lift(await front_end.ask(**question))
    assert (second["answered_from"], second["adapter_id"]) == ("adapter", adapter.id)
    assert second["phases"].keys() == {"accept", "load", "prefill"}
    assert engine.asked == [
        {"model": BASE, "messages": frame(ASKED, None, TEXT)},
        {"model": adapter.id, "messages": frame(ASKED, None), "min_tokens": 1},
    ]


@pytest.mark.parametrize("tokens", [{}, {"max_tokens": 300}, {"max_completion_tokens": 300, "max_tokens": 9}])
async def test_what_fits_to_the_token(front_end: Any, engine: Any, tokens: Any) -> None:
    document = await front_end.upload(TEXT)
    question = {"document_id": document["id"], "lift": {"mode": "auto", "max_wait_s": 0}, **tokens}
    engine.window = WORDS + AROUND + (300 if tokens else ANSWER_TOKENS)
    assert lift(await front_end.ask(**question))["answered_from"] == "context"
    assert engine.asked[-1]["messages"] == frame(ASKED, None, TEXT)
    engine.window -= 1
    told = lift(await front_end.ask(**question))
    assert (told["answered_from"], told["excerpt"]) == ("context", True)
    assert len(engine.asked[-1]["messages"][0]["content"]) < len(TEXT)


@pytest.mark.parametrize("is_counted", [True, False])
async def test_a_long_text_is_answered_from_at_once(front_end: Any, worker: Any, engine: Any, is_counted: bool) -> None:
    """From what the question is about, also before a worker has counted its tokens."""
    document = await front_end.upload(LONG)
    if is_counted:
        job = await worker.claim(await worker.newest_job())
        await worker.write(job.changed(tokens=len(LONG.split())))
    engine.window = 1500
    asked = {"document_id": document["id"], "lift": {"mode": "auto"}}
    told = lift(await front_end.ask("How many bees does keeper number 333 keep?", **asked))
    assert (told["answered_from"], told["excerpt"], told["adapter_id"]) == ("context", True, None)
    excerpt = engine.asked[0]["messages"][0]["content"]
    assert "Keeper number 333 of Orvel keeps 333 bees." in excerpt
    assert EXCERPT_TOKENS * 0.8 < len(excerpt.split()) < EXCERPT_TOKENS + AROUND
    adapter = await worker.train()
    told = lift(await front_end.ask(**asked))
    assert (told["answered_from"], told["adapter_id"], "excerpt" in told) == ("adapter", adapter.id, False)


async def test_where_no_text_fits_the_adapter_is_waited_for(front_end: Any, worker: Any, engine: Any) -> None:
    engine.window = ANSWER_TOKENS
    document = await front_end.upload(TEXT)
    asking = asyncio.create_task(front_end.ask(document_id=document["id"], lift={"mode": "auto"}))
    await front_end.waits()
    adapter = await worker.train()
    assert lift(await asking)["adapter_id"] == adapter.id


async def test_what_cannot_fit_is_not_tokenized(front_end: Any, worker: Any, engine: Any) -> None:
    """Too many characters for any tokenizer, or counted by the worker already."""
    engine.window = ANSWER_TOKENS + 100
    long = "word " * 100 * CHARACTERS_PER_TOKEN
    question = {"lift": {"mode": "auto", "max_wait_s": 0}}
    document = await front_end.upload(long)
    assert lift(await front_end.ask(document_id=document["id"], **question))["excerpt"]
    assert max(map(len, engine.tokenized)) < SAMPLE_CHARS + 100
    engine.tokenized.clear()
    document = await front_end.upload(TEXT)
    job = await worker.claim(await worker.newest_job())
    await worker.write(job.changed(tokens=101))
    assert lift(await front_end.ask(document_id=document["id"], **question))["excerpt"]
    assert max(map(len, engine.tokenized)) < len(TEXT)


@pytest.mark.parametrize("end", ["failed", "cancelled", "outdated"])
async def test_auto_answers_where_no_adapter_ever_will(front_end: Any, worker: Any, engine: Any, end: str) -> None:
    document = await front_end.upload(TEXT)
    job = await worker.newest_job()
    if end == "failed":
        await worker.fail(job, "nothing to learn")
    elif end == "cancelled":
        await front_end.client.post(f"/v1/documents/{document['id']}/cancel")
    else:
        await worker.write(job.changed(base_model="another"))
    question = {"document_id": document["id"], "lift": {"mode": "auto"}}
    assert lift(await front_end.ask(**question))["answered_from"] == "context"
    engine.window = ANSWER_TOKENS
    refused = await front_end.ask(**question)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, f"document_{end}")


async def test_auto_with_a_recipe_has_it_trained_and_does_not_wait(front_end: Any, worker: Any, redis: Any) -> None:
    document = await front_end.upload(TEXT)
    await worker.train()
    await redis.delete("lift:jobs")
    question = {"document_id": document["id"], "lift": {"mode": "auto", "recipe": "max"}}
    assert lift(await front_end.ask(**question))["answered_from"] == "context"
    best = await worker.train()
    assert lift(await front_end.ask(**question))["adapter_id"] == best.id


async def test_hybrid_takes_all_of_a_text_that_fits(front_end: Any, worker: Any, engine: Any) -> None:
    document = await front_end.upload(TEXT)
    asking = asyncio.create_task(front_end.ask(document_id=document["id"], lift={"mode": "hybrid"}))
    await front_end.waits()
    adapter = await worker.train()
    told = lift(await asking)
    assert (told["answered_from"], told["adapter_id"]) == ("hybrid", adapter.id)
    assert {"wait", "load", "fit", "prefill"} <= told["phases"].keys()
    assert engine.asked == [{"model": adapter.id, "messages": frame(ASKED, None, TEXT), "min_tokens": 1}]


@pytest.mark.parametrize("mode", ["hybrid", "auto", "context"])
async def test_behind_a_long_text_stands_what_is_near_to_the_question(
    front_end: Any, worker: Any, engine: Any, mode: str
) -> None:
    """But for `context`, which is compared with; the text comes first, as in every question about it."""
    document = await front_end.upload(LONG)
    if mode == "hybrid":
        await worker.train()
    asked = {"document_id": document["id"], "lift": {"mode": mode}}
    engine.window = len(LONG.split()) + 2 * NEAR_TOKENS + ANSWER_TOKENS
    told = lift(await front_end.ask("How many bees does keeper number 333 keep?", **asked))
    assert "excerpt" not in told
    whole, _, near = engine.asked[-1]["messages"][0]["content"].partition(CUT)
    assert whole == frame(ASKED, None, LONG)[0]["content"]
    if mode == "context":
        assert not near
        return
    assert "Keeper number 333 of Orvel keeps 333 bees." in near
    assert NEAR_TOKENS * 0.8 < len(near.split()) < NEAR_TOKENS * 1.2
    engine.window -= NEAR_TOKENS
    lift(await front_end.ask("How many bees does keeper number 333 keep?", **asked))
    assert engine.asked[-1]["messages"][0]["content"] == whole


async def test_hybrid_takes_what_the_question_is_about_of_a_text_that_does_not_fit(
    front_end: Any, worker: Any, engine: Any
) -> None:
    document = await front_end.upload(LONG)
    job = await worker.claim(await worker.newest_job())
    adapter = await worker.publish(job, tokens=len(LONG.split()))
    engine.window = 1500
    asked = {"document_id": document["id"], "lift": {"mode": "hybrid"}}
    told = lift(await front_end.ask("How many bees does keeper number 333 keep?", **asked))
    assert (told["answered_from"], told["excerpt"], told["adapter_id"]) == ("hybrid", True, adapter.id)
    (system, question) = engine.asked[0]["messages"]
    excerpt = system["content"]
    assert "Keeper number 333 of Orvel keeps 333 bees." in excerpt
    assert "Keeper number 0 of Orvel" in excerpt  # its beginning
    assert CUT in excerpt
    assert EXCERPT_TOKENS * 0.8 < len(excerpt.split()) < EXCERPT_TOKENS + AROUND
    assert question == {"role": "user", "content": "How many bees does keeper number 333 keep?"}


async def test_an_excerpt_fits_whatever_is_left(front_end: Any, worker: Any, engine: Any) -> None:
    document = await front_end.upload(LONG)
    job = await worker.claim(await worker.newest_job())
    await worker.publish(job, tokens=len(LONG.split()) // 3)  # wrong by so much: it is counted anew
    engine.window = AROUND + 1 + ANSWER_TOKENS + 100
    assert lift(await front_end.ask(document_id=document["id"], lift={"mode": "hybrid"}))["answered_from"] == "hybrid"
    assert 50 < len(engine.asked[0]["messages"][0]["content"].split()) <= 100 + AROUND


async def test_hybrid_without_room_answers_from_the_adapter_alone(front_end: Any, worker: Any, engine: Any) -> None:
    document = await front_end.upload(TEXT)
    await worker.train()
    engine.window = ANSWER_TOKENS
    answer = await front_end.ask(document_id=document["id"], lift={"mode": "hybrid"})
    assert lift(answer)["answered_from"] == "adapter"
    assert engine.asked[0]["messages"] == frame(ASKED, None)


async def test_a_question_the_engine_cannot_count(front_end: Any, engine: Any) -> None:
    engine.tokenize_error = {"error": {"message": "bad tool", "type": "x", "param": "tools", "code": 400}}
    document = await front_end.upload(TEXT)
    answer = await front_end.ask(document_id=document["id"], lift={"mode": "auto"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools")
