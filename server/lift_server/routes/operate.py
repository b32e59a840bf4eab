"""For whoever runs it: /health (this process lives), /ready (every part answers), /metrics (Prometheus)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError

from lift_server import gauges, store
from lift_server.state import CurrentState, State

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready")
async def ready(state: CurrentState) -> JSONResponse:
    """200 where what was uploaded is trained and a question answered, for which one engine will do. A full disk takes
    no uploads, which is told, and is no reason to send questions elsewhere."""
    workers = await _workers(state)
    engines = await state.engine.healthy()
    is_ready = bool(workers) and any(engines)
    parts: dict[str, Any] = {
        "redis": workers is not None,
        "engines": engines,
        "workers": workers or 0,
        "disk": await store.has_room(state.settings),
    }
    return JSONResponse({"ready": is_ready, "parts": parts}, status_code=200 if is_ready else 503)


@router.get("/metrics")
async def metrics(state: CurrentState) -> Response:
    queues = await gauges.queues(state.records.redis)
    free_bytes = await store.free_bytes(state.settings)
    return Response(
        state.metrics.page(queues, free_bytes, hanging=state.engine.hanging(), away=state.engine.away()),
        media_type=CONTENT_TYPE_LATEST,
    )


async def _workers(state: State) -> int | None:
    """How many hold a lease; None where Redis is out of reach."""
    try:
        return await state.records.workers()
    except (RedisError, OSError):
        return None
