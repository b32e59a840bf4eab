"""`register`, against the real vLLM (its import takes seconds, hence the marker)."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lift_config.settings import Settings

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
]


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from vllm.lora.resolver import LoRAResolverRegistry

    from lift_engine.resolver import RESOLVER_NAME, register

    monkeypatch.setenv("LIFT_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("LIFT_BASE_MODEL", "/models/tiny")
    monkeypatch.setattr(LoRAResolverRegistry, "resolvers", {})
    register()
    first = LoRAResolverRegistry.get_resolver(RESOLVER_NAME)
    register()
    assert LoRAResolverRegistry.get_resolver(RESOLVER_NAME) is first
    return first


async def test_resolve(registered: Any, publish: Any) -> None:
    settings = Settings()
    manifest = publish(settings, {"adapter_model.safetensors": b"x", "adapter_config.json": b"{}"})
    request = await registered.resolve_lora("/models/tiny", manifest.adapter_id)
    assert request.lora_name == manifest.adapter_id
    assert Path(request.lora_path) == registered.folder.complete(manifest.adapter_id)
    assert await registered.resolve_lora("/models/tiny", "gpt-4") is None
    await registered.folder.aclose()


class Core:
    """vLLM's engine core, by what it is told to load."""

    def __init__(self) -> None:
        self.loaded: list[Any] = []

    async def add_lora(self, request: Any) -> bool:
        self.loaded.append(request)
        await asyncio.sleep(0)  # others come in between
        return True


async def test_each_id_gets_a_number_of_its_own_and_nothing_else_gets_one(registered: Any, publish: Any) -> None:
    """In vLLM the number alone tells weights apart: two adapters of one number would answer for each other."""
    serving, settings = vllm_models([registered]), Settings()
    files = [{"adapter_model.safetensors": b"%d" % one, "adapter_config.json": b"{}"} for one in range(4)]
    ids = [publish(settings, one, key).adapter_id for one, key in itertools.product(files, ("1" * 32, "2" * 32))]
    others = [
        ids[0].upper(),
        f"{ids[0]}/",
        f"../{ids[0]}",
        ids[0][:-1],
        f"{ids[0]}\n",
        "3" * 32 + ids[0][32:],
        "warmup_1",
    ]
    answers = await asyncio.gather(*(serving.resolve_lora(name) for name in [*ids, *others, *ids]))
    await serving.resolve_lora(ids[3])
    del serving.lora_requests[ids[3]]  # as hotload.py removes one
    await serving.resolve_lora(ids[3])

    assert [answer.error.code for answer in answers[len(ids) : -len(ids)]] == [404] * len(others)
    assert [answer.lora_name for answer in [*answers[: len(ids)], *answers[-len(ids) :]]] == ids * 2
    loaded = serving.engine_client.loaded
    assert len({request.lora_int_id for request in loaded}) == len(loaded) == len(ids) + 1
    assert sorted({request.lora_name for request in loaded}) == sorted(ids)
    for request in loaded:
        assert Path(request.lora_path) == registered.folder.root / request.lora_name
    await registered.folder.aclose()


def vllm_models(resolvers: list[Any]) -> Any:
    """vLLM's registry of adapters, without the model it asks of an engine at its construction."""
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.utils.counter import AtomicCounter

    serving = OpenAIServingModels.__new__(OpenAIServingModels)
    serving.engine_client = Core()
    serving.model_config = SimpleNamespace(model="/models/tiny")
    serving.lora_requests, serving.lora_resolvers = {}, resolvers
    serving.lora_resolver_lock, serving.lora_id_counter = defaultdict(asyncio.Lock), AtomicCounter(0)
    return serving


def test_the_patches_hold_and_are_applied_once(registered: Any) -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("CPU builds of vLLM only")
    from vllm.lora.punica_wrapper import punica_cpu
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    from lift_engine import cpu_lora, cpu_seed

    wrapper = punica_cpu.PunicaWrapperCPU
    assert punica_cpu.bgmv_shrink is cpu_lora.bgmv_shrink
    assert wrapper.add_lora_linear is cpu_lora.add_lora_linear
    assert not hasattr(wrapper.update_metadata.__wrapped__, "__wrapped__")
    assert hasattr(CPUModelRunner.sample_tokens, cpu_seed.PATCHED)
    assert not hasattr(CPUModelRunner.sample_tokens.__wrapped__, cpu_seed.PATCHED)
