"""Gets adapters into and out of a running vLLM, and knows which are where.

In: an adapter id, before each question. Out: where it was found and how long loading took. All adapter questions
pass through here first (the server sees to that), which is what makes the mirror of vLLM's caches hold.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Protocol

from lift_config.contract import AdapterState
from lift_engine.adapters import AdapterCorrupt, AdapterError, AdapterFolder

logger = logging.getLogger(__name__)


class LoraEngine(Protocol):
    """The part of vLLM's AsyncLLM used here."""

    async def add_lora(self, lora_request: Any) -> bool: ...
    async def remove_lora(self, lora_id: int) -> bool: ...


class ServingModels(Protocol):
    """The part of vLLM's OpenAIServingModels used here."""

    lora_requests: dict[str, Any]
    lora_resolver_lock: dict[str, Any]

    async def resolve_lora(self, lora_name: str) -> Any: ...


@dataclass(frozen=True)
class Loaded:
    state: AdapterState
    load_s: float


class Residency:
    """Which adapters vLLM holds where, told from the order in which they were asked for.

    An approximation of vLLM's two LRUs (GPU slots and host memory): those also move when a waiting request is
    scheduled. It decides a label and whether to load ahead of the step; a wrong guess costs time, nothing else.
    """

    def __init__(self, max_loras: int, max_cpu_loras: int) -> None:
        self.max_loras, self._max_cpu_loras = max_loras, max_cpu_loras
        self._oldest_first: dict[str, None] = {}

    def touch(self, adapter_id: str) -> None:
        self._oldest_first.pop(adapter_id, None)
        self._oldest_first[adapter_id] = None
        if len(self._oldest_first) > self._max_cpu_loras:
            del self._oldest_first[next(iter(self._oldest_first))]

    def drop(self, adapter_id: str) -> None:
        self._oldest_first.pop(adapter_id, None)

    def states(self) -> dict[str, AdapterState]:
        """Newest first; what is not in it left vLLM's memory, or was never there."""
        newest_first = enumerate(reversed(self._oldest_first))
        return {
            adapter_id: AdapterState.RESIDENT if age < self.max_loras else AdapterState.HOST
            for age, adapter_id in newest_first
        }


class HotLoader:
    """Loads and removes; one per engine."""

    def __init__(self, folder: AdapterFolder, models: ServingModels, engine: LoraEngine, residency: Residency) -> None:
        self._folder, self._models, self._engine, self._residency = folder, models, engine, residency

    @property
    def max_loras(self) -> int:
        return self._residency.max_loras

    async def load(self, adapter_id: str) -> Loaded:
        """Make the adapter ready to be asked. AdapterError where it cannot be.

        What vLLM holds costs a few stats here and no word with the engine core. The folder is looked at each
        time, because vLLM re-reads an evicted adapter inside a step and dies where it is gone.
        """
        start_s = time.monotonic()
        if self._folder.complete(adapter_id) and adapter_id in self._models.lora_requests:
            state = self._residency.states().get(adapter_id)
        else:
            state = None
            await self._fetch(adapter_id)
        if state is None:
            await self._add(adapter_id)
        self._residency.touch(adapter_id)
        load_s = time.monotonic() - start_s
        if state is None:
            logger.info("adapter %s: hot-loaded in %.0f ms", adapter_id, load_s * 1000)
        return Loaded(state or AdapterState.FETCHED, load_s)

    async def remove(self, adapter_id: str) -> None:
        """Out of the registry, the engine, the folder, in this order; nothing to do is fine. The caller sees to
        it that no request in flight names it."""
        start_s = time.monotonic()
        async with self._models.lora_resolver_lock[adapter_id]:
            request = self._models.lora_requests.pop(adapter_id, None)
            self._residency.drop(adapter_id)
            if request is not None:
                await self._engine.remove_lora(request.lora_int_id)
            await self._folder.remove(adapter_id)
        self._models.lora_resolver_lock.pop(adapter_id, None)  # vLLM keeps one for every name it ever saw
        logger.info("adapter %s: removed in %.0f ms", adapter_id, (time.monotonic() - start_s) * 1000)

    def states(self) -> dict[str, AdapterState]:
        """Every adapter that is here. FETCHED: it would have to be read from the local folder."""
        here = [*self._folder.names(), *self._models.lora_requests]
        return dict.fromkeys(here, AdapterState.FETCHED) | self._residency.states()

    async def _fetch(self, adapter_id: str) -> None:
        """An adapter that is gone everywhere leaves the registry too: a step that named it would end vLLM."""
        try:
            await self._folder.fetch(adapter_id)
        except AdapterError:
            self._models.lora_requests.pop(adapter_id, None)
            raise

    async def _add(self, adapter_id: str) -> None:
        """Through vLLM's utility call, which fails without harm; the same failure inside a step is fatal."""
        known = self._models.lora_requests.get(adapter_id)
        if known is not None:
            await self._engine.add_lora(known)
        else:
            await self._models.resolve_lora(adapter_id)
            if adapter_id not in self._models.lora_requests:
                raise AdapterCorrupt(f"adapter {adapter_id}: vLLM refuses it; its log says why")
