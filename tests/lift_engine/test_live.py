"""The plug-in inside a running vLLM. `engine` is the Settings of one that runs (max_loras 2, max_cpu_loras 3, so
that adapters really leave its memory); its model is a Llama-shaped folder, its store a local one."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.product import Product

from lift_config.contract import ENGINE_ADAPTERS_ROUTE, ENGINE_ALIVE_ROUTE, Manifest
from lift_config.machine import cpu_dtype
from lift_config.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
NewAdapter = Callable[[int], Manifest]
DECODED = 32  # tokens


@pytest.fixture
async def http(engine: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {engine.engine.api_key}"}
    async with aiohttp.ClientSession(engine.engine_urls[0], headers=headers) as session:
        yield session


@pytest.fixture
def new_adapter(engine: Settings, publish: Any, random_adapter: Any) -> NewAdapter:
    return lambda seed: publish(engine, random_adapter(Path(engine.base_model), seed))


async def load(http: aiohttp.ClientSession, adapter_id: str) -> dict[str, Any]:
    async with http.post(f"{ENGINE_ADAPTERS_ROUTE}/{adapter_id}") as reply:
        return {"status": reply.status, **await reply.json()}


async def delete(http: aiohttp.ClientSession, adapter_id: str) -> int:
    async with http.delete(f"{ENGINE_ADAPTERS_ROUTE}/{adapter_id}") as reply:
        return reply.status


async def ask(http: aiohttp.ClientSession, model: str, prompt: str = "The capital of France is", **more: Any) -> Any:
    body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, **more}
    async with http.post("/v1/completions", json=body) as reply:
        answer = await reply.json()
        return answer["choices"][0]["text"] if reply.status == 200 else reply.status


async def test_seed_and_a_prompt_of_several_chunks(engine: Settings, http: aiohttp.ClientSession) -> None:
    prompt = " ".join(f"Lamp {number} hangs in room {number * 7}." for number in range(90))
    seeded = {"temperature": 1, "seed": 7, "max_tokens": 16}
    in_chunks = await ask(http, engine.model_name, prompt, **seeded)
    from_prefix_cache = await ask(http, engine.model_name, prompt, **seeded)
    assert isinstance(in_chunks, str)
    assert in_chunks == from_prefix_cache
    assert in_chunks != await ask(http, engine.model_name, prompt, **(seeded | {"seed": 8}))


async def test_the_core_answers_the_probe_and_not_the_health(product: Product, http: aiohttp.ClientSession) -> None:
    async def probed(within_s: float) -> int:
        async with http.get(ENGINE_ALIVE_ROUTE, timeout=aiohttp.ClientTimeout(total=within_s)) as reply:
            return reply.status

    assert await probed(60) == 200
    children = product.children("engine-0")
    for child in children:
        os.kill(child, signal.SIGSTOP)
    try:
        async with http.get("/health") as reply:
            assert reply.status == 200
        with pytest.raises(TimeoutError):
            await probed(2)
    finally:
        for child in children:
            os.kill(child, signal.SIGCONT)
    assert await probed(60) == 200


async def test_load_answer_delete(engine: Settings, http: aiohttp.ClientSession, new_adapter: NewAdapter) -> None:
    adapter_id = new_adapter(1).adapter_id
    assert (await load(http, adapter_id))["state"] == "fetched"
    assert (await load(http, adapter_id))["state"] == "resident"
    adapted = await ask(http, adapter_id)
    assert isinstance(adapted, str)
    assert adapted != await ask(http, engine.model_name)

    store = Path(engine.resolved_store_url.removeprefix("file://"))
    shutil.rmtree(store / "adapters" / adapter_id)
    async with http.get(ENGINE_ADAPTERS_ROUTE) as reply:
        told = await reply.json()
    assert told["max_loras"] == engine.engine.max_loras
    assert adapter_id in {entry["adapter_id"] for entry in told["adapters"]}
    assert await delete(http, adapter_id) == 200
    assert await delete(http, adapter_id) == 200  # idempotent
    async with http.get(ENGINE_ADAPTERS_ROUTE) as reply:
        assert adapter_id not in {entry["adapter_id"] for entry in (await reply.json())["adapters"]}
    assert not (engine.home / "engine-0" / "adapters" / adapter_id).exists()


async def test_evicted_adapters_come_back(
    engine: Settings, http: aiohttp.ClientSession, new_adapter: NewAdapter
) -> None:
    ids = [new_adapter(seed).adapter_id for seed in range(10, 14)]
    first_answers = {}
    for adapter_id in ids:
        await load(http, adapter_id)
        first_answers[adapter_id] = await ask(http, adapter_id)
    assert len(set(first_answers.values())) > 1
    states = [(await load(http, adapter_id))["state"] for adapter_id in (ids[3], ids[2], ids[1], ids[0])]
    assert states == ["resident", "resident", "host", "fetched"]
    shutil.rmtree(engine.home / "engine-0" / "adapters" / ids[2])  # asked long ago: vLLM no longer holds it
    shutil.rmtree(engine.home / "engine-0" / "adapters" / ids[3])
    for adapter_id in ids:
        assert (await load(http, adapter_id))["status"] == 200
        assert await ask(http, adapter_id) == first_answers[adapter_id]
    async with http.get("/health") as reply:
        assert reply.status == 200


async def test_loads_evictions_and_removals_change_nobody_elses_answer(
    http: aiohttp.ClientSession, new_adapter: NewAdapter
) -> None:
    """Greedy, and alone in its batch, so that only the adapters around it change: a newer version of a document is but
    another adapter. vLLM once answered from a neighbour's weights here (vllm#47724)."""
    watched, *others = (new_adapter(seed).adapter_id for seed in range(40, 47))
    await load(http, watched)
    alone = await greedy(http, watched)
    assert alone != await greedy(http, others[0])
    for _ in range(3):
        answering = asyncio.create_task(greedy(http, watched))
        came_and_went = 0
        for adapter_id in itertools.cycle(others):  # more than slots and host memory hold: all are evicted, watched too
            assert (await load(http, adapter_id))["status"] == 200
            assert await delete(http, adapter_id) == 200
            came_and_went += 1
            if answering.done():
                break
        assert await answering == alone
        assert came_and_went > 1
        assert (await load(http, watched))["status"] == 200


