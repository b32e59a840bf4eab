"""Adapters that nobody trained, published as a worker would: random weights, right shapes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from lift_config.contract import ADAPTER_FILES, MANIFEST_FILE, Manifest, ManifestFile, adapter_id, adapter_path
from lift_config.settings import Settings

RANK = 16
Publish = Callable[..., Manifest]


@pytest.fixture
def publish() -> Publish:
    """Puts files into the settings' store (a local folder), the manifest last. Versions of one document share `key`."""

    def publish_files(settings: Settings, files: dict[str, bytes], key: str | None = None) -> Manifest:
        entries = {name: ManifestFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
        weights_sha256 = entries[ADAPTER_FILES[0]].sha256
        name = adapter_id(key or weights_sha256[:32], weights_sha256)
        manifest = Manifest(name, settings.model_name, settings.base_revision, RANK, entries)
        root = Path(settings.resolved_store_url.removeprefix("file://"))
        for file_name, data in {**files, MANIFEST_FILE: manifest.to_json().encode()}.items():
            path = root / adapter_path(name, file_name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return manifest

    return publish_files


@pytest.fixture
def random_adapter() -> Callable[[Path, int], dict[str, bytes]]:
    """PEFT's two files for the Llama-shaped model in a folder; weights large enough to change every answer."""

    def make(model: Path, seed: int) -> dict[str, bytes]:
        config = json.loads((model / "config.json").read_text())
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        random = np.random.default_rng(seed)
        tensors = {}
        for layer in range(config["num_hidden_layers"]):
            for module, (width_in, width_out) in {"gate_proj": (hidden, inner), "down_proj": (inner, hidden)}.items():
                name = f"base_model.model.model.layers.{layer}.mlp.{module}"
                tensors[f"{name}.lora_A.weight"] = random.normal(0, 0.02, (RANK, width_in)).astype(np.float32)
                tensors[f"{name}.lora_B.weight"] = random.normal(0, 0.1, (width_out, RANK)).astype(np.float32)
        peft = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["gate_proj", "down_proj"]}
        peft |= {"task_type": "CAUSAL_LM", "bias": "none", "base_model_name_or_path": None}
        return {ADAPTER_FILES[0]: save(tensors), ADAPTER_FILES[1]: json.dumps(peft).encode()}

    return make
