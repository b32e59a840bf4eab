"""Settings → the FastAPI application. Its lifespan builds every resource, and gives it back at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from lift_config.settings import Settings
from lift_server import documents, errors, gauges, janitor
from lift_server.access import Access, Gate
from lift_server.convert.converter import Converter
from lift_server.engine import Engine
from lift_server.hotload import Hotload
from lift_server.keys import Keys
from lift_server.metrics import Metrics
from lift_server.middleware import Envelope
from lift_server.openapi.document import Api
from lift_server.outlook import Outlook
from lift_server.passages import Passages
from lift_server.pool import connect
from lift_server.records import Records
from lift_server.recover import recover
from lift_server.registry import Registry
from lift_server.routes import ask, files, models, offered, operate, page, uploads
from lift_server.routes import documents as documents_routes
from lift_server.routes import keys as keys_routes
from lift_server.state import State
from lift_server.store import open_store
from lift_server.watch import JobWatcher

if TYPE_CHECKING:
    from lift_server.tracing import Traces

STOP_AGAIN_S = 1.0


def create_app(settings: Settings) -> FastAPI:
    """ValueError without a Redis: only `lift-serve up` brings its own."""
    if not settings.redis_url:
        raise ValueError("redis_url: set REDIS_URL, or start everything with `lift-serve up`")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(settings) as app.state.lift:
            yield

    # FastAPI's own /docs and /redoc send browsers to a CDN; routes/page.py has ours.
    app = Api(lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None)
    app.add_middleware(Access)
    app.add_middleware(Envelope)  # the outer one
    errors.install(app)
    for routes in (documents_routes, files, uploads, ask, models, keys_routes, offered, operate, page):
        app.include_router(routes.router)
    return app


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[State]:
    async with AsyncExitStack() as resources:
        at_once = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))  # Redis was restarted meanwhile
        redis = connect(settings.redis_url, decode_responses=True, retry=at_once)
        resources.push_async_callback(redis.aclose)
        blobs = connect(settings.redis.blobs_url or settings.redis_url)
        resources.push_async_callback(blobs.aclose)
        channel = Redis.from_url(settings.redis_url, decode_responses=True, retry=Retry(NoBackoff(), 0))
        resources.push_async_callback(channel.aclose)
        engine = Engine(settings.engine_urls, settings.engine.api_key)
        resources.push_async_callback(engine.close)
        registry = Registry(redis, engine, settings.model_name, settings.base_revision)
        records = Records(redis, open_store(settings.resolved_store_url))
        keys = Keys(redis, records.store)
        metrics = Metrics(settings.slo)
        hotload = Hotload(engine, records, blobs, metrics)
        passages = Passages()
        changed = partial(_changed, hotload, passages)
        watcher = JobWatcher(channel, records, changed, partial(recover, records, keys))
        traces = _traces(settings.otlp_endpoint)
        if traces:
            resources.push_async_callback(traces.close)
        gate = Gate(redis, keys, settings.limits)
        state = State(
            settings,
            records,
            engine,
            hotload,
            watcher,
            passages,
            Outlook(records),
            metrics,
            gate,
            Converter(),
            {},
            traces,
            started_s=time.time(),
        )
        resources.push_async_callback(hotload.close)
        await recover(records, keys)
        if settings.engine.registered:
            await registry.look()
        for work in (
            *([registry.follow()] if settings.engine.registered else []),
            watcher.run(),
            documents.sweep_for_ever(state),
            gauges.count_for_ever(state),
            janitor.clean_for_ever(settings, records, engine, blobs, hotload.is_in_use),
        ):
            task = asyncio.create_task(work)
            resources.push_async_callback(_stop, task)
        yield state


async def _changed(hotload: Hotload, passages: Passages, job_key: str) -> None:
    """Another server may have deleted it, and this one have its text in memory."""
    if await hotload.job_changed(job_key) is None:
        await passages.forget(job_key)


def _traces(endpoint: str) -> Traces | None:
    if not endpoint:
        return None
    from lift_server.tracing import Traces  # with it comes all of OpenTelemetry

    return Traces.to(endpoint)


async def _stop(task: asyncio.Task[None]) -> None:
    """Asked until it ends: on Python 3.11 `asyncio.wait_for`, and with it redis-py, can swallow a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_AGAIN_S)
    with suppress(asyncio.CancelledError):
        task.result()