async def greedy(http: aiohttp.ClientSession, adapter_id: str) -> list[str]:
    """64 tokens."""
    await load(http, adapter_id)
    body = {"model": adapter_id, "prompt": "The capital of France is", "temperature": 0, "logprobs": 0}
    async with http.post("/v1/completions", json=body | {"max_tokens": 64, "ignore_eos": True}) as reply:
        assert reply.status == 200
        tokens: list[str] = (await reply.json())["choices"][0]["logprobs"]["tokens"]
    assert len(tokens) == 64
    return tokens


async def test_who_else_is_in_the_batch_changes_near_ties_only(
    engine: Settings, http: aiohttp.ClientSession, publish: Any, random_adapter: Any
) -> None:
    """Questions to the base model and to both versions of the document come and go beside the watched answer; the
    newer version is loaded, asked and removed meanwhile."""
    files = [random_adapter(Path(engine.base_model), seed) for seed in (50, 51)]
    watched, newer = (publish(engine, one, key="5" * 32).adapter_id for one in files)
    await load(http, watched)
    alone = await decode(http, watched)
    assert (await decode(http, watched)).tokens == alone.tokens  # the same batch
    bound = near_tie(engine)
    assert sum(gap > bound for gap in alone.gaps) > DECODED / 2
    for _ in range(3):
        answering = asyncio.create_task(decode(http, watched))
        waves = await ask_beside(http, answering, [engine.model_name, newer, watched])
        assert waves > 2
        assert_same_but_for_near_ties(alone, await answering, bound)
        assert await delete(http, newer) == 200
    assert (await decode(http, watched)).tokens == alone.tokens
    await load(http, newer)
    assert (await decode(http, newer)).tokens != alone.tokens


@dataclass(frozen=True)
class Decoded:
    """Greedy: each token by its id, and how much less likely the second candidate was, in nats."""

    tokens: list[str]
    gaps: list[float]


async def decode(http: aiohttp.ClientSession, adapter_id: str) -> Decoded:
    body = {"model": adapter_id, "prompt": "The capital of France is", "temperature": 0, "max_tokens": DECODED}
    body |= {"ignore_eos": True, "logprobs": 2, "return_tokens_as_token_ids": True}
    async with http.post("/v1/completions", json=body) as reply:
        assert reply.status == 200
        told = (await reply.json())["choices"][0]["logprobs"]
    best = [sorted(one.values(), reverse=True) for one in told["top_logprobs"]]
    assert len(told["tokens"]) == len(best) == DECODED
    return Decoded(told["tokens"], [first - second for first, second, *_ in best])


