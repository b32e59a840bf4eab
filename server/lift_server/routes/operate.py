"""For whoever runs it: /health (this process lives), /ready (every part answers), /metrics (Prometheus)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from obstore.exceptions import BaseError as StoreError
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError

from lift_server import gauges, store
from lift_server.state import CurrentState, State

router = APIRouter()

ANSWER_S = 2.0  # an engine gets as long (engine.HEALTH_S)

T = TypeVar("T")


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready")
async def ready(state: CurrentState) -> JSONResponse:
    """200 where what was uploaded is trained and a question answered, for which one engine will do. A full disk, and a
    store that is read-only, take no uploads, which is told, and is no reason to send questions elsewhere."""
    workers, has_blobs, has_room, engines = await asyncio.gather(
        _answer(state.records.workers()),
        _answer(state.hotload.reach_blobs()),
        _answer(_has_room(state)),
        state.engine.healthy(),
    )
    is_ready = bool(workers) and bool(has_blobs) and has_room is not None and any(engines)
    parts: dict[str, Any] = {
        "redis": workers is not None,
        "blobs": bool(has_blobs),
        "store": has_room is not None,
        "engines": engines,
        "workers": workers or 0,
        "disk": has_room is not False,
        "writes": state.records.are_stored,
    }
    return JSONResponse({"ready": is_ready, "parts": parts}, status_code=200 if is_ready else 503)


@router.get("/metrics")
async def metrics(state: CurrentState) -> Response:
    queues = await gauges.queues(state.records.redis)
    free_bytes = await _answer(store.free_bytes(state.records.store, state.settings))
    return Response(
        state.metrics.page(queues, free_bytes, hanging=state.engine.hanging(), away=state.engine.away()),
        media_type=CONTENT_TYPE_LATEST,
    )


async def _has_room(state: State) -> bool:
    """Asked for an object first: free space is told also of a folder that cannot be read, and never of a service."""
    await state.records.size_bytes(store.NO_OBJECT)
    return await store.has_room(state.records.store, state.settings)


async def _answer(asking: Awaitable[T]) -> T | None:
    """None where the part is out of reach, or takes too long."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await asking
    except (RedisError, StoreError, OSError):  # TimeoutError is one of these
        return None
