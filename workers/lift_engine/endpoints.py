"""vLLM's endpoint plug-in: the private HTTP routes by which the server loads and removes adapters.

In: an adapter id (contract.py, ENGINE_ADAPTERS_ROUTE). Out: its state, or an error in OpenAI's envelope; whether vLLM's
core is alive. vLLM's own routes that load an adapter from any path are closed.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from argparse import Namespace
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send
from vllm.lora.resolver import LoRAResolverRegistry

from lift_config.contract import ADAPTER_ID, ENGINE_ADAPTERS_ROUTE, ENGINE_ALIVE_ROUTE, EngineRecord
from lift_config.settings import Settings
from lift_engine.adapters import REDIS_TIMEOUT_S, AdapterError, AdapterInUse
from lift_engine.hotload import HotLoader, Residency
from lift_engine.launch import INDEX_VARIABLE
from lift_engine.liveness import end_with
from lift_engine.registration import Core, stay_registered
from lift_engine.resolver import RESOLVER_NAME

router = APIRouter()
CLOSED_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/invocations")
OPEN_PATHS = frozenset({"/health"})


class LiftEndpoints:
    """Entry point `vllm.endpoint_plugins`."""

    name = "lift_endpoints"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.include_router(router)
        app.add_middleware(ClosedRoutes, api_key=Settings().engine.api_key)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        folder = LoRAResolverRegistry.get_resolver(RESOLVER_NAME).folder
        await folder.clear_leftovers()
        residency = Residency(args.max_loras, args.max_cpu_loras)
        state.lift_hot_loader = HotLoader(folder, state.openai_serving_models, engine_client, residency)
        await state.lift_hot_loader.make_room()
        state.lift_hot_loader.start_to_restore()
        state.lift_liveness = asyncio.create_task(end_with(engine_client))
        if (settings := Settings()).engine.registered:
            state.lift_registration = asyncio.create_task(_registration(settings, engine_client))


async def _registration(settings: Settings, core: Core) -> None:
    address = settings.engine_address(int(os.environ.get(INDEX_VARIABLE, "0")))
    record = EngineRecord(settings.model_name, settings.base_revision)
    async with Redis.from_url(settings.redis_url, socket_timeout=REDIS_TIMEOUT_S) as redis:
        await stay_registered(redis, address, record, core)


@router.get(ENGINE_ALIVE_ROUTE)
async def alive(request: Request) -> JSONResponse:
    await _hot_loader(request).ask_core()
    return JSONResponse({})


@router.get(ENGINE_ADAPTERS_ROUTE)
async def list_adapters(request: Request) -> JSONResponse:
    loader = _hot_loader(request)
    adapters = [{"adapter_id": name, "state": state} for name, state in loader.states().items()]
    return JSONResponse({"adapters": adapters, "max_loras": loader.max_loras})


@router.post(ENGINE_ADAPTERS_ROUTE + "/{adapter_id}")
async def load_adapter(adapter_id: str, request: Request) -> JSONResponse:
    if not ADAPTER_ID.fullmatch(adapter_id):
        return _bad_id()
    try:
        loaded = await _hot_loader(request).load(adapter_id)
    except AdapterError as error:
        return _error(error.status, error.code, str(error))
    return JSONResponse({"adapter_id": adapter_id, "state": loaded.state, "load_s": round(loaded.load_s, 6)})


@router.delete(ENGINE_ADAPTERS_ROUTE + "/{adapter_id}")
async def remove_adapter(adapter_id: str, request: Request) -> JSONResponse:
    if not ADAPTER_ID.fullmatch(adapter_id):
        return _bad_id()
    try:
        await _hot_loader(request).remove(adapter_id)
    except AdapterInUse as error:
        return _error(error.status, error.code, str(error))
    return JSONResponse({"adapter_id": adapter_id, "deleted": True})


class ClosedRoutes:
    """403 for vLLM's own ways to an adapter: load any path, drop one behind our back, or (`/invocations`) ask one
    without an API key. A middleware, since the SageMaker shim adds its routes after every plug-in's. vLLM asks for
    its key below /v1 and a few more only; here everything but OPEN_PATHS needs it, /metrics and /tokenize included.
    """

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(CLOSED_PATHS):
            message = f"This engine takes adapters at {ENGINE_ADAPTERS_ROUTE} only."
            await _error(403, "route_closed", message)(scope, receive, send)
        elif scope["type"] == "http" and not self._may_pass(scope):
            await _error(401, "invalid_api_key", "This engine needs its API key.")(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if self._expected is None or scope["path"] in OPEN_PATHS:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)


def _hot_loader(request: Request) -> HotLoader:
    loader: HotLoader = request.app.state.lift_hot_loader
    return loader


def _bad_id() -> JSONResponse:
    return _error(400, "invalid_adapter_id", "Not an adapter id.")


def _error(status: int, code: str, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