async def ask_beside(http: aiohttp.ClientSession, answering: asyncio.Task[Decoded], models: list[str]) -> int:
    """Until it has ended: one, two and three questions at once, by turns, each of another length. How many waves."""
    for wave in itertools.count(1):
        asked = models[: 1 + wave % len(models)]
        for model in asked[1:]:  # adapters; a newer version is here before it is asked for
            assert (await load(http, model))["status"] == 200
        questions = (
            ask(http, model, f"Lamp {wave} hangs in room {number}, and", max_tokens=2 + 2 * number)
            for number, model in enumerate(asked)
        )
        answers = await asyncio.gather(*questions)
        assert all(isinstance(answer, str) for answer in answers), answers
        if answering.done():
            return wave
    raise AssertionError("unreachable")


def near_tie(engine: Settings) -> float:
    """Of bfloat16 a logit between 16 and 32 has steps of 0.125, and products of another shape round elsewhere: two of
    them. In float32 one adapter's values repeat to 0.00001 in whatever batch."""
    return 1e-3 if cpu_dtype(engine) == "float32" else 0.25


def assert_same_but_for_near_ties(alone: Decoded, beside: Decoded, bound: float) -> None:
    """Behind a near tie that went the other way they continue different texts."""
    for place, (expected, told) in enumerate(zip(alone.tokens, beside.tokens, strict=True)):
        if told != expected:
            assert alone.gaps[place] <= bound, f"token {place}: {told}, alone {expected} by {alone.gaps[place]} nats"
            return


async def test_an_adapter_gone_everywhere_ends_nothing(
    engine: Settings, http: aiohttp.ClientSession, new_adapter: NewAdapter
) -> None:
    adapter_id = new_adapter(20).adapter_id
    await load(http, adapter_id)
    for folder in (engine.home / "engine-0", Path(engine.resolved_store_url.removeprefix("file://"))):
        shutil.rmtree(folder / "adapters" / adapter_id)
    await load(http, new_adapter(21).adapter_id)
    reply = await load(http, adapter_id)
    if reply["status"] == 200:  # Redis got a copy at the first load
        assert reply["state"] == "fetched"
        assert isinstance(await ask(http, adapter_id), str)
    else:
        assert reply["error"]["code"] == "adapter_not_found"
        assert await ask(http, adapter_id) == 404


async def test_damaged_adapter_is_refused(
    engine: Settings, http: aiohttp.ClientSession, new_adapter: NewAdapter
) -> None:
    adapter_id = new_adapter(30).adapter_id
    store = Path(engine.resolved_store_url.removeprefix("file://"))
    weights = store / "adapters" / adapter_id / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    reply = await load(http, adapter_id)
    assert reply["status"] == 500
    assert reply["error"]["code"] == "adapter_corrupt"


async def test_unknown_and_malformed_ids(http: aiohttp.ClientSession) -> None:
    unknown = await load(http, f"{'0' * 32}-{'0' * 12}")
    assert unknown["status"] == 404
    assert unknown["error"]["code"] == "adapter_not_found"
    malformed = await load(http, "..%2F..%2Fetc")
    assert malformed["status"] in (400, 404)
    assert (await load(http, "A" * 32))["error"]["code"] == "invalid_adapter_id"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/adapters"),
        ("DELETE", "/adapters/some"),
        ("POST", "/invocations"),
    ],
)
async def test_vllms_own_adapter_routes_are_closed(http: aiohttp.ClientSession, method: str, path: str) -> None:
    async with http.request(method, path, json={"lora_name": "x", "lora_path": "/tmp", "name": "x"}) as reply:
        assert reply.status == 403
        assert (await reply.json())["error"]["code"] == "route_closed"


async def test_the_api_key_guards_our_routes(engine: Settings) -> None:
    async with aiohttp.ClientSession(engine.engine_urls[0]) as stranger, stranger.get(ENGINE_ADAPTERS_ROUTE) as reply:
        assert reply.status == 401
