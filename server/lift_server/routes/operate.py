"""For whoever runs it: /health (this process lives), /ready (every part answers), /metrics (Prometheus)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError

from lift_config.contract import WORKER_PREFIX
from lift_server import documents
from lift_server.state import CurrentState, State

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready")
async def ready(state: CurrentState) -> JSONResponse:
    """200 where an upload would be trained and a question answered."""
    workers = await _workers(state)
    engines = await state.engine.healthy()
    is_ready = bool(workers) and all(engines)
    parts: dict[str, Any] = {
        "redis": workers is not None,
        "engines": engines,
        "workers": workers or 0,
    }
    return JSONResponse({"ready": is_ready, "parts": parts}, status_code=200 if is_ready else 503)


@router.get("/metrics")
async def metrics(state: CurrentState) -> Response:
    counts = Counter([job.status async for _, job in documents.in_order(state)])
    return Response(state.metrics.page(counts), media_type=CONTENT_TYPE_LATEST)


async def _workers(state: State) -> int | None:
    """How many hold a lease; None where Redis is out of reach."""
    try:
        return len([key async for key in state.records.redis.scan_iter(f"{WORKER_PREFIX}*", count=1000)])
    except (RedisError, OSError):
        return None
