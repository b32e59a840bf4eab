"""The fast path, the mirror of vLLM's caches, and removal, with the engine's two halves as fakes."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lift_config.contract import MANIFEST_FILE, AdapterState, Manifest
from lift_config.settings import Settings
from lift_engine import hotload
from lift_engine.adapters import AdapterCorrupt, AdapterFolder, AdapterInUse, AdapterUnknown
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
    request_states: dict[str, Any] = field(default_factory=dict)
    lora_resolver_lock: dict[str, Any] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @property
    def output_processor(self) -> Any:
        return self

    def answers(self, adapter_id: str | None) -> None:
        """A request was taken; None: of the base model."""
        self.request_states[str(len(self.request_states))] = SimpleNamespace(lora_name=adapter_id)

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

    async def is_sleeping(self) -> bool:
        self.calls.append("is sleeping")
        return False


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


async def test_what_another_server_is_answering_from_is_waited_for(
    loader: HotLoader, engine: FakeEngine, ids: list[str]
) -> None:
    await loader.load(ids[0])
    engine.answers(ids[0])
    removing = asyncio.create_task(loader.remove(ids[0]))
    done, _ = await asyncio.wait({removing}, timeout=3 * hotload.POLL_S)
    assert not done
    assert ids[0] in engine.lora_requests
    engine.request_states.clear()
    await removing
    assert (engine.lora_requests, list(engine.folder.root.iterdir())) == ({}, [])


async def test_what_is_answered_from_for_too_long_is_not_removed(
    loader: HotLoader, engine: FakeEngine, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hotload, "REMOVAL_S", 0.1)
    await loader.load(ids[0])
    engine.answers(ids[0])
    with pytest.raises(AdapterInUse):
        await loader.remove(ids[0])
    assert engine.folder.complete(ids[0])
    assert ids[0] in engine.lora_requests


# ---- a new engine in the folder of one before it ----


@pytest.fixture
async def restarted(engine: FakeEngine, settings: Settings, ids: list[str]) -> HotLoader:
    """With two slots; the folder holds all three adapters, asked in the order of `ids`."""
    for age, adapter_id in enumerate(ids):
        await engine.folder.fetch(adapter_id)
        os.utime(engine.folder.root / adapter_id / MANIFEST_FILE, (1000 + age,) * 2)
    engine.folder = AdapterFolder(settings, 0)
    return HotLoader(engine.folder, engine, engine, Residency(max_loras=2, max_cpu_loras=3))


async def test_what_was_asked_last_is_restored(restarted: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    first, second, third = ids
    await restarted.restore()
    assert engine.calls == [f"add {second}", f"add {third}"]  # in this order, for vLLM evicts the first one first
    assert restarted.states() == {
        first: AdapterState.FETCHED,
        second: AdapterState.RESIDENT,
        third: AdapterState.RESIDENT,
    }
    assert (await restarted.load(third)).state == AdapterState.RESIDENT
    assert (engine.folder.root / second / MANIFEST_FILE).stat().st_mtime == 1001  # it was not used


async def test_an_engine_restores_by_itself(restarted: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    restarted.start_to_restore()
    async with asyncio.timeout(5):
        while len(engine.lora_requests) < 2:
            await asyncio.sleep(0)
    assert ids[2] in engine.lora_requests


async def test_no_slot_of_a_question_is_taken(restarted: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    first, _, third = ids
    await restarted.load(first)
    await restarted.restore()
    assert engine.calls == [f"add {first}", f"add {third}"]


async def test_a_load_for_a_question_is_waited_for_and_its_slot_counts(
    restarted: HotLoader, engine: FakeEngine, ids: list[str]
) -> None:
    first, _, third = ids
    async with engine.lora_resolver_lock[first]:  # as while vLLM loads it
        asking = asyncio.create_task(restarted.load(first))
        restoring = asyncio.create_task(restarted.restore())
        async with asyncio.timeout(5):
            while not restarted._no_loads._waiters:
                await asyncio.sleep(0)
        assert engine.calls == []
    await asyncio.gather(asking, restoring)
    assert engine.calls == [f"add {first}", f"add {third}"]


async def test_the_first_that_fails_is_the_last(
    restarted: HotLoader, engine: FakeEngine, ids: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    engine.refuses = True
    await restarted.restore()
    assert engine.calls == [f"add {ids[1]}"]
    assert "no more adapters are restored" in caplog.text


async def test_what_a_power_cut_left_is_not_restored(
    restarted: HotLoader, engine: FakeEngine, ids: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    weights = engine.folder.root / ids[2] / "adapter_model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    await restarted.restore()
    assert engine.calls == [f"add {ids[1]}"]
    assert (await restarted.load(ids[2])).state == AdapterState.FETCHED
    assert weights.read_bytes() == b"2"


async def test_what_is_deleted_meanwhile_does_not_come_back(
    restarted: HotLoader, engine: FakeEngine, ids: list[str]
) -> None:
    """Store and Redis are asked to forget it after the engine was: until then it could be fetched."""
    first, second, third = ids
    async with engine.folder._lock(second):  # as while the deletion takes the folder away
        removing = asyncio.create_task(restarted.remove(second))
        async with asyncio.timeout(5):
            while not engine.folder._lock(second)._waiters:
                await asyncio.sleep(0)
        await restarted.restore()
    await removing
    assert second not in engine.folder.names()
    assert engine.calls == [f"add {third}"]
    assert first in engine.folder.names()


# ---- the folder's quota ----


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked just now is no longer on its way."""
    monkeypatch.setattr(hotload, "ON_ITS_WAY_S", 0.0)


