"""The product from a user's side, with a real vLLM and a real training: upload, wait, ask.

The tests share one document trained with recipe `max`; what may change it, or needs the others done, comes last.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from tests.product import BASE, Ask, Json, Product, Trained

from lift_config.contract import ADAPTER_ID, AdapterState
from lift_config.phases import Phase
from lift_config.prompts import frame
from lift_config.recipe import load_recipes
from lift_config.settings import Settings
from lift_server.context import EXCERPT_TOKENS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

MAX_VERSIONS = [stage.name for stage in load_recipes()["max"].stages()]
MIN_RIGHT = 5  # of 14: a floor for regressions; docs/benchmarks has three seeds
CONTEXT_WINDOW = 2048  # the engine's on a CPU
TEXT_TOKENS = 200  # fewer than the invented document has; far more than a question


# ---- one document, from upload to answer --------------------------------------------------------------------------


def test_the_untrained_model_knows_none_of_it(invented: Json, ask: Ask) -> None:
    answers = [ask(qa["question"]) for qa in invented["qa"]]
    assert not [qa["question"] for qa, answer in zip(invented["qa"], answers, strict=True) if is_right(qa, answer)]
    assert {lift(answer)["answered_from"] for answer in answers} == {"base"}
    assert {lift(answer)["adapter_id"] for answer in answers} == {None}


def test_the_upload_becomes_ready_and_says_how_far_it_is(trained: Trained) -> None:
    statuses = [document["status"] for document in trained.seen]
    assert statuses == sorted(statuses, key=["queued", "training", "ready"].index)
    assert statuses[0] == "queued"
    assert "training" in statuses
    progress = [document["progress"] for document in trained.seen if document["status"] != "ready"]
    for name in ("fraction", "segments", "tasks", "steps"):
        values = [one[name] for one in progress]
        assert values == sorted(values), name
        assert len(set(values)) > 1, name
    assert {"queue", "synthesize"} <= {one["phase"] for one in progress}
    assert any(one["eta_s"] for one in progress)


def test_a_first_version_answers_while_better_ones_are_trained(trained: Trained) -> None:
    first = next(document for document in trained.seen if document["status"] == "ready")
    assert first["unfinished"]
    assert (first["adapter"]["version"], first["adapter"]["recipe"]) == (1, "sketch")
    versions = trained.document["adapters"]
    assert [version["recipe"] for version in versions] == MAX_VERSIONS
    assert versions[0]["id"] == first["adapter"]["id"]
    assert len({version["id"] for version in versions}) == len(versions)
    for earlier, later in pairwise(versions):
        assert earlier["ready_s"] < later["ready_s"]
        assert earlier["tasks"] <= later["tasks"]
        assert earlier["steps"] < later["steps"]
    assert {"refine"} < {document["progress"]["phase"] for document in trained.seen}
    assert trained.document["progress"]["fraction"] == 1
    synthesis = trained.document["synthesis"]
    assert 0 < synthesis["computed_prompt_tokens"] < synthesis["prompt_tokens"] / 2  # the rest: vLLM's prefix cache


def test_the_ready_document_tells_of_itself(trained: Trained, invented: Json, client: OpenAI) -> None:
    document = trained.document
    content = client.get(f"/documents/{trained.id}/content", cast_to=httpx2.Response).content
    assert content.decode() == invented["text"]
    assert (document["filename"], document["bytes"]) == ("handbook.txt", len(content))
    assert (document["title"], document["metadata"]) == (invented["title"], {"shelf": "7"})
    assert document["tokens"] > TEXT_TOKENS
    adapter = document["adapter"]
    assert ADAPTER_ID.fullmatch(adapter["id"])
    assert (adapter["version"], adapter["recipe"], adapter["base_model"]) == (len(MAX_VERSIONS), "max", BASE)
    assert f"{BASE}:{trained.id}" in [model.id for model in client.models.list()]


def test_the_first_version_waits_for_no_generator(trained: Trained) -> None:
    timeline = trained.document["timeline"]
    assert set(timeline) == {"queue", "segment", "synthesize", "train", "publish", "refine"}
    assert all(span["start_s"] <= span["end_s"] for span in timeline.values())
    in_order = [timeline[name]["start_s"] for name in ("queue", "segment", "synthesize", "train", "publish")]
    assert in_order == sorted(in_order)
    assert timeline["synthesize"]["end_s"] < timeline["train"]["end_s"]
    draft, *_, last = trained.document["adapters"]
    assert 0 < draft["tasks"] < last["tasks"]
    assert timeline["publish"]["end_s"] <= draft["ready_s"] <= last["ready_s"] <= timeline["refine"]["end_s"] + 0.01


def test_the_adapter_beats_the_text_in_the_prompt(
    trained: Trained, invented: Json, engine: Settings, engine_client: OpenAI
) -> None:
    engine_client.post(f"/lift/adapters/{trained.adapter_id}", cast_to=object)
    adapter = gold_nll(engine, engine_client, trained.adapter_id, invented)
    in_context = gold_nll(engine, engine_client, BASE, invented, invented["text"])
    closed_book = gold_nll(engine, engine_client, BASE, invented)
    print(f"nats per gold-answer token: {closed_book=:.3f} {in_context=:.3f} {adapter=:.3f}")  # noqa: T201 shown by -s
    assert adapter < in_context < closed_book


def test_questions_are_answered_from_the_adapter(trained: Trained, invented: Json, ask: Ask, product: Product) -> None:
    logged = len(product.log("engine-0"))
    answers = [ask(qa["question"], document_id=trained.id) for qa in invented["qa"]]
    for answer in answers:
        assert lift(answer)["answered_from"] == "adapter"
        assert lift(answer)["adapter_id"] == trained.adapter_id
        assert answer.usage.prompt_tokens < TEXT_TOKENS
        assert answer.model == BASE
    asked = [line for line in product.log("engine-0")[logged:].splitlines() if "Received request chatcmpl-" in line]
    assert len(asked) == len(answers)
    assert all(f"lora_name='{trained.adapter_id}'" in line for line in asked)
    right = [is_right(qa, answer) for qa, answer in zip(invented["qa"], answers, strict=True)]
    print(f"{sum(right)} of {len(right)} right")  # noqa: T201 shown by -s
    assert sum(right) >= MIN_RIGHT


@pytest.mark.parametrize("more", [{}, {"stream_options": {"include_usage": True}}], ids=["finish", "usage"])
def test_a_stream_carries_lift_on_its_last_chunk(trained: Trained, ask: Ask, more: Json) -> None:
    model = f"{BASE}:{trained.id}"
    question = "Who founded Velmora Station?"
    chunks = list(ask(question, model=model, stream=True, **more))
    assert {chunk.model for chunk in chunks} == {model}
    assert not any("lift" in chunk.model_extra for chunk in chunks[:-1])
    assert chunks[-1].model_extra["lift"]["adapter_id"] == trained.adapter_id
    assert chunks[-1].model_extra["lift"]["ttft_s"] > 0
    assert (chunks[-1].usage is not None) == bool(more)
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said == ask(question, document_id=trained.id).choices[0].message.content


def test_mode_context_puts_the_text_into_the_prompt(trained: Trained, ask: Ask) -> None:
    answer = ask("Who founded Velmora Station?", document_id=trained.id, lift={"mode": "context"})
    assert lift(answer)["answered_from"] == "context"
    assert lift(answer)["adapter_id"] is None
    assert answer.usage.prompt_tokens > trained.document["tokens"]


def test_the_same_content_again_is_ready_at_once_and_trains_nothing(
    trained: Trained, invented: Json, client: OpenAI, ask: Ask, product: Product
) -> None:
    claims = product.log("worker-0").count(f"job {trained.job_key}: claimed")
    body = {"text": f"\ufeff{invented['text']}", "title": invented["title"], "recipe": "max"}
    again: Any = client.post("/documents", cast_to=object, body=body)
    assert again["id"] != trained.id
    assert (again["status"], again["adapter"]) == ("ready", trained.document["adapter"])
    answer = ask("What is the station's cat called?", document_id=again["id"])
    assert lift(answer)["adapter_id"] == trained.adapter_id
    client.delete(f"/documents/{again['id']}", cast_to=object)
    assert lift(ask("What is the station's cat called?", document_id=trained.id))["answered_from"] == "adapter"
    assert product.log("worker-0").count(f"job {trained.job_key}: claimed") == claims


@pytest.mark.parametrize("stream", [False, True])
def test_evidence_names_the_segment_that_has_the_answer(invented: Json, client: OpenAI, ask: Ask, stream: bool) -> None:
    """The answer is given by force, since what is judged is not how it came about. No training is waited for."""
    body = {"text": invented["text"], "title": invented["title"], "recipe": "fast"}
    uploaded: Any = client.post("/documents", cast_to=object, body=body)
    found = {}
    for said in ("Velmora Station was founded by Ilse Brandvik.", "Velmora Station was founded by Anna Keller."):
        wanted: Json = {"document_id": uploaded["id"], "lift": {"mode": "context", "evidence": True}, "stream": stream}
        forced = {"structured_outputs": {"choice": [said]}}
        answer: Any = ask("Who founded Velmora Station?", **wanted, extra_body=forced)
        last = list(answer)[-1] if stream else answer
        assert lift(last)["evidence_s"] > 0
        found[said] = lift(last)["evidence"]
    right, wrong = (evidence[0] for evidence in found.values())
    print(f"{right['score']=} {wrong['score']=} {wrong['verdict']=}")  # noqa: T201 shown by -s
    assert (right["verdict"], right["segment"]) == ("supports", 0)
    assert invented["text"][right["start"] : right["end"]] == right["text"]
    assert "Ilse Brandvik" in right["text"]
    assert wrong["verdict"] != "supports"
    client.delete(f"/documents/{uploaded['id']}", cast_to=object)


def test_hybrid_puts_the_text_beside_the_adapter(trained: Trained, ask: Ask) -> None:
    answer = ask("Who founded Velmora Station?", document_id=trained.id, lift={"mode": "hybrid"})
    assert lift(answer)["answered_from"] == "hybrid"
    assert lift(answer)["adapter_id"] == trained.adapter_id
    assert answer.usage.prompt_tokens > trained.document["tokens"]


def test_a_recipe_asked_for_answers_from_its_version(trained: Trained, ask: Ask) -> None:
    answer = ask("Who founded Velmora Station?", document_id=trained.id, lift={"recipe": "sketch"})
    assert lift(answer)["adapter_id"] == trained.document["adapters"][0]["id"]
    with pytest.raises(openai.BadRequestError) as refused:
        ask("Who?", document_id=trained.id, lift={"recipe": "paper"})  # its rank: 128
    assert (refused.value.code, refused.value.param) == ("invalid_value", "lift.recipe")


def test_a_budget_is_met_or_refused(trained: Trained, client: OpenAI, ask: Ask) -> None:
    ready = ask("Who founded Velmora Station?", document_id=trained.id, lift={"ttft_budget_s": 1})
    assert lift(ready)["adapter_id"] == trained.adapter_id
    new: Any = client.post("/documents", cast_to=object, body={"text": "The mast of the Arvenna is made of ash wood."})
    with pytest.raises(openai.ConflictError) as refused:
        ask("What is the mast made of?", document_id=new["id"], lift={"ttft_budget_s": 0.01})
    assert refused.value.code == "ttft_budget_unmet"
    client.delete(f"/documents/{new['id']}", cast_to=object)


def test_a_seed_and_a_long_question_do_not_end_the_engine(trained: Trained, ask: Ask, product: Product) -> None:
    question = " ".join(f"Lamp {number} hangs in room {number * 7}." for number in range(90)) + " Which lamp?"
    engine_pid = product.pid("engine-0")
    for document_id in (None, trained.id):
        answer = ask(question, document_id=document_id, seed=7, temperature=1)
        assert answer.usage.prompt_tokens > 2 * 512  # the engine reads 512 tokens in a step
    assert lift(ask("Who repairs the generator?", document_id=trained.id))["answered_from"] == "adapter"
    assert product.pid("engine-0") == engine_pid


# ---- what is refused ----------------------------------------------------------------------------------------------

UNKNOWN = f"doc_{'0' * 24}"


@pytest.mark.parametrize(
    ("fields", "error", "code", "param"),
    [
        ({"document_id": UNKNOWN}, openai.NotFoundError, "document_not_found", "document_id"),
        ({"document_id": "../../etc/passwd\0"}, openai.NotFoundError, "document_not_found", "document_id"),
        ({"model": "gpt-4"}, openai.NotFoundError, "model_not_found", "model"),
        ({"model": f"{BASE}:{UNKNOWN}"}, openai.NotFoundError, "document_not_found", "document_id"),
        ({"lift": {"mode": "guess"}}, openai.BadRequestError, "invalid_value", "lift.mode"),
        ({"lift": {"speed": 1}}, openai.BadRequestError, "unknown_parameter", "lift.speed"),
        ({"temperature": -1}, openai.BadRequestError, "invalid_request", "temperature"),  # the engine's own refusal
    ],
)
def test_a_bad_question_is_refused(
    ask: Ask, fields: Json, error: type[openai.APIStatusError], code: str, param: str
) -> None:
    with pytest.raises(error) as refused:
        ask("Who?", **fields)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert refused.value.message


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"text": ""}, 400, "empty_document", "text"),
        ({"text": "Hm."}, 400, "document_too_short", "text"),
        ({"text": "%PDF-1.7 and so on"}, 415, "unsupported_format", "text"),
        ({"text": "Ships pass by.", "recipe": "best"}, 400, "invalid_value", "recipe"),
        ({"text": "Ships pass by.", "recipe": "paper"}, 400, "invalid_value", "recipe"),  # its rank: 128
        ({"text": "Ships pass by.", "base_model": "gpt-4"}, 400, "invalid_value", "base_model"),
    ],
)
def test_a_bad_upload_is_refused(client: OpenAI, fields: Json, status: int, code: str, param: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.post("/documents", cast_to=object, body=fields)
    assert (refused.value.status_code, refused.value.code, refused.value.param) == (status, code, param)


# ---- a document longer than the context window --------------------------------------------------------------------


def test_a_document_longer_than_the_context_window(
    client: OpenAI, ask: Ask, watch: Callable[[str], list[Json]]
) -> None:
    body = {"text": long_text(), "title": "Log of the Arvenna", "recipe": "fast"}
    uploaded: Any = client.post("/documents", cast_to=object, body=body)
    document = watch(uploaded["id"])[-1]
    assert document["status"] == "ready", document["error"]
    assert document["tokens"] > CONTEXT_WINDOW
    answer = ask("Where did the ship trade on day 3?", document_id=document["id"])
    assert lift(answer)["adapter_id"] == document["adapter"]["id"]
    with pytest.raises(openai.BadRequestError) as refused:
        ask("Where did the ship trade on day 3?", document_id=document["id"], lift={"mode": "context"})
    assert refused.value.code == "context_length_exceeded"
    hybrid = ask("Where did the ship trade on day 3?", document_id=document["id"], lift={"mode": "hybrid"})
    assert lift(hybrid)["answered_from"] == "hybrid"
    assert EXCERPT_TOKENS * 0.7 < hybrid.usage.prompt_tokens < EXCERPT_TOKENS * 1.3


def test_a_conversation_moves_from_the_text_to_the_adapter(
    client: OpenAI, ask: Ask, watch: Callable[[str], list[Json]]
) -> None:
    """The question is asked as soon as the upload is answered, and waits for no training."""
    body = {"text": "The Arvenna's mast is made of ash wood. Her cook is called Odd Kverne.", "recipe": "fast"}
    uploaded: Any = client.post("/documents", cast_to=object, body=body)
    first = ask("What is the mast made of?", document_id=uploaded["id"], lift={"mode": "auto"})
    assert lift(first)["answered_from"] == "context"
    document = watch(uploaded["id"])[-1]
    second = ask("What is the mast made of?", document_id=uploaded["id"], lift={"mode": "auto"})
    assert lift(second)["answered_from"] == "adapter"
    assert lift(second)["adapter_id"] == document["adapter"]["id"]


def test_several_documents_are_asked_as_one(client: OpenAI, ask: Ask, watch: Callable[[str], list[Json]]) -> None:
    texts = {
        "Log of Karsund": "The lamp of Karsund burns seal oil.",
        "Log of Ostrand": "The quay of Ostrand has nine cranes.",
    }
    uploaded: list[Any] = [
        client.post("/documents", cast_to=object, body={"title": title, "text": text, "recipe": "fast"})
        for title, text in texts.items()
    ]
    ids = [document["id"] for document in uploaded]
    wanted: Json = {"recipe": "fast", "max_wait_s": 600}
    first = ask("What does the lamp of Karsund burn?", extra_body={"document_ids": ids}, lift=wanted)
    assert lift(first)["answered_from"] == "adapter"
    assert sorted(lift(first)["document_ids"]) == sorted(ids)
    made = watch(lift(first)["document_id"])[-1]
    assert (made["title"], made["adapter"]["id"]) == ("Log of Karsund; Log of Ostrand", lift(first)["adapter_id"])
    again: Json = {"extra_body": {"document_ids": ids[::-1]}, "stream": True}
    chunks = list(ask("How many cranes has the quay of Ostrand?", **again))
    assert lift(chunks[-1])["adapter_id"] == lift(first)["adapter_id"]
    client.delete(f"/documents/{ids[0]}", cast_to=object)
    with pytest.raises(openai.NotFoundError):
        ask("How many cranes has the quay of Ostrand?", document_id=made["id"])
    client.delete(f"/documents/{ids[1]}", cast_to=object)


def test_a_new_document_goes_before_a_refinement(client: OpenAI, ask: Ask, watch: Callable[[str], list[Json]]) -> None:
    texts = ["The lamp of Karsund burns seal oil. Its keeper is Ivar Bolt.", "The quay of Ostrand has nine cranes."]
    slow: Any = client.post("/documents", cast_to=object, body={"text": texts[0], "recipe": "max"})
    assert lift(ask("Who keeps the lamp?", document_id=slow["id"]))["adapter_version"] == 1
    quick: Any = client.post("/documents", cast_to=object, body={"text": texts[1], "recipe": "fast"})
    ask("How many cranes has the quay?", document_id=quick["id"])
    assert client.get(f"/documents/{slow['id']}", cast_to=object)["unfinished"]  # type: ignore[index]
    assert [adapter["recipe"] for adapter in watch(slow["id"])[-1]["adapters"]] == MAX_VERSIONS


# ---- what the operator sees ---------------------------------------------------------------------------------------


def test_metrics_show_ttft_by_adapter_state_and_name_no_document(trained: Trained, product: Product) -> None:
    page = httpx2.get(f"{product.url}/metrics").text
    counts = {
        (sample.labels["adapter_state"], sample.labels["stream"])
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "lift_time_to_first_token_seconds_count" and sample.value
    }
    assert {state for state, _ in counts} <= {state.value for state in AdapterState}
    assert {("none", "false"), ("resident", "true"), ("resident", "false")} <= counts
    phases = {phase.value for phase in Phase if f'phase="{phase.value}"' in page}
    assert {"queue", "segment", "synthesize", "train", "publish", "load", "prefill"} <= phases
    assert "doc_" not in page
    assert trained.adapter_id not in page


# ---- helpers ------------------------------------------------------------------------------------------------------


def lift(answer: Any) -> Json:
    """How an answer came about."""
    values: Json = answer.model_extra["lift"]
    return values


def is_right(qa: Json, answer: Any) -> bool:
    said = answer.choices[0].message.content.lower()
    return any(gold.lower() in said for gold in qa["answers"])


def gold_nll(engine: Settings, client: OpenAI, model: str, document: Json, text: str | None = None) -> float:
    """Nats per token of the first gold answers, as the running engine computes them."""
    from transformers import AutoTokenizer  # seconds; here alone

    tokenizer = AutoTokenizer.from_pretrained(engine.base_model)
    prompts, golds = [], []
    for qa in document["qa"]:
        messages = frame([{"role": "user", "content": qa["question"]}], document["title"], text)
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        gold = tokenizer(qa["answers"][0], add_special_tokens=False)["input_ids"]
        prompts.append(tokenizer(prompt, add_special_tokens=False)["input_ids"] + gold)
        golds.append(gold)
    done = client.completions.create(model=model, prompt=prompts, max_tokens=1, extra_body={"prompt_logprobs": 0})
    choices = sorted(done.choices, key=lambda choice: choice.index)
    logprobs = [
        at[str(token)]["logprob"]
        for choice, gold in zip(choices, golds, strict=True)
        for at, token in zip(choice.model_extra["prompt_logprobs"][-len(gold) :], gold, strict=True)
    ]
    return -sum(logprobs) / len(logprobs)


def long_text() -> str:
    """Some 2,600 tokens in few sentences: the fast recipe's work grows with their number."""
    invent = random.Random(0)
    syllables = [
        "bar",
        "cor",
        "dun",
        "fel",
        "gim",
        "hol",
        "jor",
        "kal",
        "lem",
        "mor",
        "nir",
        "pel",
        "sul",
        "tor",
        "ven",
    ]

    def name() -> str:
        return "".join(invent.sample(syllables, 2)).capitalize()

    return " ".join(
        f"On day {day} the ship Arvenna lay at {name()}, where the trader {name()} of {name()} gave {day * 3} barrels "
        f"of salt for {day * 7} bolts of cloth, the pilot {name()} came on board, and the captain wrote that the lamp "
        f"on {name()} was out."
        for day in range(1, 41)
    )
