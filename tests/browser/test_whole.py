"""The whole journey, with the stand-ins and with the real server: only the address and the patience differ."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.browser.conftest import Open
from tests.browser.steps import whole_journey
from tests.product import Product

from lift_config.contract import JOBS_STREAM

LEARNED_MS = 900_000  # as the other tests with a running vLLM give a training
TOLD_MS = 120_000


async def test_with_the_stand_ins(open_page: Open, worker: Any) -> None:
    learning = asyncio.create_task(learn(worker, watched := asyncio.Event()))
    await whole_journey(await open_page(), "Station log", watched)
    await learning


async def learn(worker: Any, watched: asyncio.Event) -> None:
    await worker.redis.xread({JOBS_STREAM: "0"}, block=5000)
    job = await worker.claim(await worker.newest_job())
    await worker.tell(job, ("What burns in the lamp?", "rapeseed oil"), losses=(3.0, 2.0, 1.0))
    await watched.wait()
    await worker.publish(job, "sketch")
    await worker.publish(await worker.job(job.key))


@pytest.mark.engine
@pytest.mark.timeout(2 * LEARNED_MS / 1000)
async def test_with_the_real_server(visit: Open, product: Product) -> None:
    page = await visit(product.url)
    await whole_journey(page, "Journey's log", asyncio.Event(), learned_ms=LEARNED_MS, told_ms=TOLD_MS)
