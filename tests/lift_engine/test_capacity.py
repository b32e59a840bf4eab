"""How many adapters an engine holds: what is stated, else what memory allows."""

import json
from pathlib import Path
from typing import Any

import pytest

from lift_config.settings import Settings
from lift_engine.capacity import Capacity, Memory, adapter_bytes, choose, free_host_bytes
from lift_engine.launch import measured_capacity

GB = 10**9
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def chosen(memory: Memory, adapter_bytes: int = 10**7, engines: int = 1, **engine: Any) -> Capacity:
    return choose(Settings(engines=engines, engine=engine), adapter_bytes, memory)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (Memory(80 * GB, 100 * GB), Capacity(32, 512)),  # both at their upper bounds
        (Memory(2 * GB, 10 * GB), Capacity(18, 100)),  # 2 GB x 0.6 x 0.15, 10 GB x 0.1
        (Memory(GB // 100, GB // 10), Capacity(2, 2)),  # at their lower ones: never fewer kept than in slots
        (Memory(None, 4 * GB), Capacity(20, 40)),  # slots in host memory: 4 GB x 0.05
    ],
)
def test_memory_decides(memory: Memory, expected: Capacity) -> None:
    assert chosen(memory) == expected


def test_larger_adapters_are_fewer() -> None:
    assert chosen(Memory(80 * GB, 100 * GB), 335 * 10**6) == Capacity(21, 29)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"max_loras": 3}, Capacity(3, 100)),
        ({"max_cpu_loras": 7}, Capacity(7, 7)),
        ({"max_cpu_loras": 1}, Capacity(1, 1)),
        ({"max_loras": 200}, Capacity(200, 200)),
        ({"max_loras": 3, "max_cpu_loras": 9}, Capacity(3, 9)),
        ({"max_num_seqs": 4}, Capacity(4, 100)),  # more adapters than answers cannot be asked at once
    ],
)
def test_what_is_stated_is_taken(stated: dict[str, int], expected: Capacity) -> None:
    assert chosen(Memory(2 * GB, 10 * GB), **stated) == expected


def test_engines_share_the_host() -> None:
    assert chosen(Memory(None, 8 * GB), engines=2) == chosen(Memory(None, 4 * GB))
    assert chosen(Memory(2 * GB, 20 * GB), engines=2) == Capacity(18, 100)  # each has a device of its own


def test_bytes_of_an_adapter() -> None:
    assert adapter_bytes(LLAMA_8B, 16, 2) == 83_886_080  # 5.24 MB a rank, the published figure
    assert adapter_bytes({"text_config": LLAMA_8B | {"head_dim": 128}}, 16, 2) == 83_886_080
    assert adapter_bytes(LLAMA_8B, 16, 4) == 2 * 83_886_080


def test_an_unknown_kind_of_model_wants_numbers() -> None:
    with pytest.raises(ValueError, match=r"engine\.max_loras.*intermediate_size"):
        adapter_bytes({"n_embd": 768, "hidden_size": 1, "num_attention_heads": 1, "num_hidden_layers": 1}, 16, 2)
    settings = Settings(base_model="/no/such/model", engine={"max_loras": 3, "max_cpu_loras": 9})
    assert measured_capacity(settings, 0, cuda=False) == Capacity(3, 9)  # which needs no look at the model


def test_a_folders_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    settings = Settings(base_model=str(tmp_path), engine={"max_cpu_loras": 4})
    capacity = measured_capacity(settings, 0, cuda=False)
    assert capacity.max_cpu_loras == 4
    assert 2 <= capacity.max_loras <= 4  # by this machine's memory


def test_a_containers_limit_is_the_hosts_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable: 1000 kB\n")
    assert free_host_bytes(tmp_path, tmp_path) == 1_024_000
    for limit, expected in (("max", 1_024_000), ("5000", 5000), ("9000000", 1_024_000)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert free_host_bytes(tmp_path, tmp_path) == expected
