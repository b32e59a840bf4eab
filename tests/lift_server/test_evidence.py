"""`lift.evidence`: which segments are told, with what verdict, and that the answer comes first whatever happens."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.lift_server.made_files import lines, pdf

from lift_config.prompts import frame
from lift_server import relay
from lift_server.context import last_question
from lift_server.evidence import SCORED_TOKENS, SEGMENTS, differs, supports
from lift_server.passages import Passage

TEXT = (
    "The lighthouse keeper of Orvel is the old sailor Edda Holm. "
    "Ships are warned by three long blasts of the great horn. "
    "Its lamp burns rapeseed oil that comes from the harbour of Marn."
)
QUESTION = "Who is the lighthouse keeper?"
KEEPER, LAMP = TEXT[:59], TEXT[117:]


async def asked(front_end: Any, content: str = QUESTION, text: str = TEXT, **fields: Any) -> Any:
    """The answer to a question from the text of a new document."""
    document = await front_end.upload(text, title="Orvel")
    lift = {"mode": "context", "evidence": True, **fields.pop("lift", {})}
    answer = await front_end.ask(content, document_id=document["id"], lift=lift, **fields)
    assert answer.status_code == 200, answer.text
    return answer


async def told(front_end: Any, *args: Any, **fields: Any) -> Any:
    lift = (await asked(front_end, *args, **fields)).json()["lift"]
    assert lift["evidence_s"] >= 0
    return lift["evidence"]


async def test_a_segment_that_makes_the_answer_likelier_supports_it(front_end: Any, engine: Any) -> None:
    engine.words = ["It", " is", " Edda", " Holm."]
    first, *rest = await told(front_end)
    assert (first["segment"], first["text"], first["verdict"]) == (0, KEEPER, "supports")
    assert TEXT[first["start"] : first["end"]] == KEEPER
    assert first["score"] == 2.0  # of four words "Edda" and "Holm" are likelier by four: nobody says "It", anybody "is"
    assert "supports" not in {one["verdict"] for one in rest}


async def test_a_segment_that_says_otherwise_contradicts(front_end: Any, engine: Any) -> None:
    engine.words, engine.own_answer = [" Pavel", " Doru."], "Edda Holm"
    first, *_ = await told(front_end)
    assert (first["segment"], first["verdict"], first["score"]) == (0, "contradicts", 0.0)
    engine.own_answer = "Pavel Doru"  # read differently than it is written
    assert {one["verdict"] for one in await told(front_end)} == {"unclear"}


async def test_only_the_segment_nearest_to_the_question_contradicts(front_end: Any, engine: Any) -> None:
    engine.words, engine.own_answer = [" butter", " and", " so", " on", " it", " goes"], "Edda Holm oil"
    verdicts = [one["verdict"] for one in await told(front_end, "Who is the lighthouse keeper of the lamp?")]
    assert (verdicts[0], *set(verdicts[1:])) == ("contradicts", "unclear")


async def test_a_name_from_elsewhere_in_the_document_is_not_supported_there(front_end: Any, engine: Any) -> None:
    engine.words, engine.own_answer = [" rapeseed"], "Edda Holm"
    verdicts = {one["segment"]: (one["verdict"], one["score"]) for one in await told(front_end)}
    assert verdicts[2] == ("unclear", 4.0)
    assert verdicts[0][0] == "contradicts"


async def test_the_base_model_reads_one_segment_at_a_time(front_end: Any, worker: Any, engine: Any) -> None:
    document = await front_end.upload(TEXT, title="Orvel")
    await worker.train()
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
    question = {"role": "user", "content": [{"type": "text", "text": QUESTION}]}
    body = {"model": "smollm2-135m-instruct", "messages": [*turns, question], "document_id": document["id"]}
    answer = await front_end.client.post("/v1/chat/completions", json={**body, "lift": {"evidence": True}})
    assert answer.json()["lift"]["answered_from"] == "adapter"
    assert answer.json()["lift"]["evidence"]
    alone, *beside = engine.scored[0]["prompt"]
    plain = [{"role": "user", "content": QUESTION}]
    answered = "".join(engine.words)
    assert text_of(engine, alone) == "".join(m["content"] for m in frame(plain, "Orvel")) + answered
    wanted = {"".join(m["content"] for m in frame(plain, "Orvel", text)) + answered for text in (KEEPER, LAMP)}
    assert wanted <= {text_of(engine, prompt) for prompt in beside}


@pytest.mark.parametrize("include_usage", [False, True])
async def test_in_a_stream_it_rides_on_the_last_chunk(
    front_end: Any, engine: Any, monkeypatch: pytest.MonkeyPatch, include_usage: bool
) -> None:
    monkeypatch.setattr(relay, "KEEP_ALIVE_S", 0.05)
    engine.scoring_gate = asyncio.Event()
    engine.words = ["It", " is", " Edda", " Holm."]
    document = await front_end.upload(TEXT)
    request = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    request |= {"document_id": document["id"], "lift": {"mode": "context", "evidence": True}}
    request |= {"stream_options": {"include_usage": include_usage}}
    async with front_end.client.stream("POST", "/v1/chat/completions", json=request) as answer:
        lines = answer.aiter_lines()
        before = [line async for line in until(lines, ": evidence")]
        engine.scoring_gate.set()
        after = [json.loads(line[6:]) async for line in lines if line.startswith("data: {")]
    assert all(word in "".join(before) for word in engine.words)  # the text was not kept waiting
    assert [("lift" in chunk) for chunk in after] == [True]
    assert ("usage" in after[0]) is include_usage
    lift = after[0]["lift"]
    assert lift["evidence"][0]["verdict"] == "supports"
    assert lift["evidence_s"] > 0
    assert lift["ttft_s"] - lift["phases"]["prefill"]["end_s"] < 0.05


async def test_nothing_is_scored_unasked(front_end: Any, engine: Any) -> None:
    lift = (await asked(front_end, lift={"evidence": False})).json()["lift"]
    assert not {"evidence", "evidence_s"} & lift.keys()
    assert engine.scored == []


@pytest.mark.parametrize("stream", [False, True])
async def test_where_there_is_nothing_to_judge_the_list_is_empty(front_end: Any, engine: Any, stream: bool) -> None:
    no_document = await front_end.ask(lift={"evidence": True}, stream=stream)
    engine.words = [""]
    for answer in (no_document, await asked(front_end, stream=stream)):
        last = answer.text.removesuffix("\n\ndata: [DONE]\n\n").rpartition("data: ")[2] if stream else answer.text
        assert json.loads(last)["lift"]["evidence"] == []
    engine.words = ["Quux", " zzyzx."]
    assert await told(front_end, "Wer?") == []  # no word of it is in the text
    assert engine.scored == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_costs_the_evidence_only(front_end: Any, engine: Any, stream: bool) -> None:
    message = {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}
    engine.scoring_error = (500, message)
    answer = await asked(front_end, stream=stream)
    last = answer.text.removesuffix("\n\ndata: [DONE]\n\n").rpartition("data: ")[2] if stream else answer.text
    assert "42." in answer.text
    lift = json.loads(last)["lift"]
    assert lift["evidence"] is None
    assert lift["evidence_error"]["code"] == "engine_error"
    assert "out of memory" in lift["evidence_error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_ends_the_scoring(front_end: Any, engine: Any, stream: bool) -> None:
    engine.scoring_gate = asyncio.Event()
    asking = asyncio.create_task(asked(front_end, stream=stream))
    await asyncio.wait_for(engine.scoring.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(engine.aborted.wait(), 5)


async def test_a_long_answer_is_scored_at_its_beginning(front_end: Any, engine: Any) -> None:
    engine.words = ["Edda"] + [f" lamp{number}" for number in range(200)]
    await told(front_end)
    alone = engine.scored[0]["prompt"][0]
    assert text_of(engine, alone).endswith(f" lamp{SCORED_TOKENS - 2}")


async def test_segments_beyond_the_context_window_are_left_out(front_end: Any, engine: Any) -> None:
    long = "The keeper " + "of the keeper " * 26 + "is Edda."
    engine.words, engine.window = [" Edda"], 60
    evidence = await told(front_end, "Who is Edda?", text=f"{long}\n\nEdda Holm is the old sailor who is the keeper.")
    assert [one["segment"] for one in evidence] == [1]


async def test_at_most_three_are_told(front_end: Any, engine: Any) -> None:
    text = " ".join(f"Keeper number {number} of the lighthouse at Orvel has {number} bees." for number in range(20))
    evidence = await told(front_end, "Which keeper has bees?", text=text)
    assert len(evidence) == SEGMENTS
    assert len(engine.scored[0]["prompt"]) == 7  # six, and without any


async def test_the_first_choice_with_text_is_judged(front_end: Any, engine: Any) -> None:
    engine.before, engine.words = [None, " "], ["It", " is", " Edda", " Holm."]  # the first one calls a tool
    assert (await told(front_end, n=3))[0]["verdict"] == "supports"


async def test_a_deleted_document_is_searched_no_more(front_end: Any) -> None:
    document = await front_end.upload(TEXT)
    question = {"document_id": document["id"], "lift": {"mode": "context", "evidence": True}}
    assert (await front_end.ask(QUESTION, **question)).json()["lift"]["evidence"]
    kept = front_end.app.state.lift.passages._kept
    assert len(kept) == 1
    await front_end.client.delete(f"/v1/documents/{document['id']}")
    assert len(kept) == 0


async def test_nor_by_another_server(front_end: Any, start: Any) -> None:
    other = await start()
    document = await front_end.upload(TEXT)
    question = {"document_id": document["id"], "lift": {"mode": "context", "evidence": True}}
    assert (await other.ask(QUESTION, **question)).json()["lift"]["evidence"]
    kept = other.app.state.lift.passages._kept
    assert len(kept) == 1
    await front_end.client.delete(f"/v1/documents/{document['id']}")
    async with asyncio.timeout(5):
        while kept:
            await asyncio.sleep(0.01)


def test_the_last_question() -> None:
    parts = [{"type": "text", "text": "Who?"}, {"type": "image_url"}, {"type": "text", "text": "When?"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Yes"}]
    assert last_question(turns) == "Who?\nWhen?"
    assert last_question([{"role": "system", "content": "Be brief."}]) == ""


@pytest.mark.parametrize("content", [None, 7, {"text": "Who?"}, [[], None, 7, {"text": {}}, {"type": "text"}]])
def test_a_question_that_is_no_text_is_none(content: Any) -> None:
    assert last_question([{"role": "user", "content": content}]) == ""


def test_what_supports() -> None:
    near = Passage(0, 0, len(KEEPER), KEEPER, nearness=0.6)
    assert supports(QUESTION, near, "The keeper is Edda Holm.", 1.0)
    assert not supports(QUESTION, near, "The keeper is Edda Holm.", 0.9)
    assert not supports(QUESTION, near, "Who keeper lighthouse!", 3.0)  # nothing but the question's words
    assert not supports(QUESTION, near, "Pavel Doru", 3.0)
    assert not supports(QUESTION, replace(near, nearness=0.4), "The keeper is Edda Holm.", 3.0)


def test_when_an_answer_differs_from_what_is_read() -> None:
    assert differs(QUESTION, KEEPER, "The keeper is Pavel Doru.", "The keeper is Edda Holm.")
    assert not differs(QUESTION, KEEPER, "The keeper is Edda Holm.", "Edda Holm")  # says nothing else
    assert not differs(QUESTION, KEEPER, "The keeper is Pavel Doru.", "A man called Jim.")  # which is not written there
    assert not differs(QUESTION, KEEPER, "Edda Holm, I guess.", "Edda Holm")


def text_of(engine: Any, tokens: list[int]) -> str:
    return "".join(engine.vocabulary[token] for token in tokens)


async def until(lines: Any, last: str) -> Any:
    async for line in lines:
        if line == last:
            return
        yield line


async def test_it_says_under_which_heading_and_on_which_page(front_end: Any, engine: Any) -> None:
    """Of a file; the places are deleted with it."""
    engine.words = ["It", " is", " Edda", " Holm."]
    pages = [[(72.0, 780.0, 20.0, "The keepers"), *lines([KEEPER], top=700)], lines([LAMP])]
    upload = {"files": {"file": ("a.pdf", pdf(pages))}}
    document = (await front_end.client.post("/v1/documents", **upload)).json()
    lift = {"mode": "context", "evidence": True}
    told = (await front_end.ask(QUESTION, document_id=document["id"], lift=lift)).json()["lift"]["evidence"]
    assert {(one["heading"], one["page"]) for one in told if KEEPER in one["text"]} == {("The keepers", 1)}
    assert {one["page"] for one in told if LAMP in one["text"]} == {2}
    store = front_end.app.state.lift.records.store
    assert len([entry for batch in store.list("places/") for entry in batch]) == 1
    await front_end.client.delete(f"/v1/documents/{document['id']}")
    assert not [entry for batch in store.list("places/") for entry in batch]


async def test_a_document_without_headings_has_none(front_end: Any, engine: Any) -> None:
    engine.words = ["It", " is", " Edda", " Holm."]
    assert not {"heading", "page"} & (await told(front_end))[0].keys()
