"""`register`, against the real vLLM (its import takes seconds, hence the marker)."""

from pathlib import Path
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