@pytest.fixture
async def small(engine: FakeEngine, settings: Settings, ids: list[str]) -> HotLoader:
    """Its folder has room for two of the three adapters."""
    path = await engine.folder.fetch(ids[0])
    size_bytes = sum(file.stat().st_size for file in path.iterdir())
    await engine.folder.remove(ids[0])
    quota = settings.engine.model_copy(update={"max_folder_bytes": 2 * size_bytes})
    engine.folder = AdapterFolder(settings.model_copy(update={"engine": quota}), 0)
    return HotLoader(engine.folder, engine, engine, Residency(max_loras=1, max_cpu_loras=2))


async def gone(path: Path) -> None:
    async with asyncio.timeout(5):
        while path.exists():
            await asyncio.sleep(0)


@pytest.mark.usefixtures("long_ago")
async def test_the_least_recently_used_makes_room(small: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    first, second, third = ids
    for adapter_id in (first, second, first, third):
        await small.load(adapter_id)
    await gone(engine.folder.root / second)
    await small.make_room()
    assert sorted(engine.folder.names()) == sorted([first, third])
    assert engine.calls == [
        f"add {first}",
        f"add {second}",
        f"add {third}",
        "remove 2",
    ]  # out of vLLM before its folder
    assert sorted(engine.lora_requests) == sorted([first, third])
    assert second not in small.states()
    assert (await small.load(second)).state == AdapterState.FETCHED  # it comes back
    assert engine.folder.complete(second)


@pytest.mark.usefixtures("long_ago")
async def test_what_is_answered_from_stays(small: HotLoader, engine: FakeEngine, ids: list[str]) -> None:
    first, second, third = ids
    engine.answers(first)
    engine.answers(None)
    for adapter_id in ids:
        await small.load(adapter_id)
    await gone(engine.folder.root / second)
    assert sorted(engine.folder.names()) == sorted([first, third])


async def test_what_a_request_on_its_way_may_name_stays(
    small: HotLoader, engine: FakeEngine, ids: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for adapter_id in ids:
        await small.load(adapter_id)
    await small.make_room()
    assert sorted(engine.folder.names()) == sorted(ids)
    assert "above engine.max_folder_bytes, all in use" in caplog.text


async def test_a_question_that_comes_while_the_removal_waits_is_heard(
    small: HotLoader, engine: FakeEngine, ids: list[str]
) -> None:
    """It waits for vLLM's lock of that name; by the time it has it, the adapter is asked for again."""
    first, _, _ = ids
    for adapter_id in ids:
        await engine.folder.fetch(adapter_id)  # by an engine before this one: idle, and the first one is the oldest
        os.utime(engine.folder.root / adapter_id / MANIFEST_FILE, (ids.index(adapter_id),) * 2)
    async with engine.lora_resolver_lock[first]:
        making = asyncio.create_task(small.make_room())
        async with asyncio.timeout(5):
            while not engine.lora_resolver_lock[first]._waiters:
                await asyncio.sleep(0)
        asking = asyncio.create_task(small.load(first))
        await asyncio.sleep(0)
    await making
    assert (await asking).state == AdapterState.FETCHED
    assert first in engine.folder.names()
    assert len(engine.folder.names()) == 2


async def test_at_its_start_an_engine_keeps_what_was_used_last(
    small: HotLoader, engine: FakeEngine, ids: list[str]
) -> None:
    for adapter_id in ids:
        await engine.folder.fetch(adapter_id)
    for age, adapter_id in enumerate(ids):
        os.utime(engine.folder.root / adapter_id / MANIFEST_FILE, (1000 - age,) * 2)
    await small.make_room()
    assert sorted(engine.folder.names()) == sorted(ids[:2])
    assert engine.calls == []


async def test_without_a_quota_everything_stays(engine: FakeEngine, settings: Settings, ids: list[str]) -> None:
    endless = settings.engine.model_copy(update={"max_folder_bytes": 0})
    folder = AdapterFolder(settings.model_copy(update={"engine": endless}), 0)
    for adapter_id in ids:
        await folder.fetch(adapter_id)
    await HotLoader(folder, engine, engine, Residency(1, 2)).make_room()
    assert len(folder.names()) == 3


@pytest.mark.filterwarnings("default")  # torch's own
def test_vllm_knows_its_requests_by_these_names() -> None:
    """Where a newer one does not, no adapter counts as idle, and the folder grows."""
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import OutputProcessor, RequestState

    assert "self.output_processor = " in inspect.getsource(AsyncLLM.__init__)
    assert "self.request_states: dict" in inspect.getsource(OutputProcessor.__init__)
    assert "self.lora_name = " in inspect.getsource(RequestState.__init__)


async def test_a_load_that_fails_frees_nothing_for_those_before_it(
    small: HotLoader, engine: FakeEngine, ids: list[str], settings: Settings
) -> None:
    """The first one's question may be on its way, whatever became of the second."""
    await small.load(ids[0])
    shutil.rmtree(engine.folder.root / ids[0])
    shutil.move(settings.home / "store", settings.home / "away")
    with pytest.raises(AdapterUnknown):
        await small.load(ids[0])
    shutil.move(settings.home / "away", settings.home / "store")
    for adapter_id in ids:
        await engine.folder.fetch(adapter_id)
    os.utime(engine.folder.root / ids[0] / MANIFEST_FILE, (1, 1))  # the first to go, were it idle
    await small.make_room()
    assert ids[0] in engine.folder.names()
