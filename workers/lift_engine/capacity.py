"""Capacity: how many adapters an engine holds, in its slots and in host memory, by the memory that is free.

In: settings, bytes of one adapter, free bytes. Out: `--max-loras` and `--max-cpu-loras`, where settings leave them 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lift_config.settings import Settings

SLOTS_SHARE = 0.15  # of the device memory that is the engine's; the rest holds weights, KV cache and activations
HOST_SLOTS_SHARE = 0.05  # of host memory, where slots lie there too (engines on a CPU)
HOST_SHARE = 0.1  # of host memory, for adapters kept beside the slots; the rest is the trainer's, Redis', the system's
MIN_SLOTS, MAX_SLOTS = 2, 32  # more slots make every step on a GPU slower
MAX_HOST = 512
MODEL_FIELDS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")


@dataclass(frozen=True)
class Memory:
    """Free bytes: of the device (None where slots lie in host memory), and of the host."""

    device_bytes: int | None
    host_bytes: int


@dataclass(frozen=True)
class Capacity:
    """vLLM's two caches of adapters."""

    max_loras: int
    max_cpu_loras: int


def choose(settings: Settings, adapter_bytes: int, memory: Memory) -> Capacity:
    """What settings state is taken as it is. Engines of one host share its memory; a device has one engine."""
    engine, host_bytes = settings.engine, memory.host_bytes // settings.engines
    if memory.device_bytes is None:
        for_slots = host_bytes * HOST_SLOTS_SHARE
    else:
        for_slots = memory.device_bytes * engine.gpu_memory_fraction * SLOTS_SHARE
    most = min(MAX_SLOTS, engine.max_num_seqs, engine.max_cpu_loras or MAX_SLOTS)  # a request needs one slot at most
    slots = engine.max_loras or max(min(MIN_SLOTS, most), min(most, int(for_slots / adapter_bytes)))
    kept = engine.max_cpu_loras or max(slots, min(MAX_HOST, int(host_bytes * HOST_SHARE / adapter_bytes)))
    return Capacity(slots, kept)


def adapter_bytes(config: Mapping[str, Any], rank: int, value_bytes: int) -> int:
    """One adapter of all linear layers at `rank`, as a slot holds it. `config` is a base model's config.json;
    ValueError where it does not speak of layers as most do."""
    model: Mapping[str, Any] = config.get("text_config", config)
    if lacking := [name for name in MODEL_FIELDS if name not in model]:
        raise ValueError(
            f"engine.max_loras, engine.max_cpu_loras: state both; config.json lacks {', '.join(lacking)} to choose by"
        )
    hidden, inner, heads = model["hidden_size"], model["intermediate_size"], model["num_attention_heads"]
    head = model.get("head_dim") or hidden // heads
    queries, keys = heads * head, (model.get("num_key_value_heads") or heads) * head
    attention = 2 * (hidden + queries) + 2 * (hidden + keys)  # q and o, k and v: width in and width out of each
    mlp = 3 * (hidden + inner)  # gate, up, down
    return int(model["num_hidden_layers"] * (attention + mlp) * rank * value_bytes)


def read_config(settings: Settings) -> dict[str, Any]:
    """The base model's config.json, from its folder or the hub."""
    if settings.base_model_is_folder:
        path = Path(settings.base_model) / "config.json"
    else:
        from huggingface_hub import hf_hub_download  # slow to import; vLLM fetches the file anyway

        path = Path(hf_hub_download(settings.base_model, "config.json", revision=settings.base_revision))
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return config


def free_host_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """What the kernel calls available, or a container's limit where that is less."""
    lines = (proc / "meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limit = cgroup / "memory.max"
    text = limit.read_text().strip() if limit.exists() else "max"
    return available if text == "max" else min(available, int(text))
