"""Gets adapters into and out of a running vLLM, and knows which are where.

In: an adapter id, before each question. Out: where it was found and how long loading took. All adapter questions
pass through here first (the server sees to that), which is what makes the mirror of vLLM's caches hold.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lift_config.contract import ADAPTER_FILES, MANIFEST_FILE, AdapterState
from lift_engine.adapters import AdapterCorrupt, AdapterError, AdapterFolder, AdapterInUse

logger = logging.getLogger(__name__)
# A question is sent on right after its adapter was loaded; within this time, far more than needed, vLLM has taken it.
ON_ITS_WAY_S = 600.0
REMOVAL_S = 10.0  # for the requests that name it; an upload of the same content may be waiting behind
POLL_S = 0.05


class LoraEngine(Protocol):
    """The part of vLLM's AsyncLLM used here."""

    output_processor: Any  # its `request_states`: every request that was taken and has not ended

    async def add_lora(self, lora_request: Any) -> bool: ...
    async def remove_lora(self, lora_id: int) -> bool: ...
    async def is_sleeping(self) -> bool: ...


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
        self._asked_s: dict[str, float] = {}  # when each was asked for last, of those that may be on their way
        self._loads = 0  # under way, for questions
        self._no_loads = asyncio.Event()
        self._no_loads.set()
        self._making_room = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def max_loras(self) -> int:
        return self._residency.max_loras

    async def ask_core(self) -> None:
        """Returns once vLLM's core has answered something, which it does between two steps. Not where it hangs."""
        await self._engine.is_sleeping()

    async def load(self, adapter_id: str) -> Loaded:
        """Make the adapter ready to be asked. AdapterError where it cannot be.

        What vLLM holds costs a few stats here and no word with the engine core. The folder is looked at each
        time, because vLLM re-reads an evicted adapter inside a step and dies where it is gone.
        """
        start_s = self._asked_s[adapter_id] = time.monotonic()
        with self._loading():
            state = await self._make_resident(adapter_id)
        self._asked_s[adapter_id] = time.monotonic()
        _note_use(self._folder.root / adapter_id / MANIFEST_FILE)
        load_s = time.monotonic() - start_s
        if state is None:
            logger.info("adapter %s: hot-loaded in %.0f ms", adapter_id, load_s * 1000)
            self._start(self.make_room())
        return Loaded(state or AdapterState.FETCHED, load_s)

    def start_to_restore(self) -> None:
        """`restore`, while questions come."""
        self._start(self.restore())

    async def restore(self) -> None:
        """Once, at an engine's start: load what the engines before it were asked for last, out of the folder, as long
        as a slot is free of what this one was asked for. The first that fails is the last."""
        oldest_first = list(await asyncio.to_thread(_sizes, self._folder))[-self.max_loras :]
        start_s, restored = time.monotonic(), 0
        for position, adapter_id in enumerate(oldest_first):
            try:
                restored += await self._restore(adapter_id, newer=oldest_first[position + 1 :])
            except AdapterError as error:
                logger.warning("no more adapters are restored: %s", error)
                break
        logger.info("%d adapters restored in %.0f ms", restored, (time.monotonic() - start_s) * 1000)

    async def _restore(self, adapter_id: str, newer: list[str]) -> bool:
        """Whether it was loaded. From the last look at what else goes on to vLLM's lock is one step of the loop, so
        what is deleted meanwhile does not come back."""
        if not self._is_to_be_restored(adapter_id, newer) or await self._folder.find(adapter_id) is None:
            return False
        while self._loads:
            await self._no_loads.wait()
        if not self._is_to_be_restored(adapter_id, newer) or self._folder.complete(adapter_id) is None:
            return False
        await self._add(adapter_id)
        self._residency.touch(adapter_id)
        return True

    def _is_to_be_restored(self, adapter_id: str, newer: list[str]) -> bool:
        """Newer ones come first where slots are few; they are loaded last, for vLLM lets go of the first loaded.
        Whoever holds vLLM's lock of that name loads or removes it."""
        taken = {*self._asked_s, *self._residency.states()}
        ahead = [one for one in newer if one not in taken]
        has_slot = len(taken) + len(ahead) < self.max_loras
        return has_slot and adapter_id not in taken and not self._models.lora_resolver_lock[adapter_id].locked()

    @contextmanager
    def _loading(self) -> Iterator[None]:
        self._loads += 1
        self._no_loads.clear()
        try:
            yield
        finally:
            self._loads -= 1
            if not self._loads:
                self._no_loads.set()

    async def _make_resident(self, adapter_id: str) -> AdapterState | None:
        """Where vLLM held it; None where it did not."""
        if self._folder.complete(adapter_id) and adapter_id in self._models.lora_requests:
            state = self._residency.states().get(adapter_id)
        else:
            state = None
            await self._fetch(adapter_id)
        if state is None:
            await self._add(adapter_id)
        self._residency.touch(adapter_id)
        return state

    async def remove(self, adapter_id: str) -> None:
        """Out of the registry, the engine, the folder, in this order; nothing to do is fine. A server waits for its own
        questions before it asks for this; those of others are waited for here, AdapterInUse after REMOVAL_S."""
        until_s = time.monotonic() + REMOVAL_S
        while not await self._remove(adapter_id, unless=self._is_answering):
            if time.monotonic() > until_s:
                raise AdapterInUse(f"adapter {adapter_id}: a question is being answered from it")
            await asyncio.sleep(POLL_S)  # vLLM does not announce that a request has ended

    async def make_room(self) -> None:
        """Remove what was not asked for longest, until the folder holds no more than it may. What a request may name
        stays, so that the folder can be larger for a while: vLLM would die of a folder that is gone."""
        before_s = time.monotonic() - ON_ITS_WAY_S
        self._asked_s = {adapter_id: at_s for adapter_id, at_s in self._asked_s.items() if at_s > before_s}
        if not self._folder.max_bytes:
            return
        async with self._making_room:
            sizes = await asyncio.to_thread(_sizes, self._folder)
            excess = sum(sizes.values()) - self._folder.max_bytes
            for adapter_id, size in sizes.items():
                if excess > 0 and await self._remove(adapter_id, unless=self._may_be_named):
                    excess -= size
        if excess > 0:
            logger.warning("%s: %d bytes above engine.max_folder_bytes, all in use", self._folder.root, excess)

    async def _remove(self, adapter_id: str, *, unless: Callable[[str], bool]) -> bool:
        """Whether it was. Between looking whether it is in use and taking it from the registry nothing can come: both
        are one step of the loop. Aborted requests reach the engine before the removal, which is sent after them."""
        start_s = time.monotonic()
        async with self._models.lora_resolver_lock[adapter_id]:
            if unless(adapter_id):
                return False
            request = self._models.lora_requests.pop(adapter_id, None)
            self._residency.drop(adapter_id)
            self._asked_s.pop(adapter_id, None)
            if request is not None:
                await self._engine.remove_lora(request.lora_int_id)
            await self._folder.remove(adapter_id)
        self._models.lora_resolver_lock.pop(adapter_id, None)  # vLLM keeps one for every name it ever saw
        logger.info("adapter %s: removed in %.0f ms", adapter_id, (time.monotonic() - start_s) * 1000)
        return True

    def _may_be_named(self, adapter_id: str) -> bool:
        is_on_its_way = time.monotonic() - self._asked_s.get(adapter_id, -math.inf) < ON_ITS_WAY_S
        return is_on_its_way or self._is_answering(adapter_id)

    def _is_answering(self, adapter_id: str) -> bool:
        requests = self._engine.output_processor.request_states.values()
        return adapter_id in {request.lora_name for request in requests}

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """No question waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("making room in the folder, or restoring adapters, failed", exc_info=error)

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


def _note_use(manifest: Path) -> None:
    """What was used last stays, also after a restart. The kernel's own time would be that of its last tick."""
    now_ns = time.time_ns()
    with suppress(FileNotFoundError):  # just deleted
        os.utime(manifest, ns=(now_ns, now_ns))


def _sizes(folder: AdapterFolder) -> dict[str, int]:
    """The bytes of each adapter in it, the least recently used one first."""
    used_ns, sizes = {}, {}
    for name in folder.names():
        paths = [folder.root / name / file for file in (*ADAPTER_FILES, MANIFEST_FILE)]
        stats = {path.name: path.stat() for path in paths if path.exists()}
        used_ns[name] = stats[MANIFEST_FILE].st_mtime_ns if MANIFEST_FILE in stats else 0
        sizes[name] = sum(stat.st_size for stat in stats.values())
    return {name: sizes[name] for name in sorted(sizes, key=used_ns.__getitem__)}
