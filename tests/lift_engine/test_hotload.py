"""The fast path, the mirror of vLLM's caches, and removal, with the engine's two halves as fakes."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lift_config.contract import AdapterState, Manifest
from lift_config.settings import Settings
from lift_engine.adapters import AdapterCorrupt, AdapterFolder, AdapterUnknown
from lift_engine.hotload import HotLoader, Residency


@dataclass
class FakeRequest:
    name: str
    lora_int_id: int


@dataclass
class FakeEngine:
    """vLLM's registry and engine client in one; `calls` is all that reached the engine core."""

    folder: AdapterFolder
    refuses: bool = False
    calls: list[str] = field(default_factory=list)
    lora_requests: dict[str, Any] = field(default_factory=dict)
    lora_resolver_lock: dict[str, Any] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def resolve_lora(self, lora_name: str) -> Any:
        async with self.lora_resolver_lock[lora_name]:
            await self.folder.fetch(lora_name)
            request = FakeRequest(lora_name, len(self.calls) + 1)
            await self.add_lora(request)
            if not self.refuses:
                self.lora_requests[lora_name] = request

    async def add_lora(self, lora_request: Any) -> bool:
        self.calls.append(f"add {lora_request.name}")
        return True

    async def remove_lora(self, lora_id: int) -> bool:
        self.calls.append(f"remove {lora_id}")
        return True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, redis_url="redis://127.0.0.1:1", base_model="/models/tiny")


@pytest.fixture
def engine(settings: Settings) -> FakeEngine:
    return FakeEngine(AdapterFolder(settings, 0))


@pytest.fixture
def loader(engine: FakeEngine) -> HotLoader:
    return HotLoader(engine.folder, engine, engine, Residency(max_loras=1, max_cpu_loras=2))


@pytest.fixture
def ids(settings: Settings, publish: Any) -> list[str]:
    def one(number: int) -> Manifest:
        manifest: Manifest = publish(
            settings, {"adapter_model.safetensors": b"%d" % number, "adapter_config.json": b""}
        )
        return manifest

    return [one(number).adapter_id for number in range(3)]


async def test_states_follow_the_order_of_questions(loader: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    first, second, third = ids
    states = [(await loader.load(adapter_id)).state for adapter_id in (first, first, second, first, third, second)]
    assert states == ["fetched", "resident", "fetched", "host", "fetched", "fetched"]
    assert engine.calls == [f"add {adapter_id}" for adapter_id in (first, second, third, second)]
    assert loader.states() == {first: AdapterState.FETCHED, third: AdapterState.HOST, second: AdapterState.RESIDENT}
    assert loader.max_loras == 1


async def test_what_only_the_folder_has_is_named_too(loader: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    await engine.folder.fetch(ids[0])  # by an engine before this one
    assert loader.states() == {ids[0]: AdapterState.FETCHED}


async def test_a_lost_folder_is_fetched_before_vllm_misses_it(
    loader: HotLoader, engine: FakeEngine, ids: list[str]
) -> None:
    await loader.load(ids[0])
    shutil.rmtree(engine.folder.root / ids[0])
    assert (await loader.load(ids[0])).state == AdapterState.FETCHED
    assert engine.folder.complete(ids[0])


async def test_an_adapter_gone_everywhere_is_unknown_to_vllm_too(
    loader: HotLoader, engine: FakeEngine, ids: list[str], settings: Settings
) -> None:
    await loader.load(ids[0])
    shutil.rmtree(engine.folder.root / ids[0])
    shutil.rmtree(settings.home / "store" / "adapters" / ids[0])
    with pytest.raises(AdapterUnknown):
        await loader.load(ids[0])
    assert engine.lora_requests == {}


async def test_an_adapter_vllm_refuses(loader: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    engine.refuses = True
    with pytest.raises(AdapterCorrupt):
        await loader.load(ids[0])
    assert engine.lora_requests == {}
    assert loader.states() == {ids[0]: AdapterState.FETCHED}  # in the folder only


async def test_remove_leaves_no_trace(loader: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    await loader.load(ids[0])
    await loader.remove(ids[0])
    await loader.remove(ids[0])
    assert engine.calls == [f"add {ids[0]}", "remove 1"]
    assert (engine.lora_requests, loader.states(), dict(engine.lora_resolver_lock)) == ({}, {}, {})
    assert list(engine.folder.root.iterdir()) == []
