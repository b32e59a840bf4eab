"""What a cluster is scaled by, read from a real Redis and from /metrics as the server writes it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from redis.asyncio import Redis

from lift_config.contract import (
    BULK_STREAM,
    ENGINES_KEY,
    JOBS_GROUP,
    JOBS_STREAM,
    WORKER_PREFIX,
    AdapterState,
    EngineRecord,
    engine_redis_key,
    job_redis_key,
    turns_redis_key,
)
from lift_config.phases import Timeline
from lift_config.settings import SloSettings
from lift_server.cluster.load import Watch, answered, quantile, running
from lift_server.metrics import Metrics


@pytest.fixture
async def decoding(redis: Redis, valkey_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(SloSettings())


@pytest.fixture
async def metrics_url(metrics: Metrics) -> AsyncIterator[str]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(body=metrics.page(None))

    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    await runner.cleanup()


def ask(metrics: Metrics, ttft_s: float, times: int, *, stream: bool = True, state: str = "host") -> None:
    for _ in range(times):
        metrics.answered(ttft_s, Timeline(), model="m", endpoint="chat", state=AdapterState(state), stream=stream)


async def test_the_first_token_is_that_of_streamed_questions_to_trained_documents_since_the_last_looks(
    decoding: Redis, metrics: Metrics, metrics_url: str
) -> None:
    watch = Watch(decoding, metrics_url)
    ask(metrics, 30.0, 100)
    assert (await watch.load()).ttft_s is None  # of before it looked
    ask(metrics, 0.2, 18)
    ask(metrics, 0.9, 2)
    ask(metrics, 30.0, 100, stream=False)
    ask(metrics, 30.0, 100, state="training")
    assert (await watch.load()).ttft_s == 0.25
    ask(metrics, 0.9, 1)
    assert (await watch.load()).ttft_s == 1.0
    watch.forget()
    assert (await watch.load()).ttft_s is None


async def test_a_server_that_is_away_tells_nothing(decoding: Redis) -> None:
    assert (await Watch(decoding, "http://127.0.0.1:9/metrics").load()).ttft_s is None


def test_a_server_that_was_started_again_counts_from_nothing(metrics: Metrics) -> None:
    ask(metrics, 0.2, 50)
    before = answered(metrics.page(None).decode())
    assert quantile(answered(Metrics(SloSettings()).page(None).decode()) - before) is None


def test_first_tokens_later_than_the_last_bound_are_late(metrics: Metrics) -> None:
    ask(metrics, 10_000, 20)
    assert quantile(answered(metrics.page(None).decode())) == math.inf


async def test_how_long_the_oldest_document_waits_that_no_worker_was_given(decoding: Redis) -> None:
    watch = Watch(decoding, "http://127.0.0.1:9/metrics")
    assert (await watch.load()).oldest_wait_s == 0
    now_ms = (await decoding.time())[0] * 1000
    await decoding.xadd(JOBS_STREAM, {"job": "a"}, id=f"{now_ms - 60_000}-0")
    await decoding.xadd(JOBS_STREAM, {"job": "b"}, id=f"{now_ms - 20_000}-0")
    load = await watch.load()
    assert (load.waiting, load.taken) == (2, 0)
    assert 60 <= load.oldest_wait_s < 70
    await decoding.xgroup_create(JOBS_STREAM, JOBS_GROUP, id="0")
    await decoding.xreadgroup(JOBS_GROUP, "w", {JOBS_STREAM: ">"}, count=1)
    load = await watch.load()
    assert (load.waiting, load.taken) == (1, 1)
    assert 20 <= load.oldest_wait_s < 30


async def test_a_long_document_waits_since_its_upload(decoding: Redis) -> None:
    """Bulk has turns, which tell no time."""
    now_s = (await decoding.time())[0]
    await decoding.zadd(turns_redis_key(BULK_STREAM), {"a": 1.0, "b": 2.0})
    await decoding.hset(job_redis_key("a"), "received_s", str(now_s - 60))
    load = await Watch(decoding, "http://127.0.0.1:9/metrics").load()
    assert load.waiting == 2
    assert 60 <= load.oldest_wait_s < 70


async def test_those_run_that_keep_their_lease(decoding: Redis) -> None:
    assert await running(decoding) == {"engine": 0, "worker": 0}
    await decoding.sadd(ENGINES_KEY, "http://a:1", "http://b:1")
    await decoding.set(engine_redis_key("http://a:1"), EngineRecord("m", "r").to_json())
    await decoding.set(f"{WORKER_PREFIX}w", "1")
    assert await running(decoding) == {"engine": 1, "worker": 1}
