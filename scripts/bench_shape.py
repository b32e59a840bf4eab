"""Models of any shape with random weights: a benchmark's figures of them are of speed only.

In: a shape's name or a config.json, a tokenizer. Out: a model folder with every weight, written once, that engine and
trainer load like any other; or a hollow one, which transformers alone can load.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from bench_common import SPEED_ONLY

SHAPES = {
    "llama-3-8b": LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, rope_theta=500000.0, max_position_embeddings=8192,
    ),
}  # fmt: skip


def random_model(shape: str, tokenizer: str, parent: Path) -> Path:
    """A folder below `parent`, the same for the same shape and tokenizer; it appears whole or not at all."""
    config, words = _config(shape), AutoTokenizer.from_pretrained(tokenizer)
    if len(words) > config.vocab_size:
        raise SystemExit(f"--tokenizer: its {len(words)} tokens are more than the shape's {config.vocab_size}")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, getattr(words, name))
    folder = parent / f"{_name(shape)}-random-{_digest(config, words)}"
    if not folder.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".") as fresh:
            _fill(Path(fresh) / "model", config, words)
            (Path(fresh) / "model").rename(folder)
    return folder


def labelled(shape: str) -> str:
    """What a table says the model is."""
    return f"{shape} ({SPEED_ONLY})"


def hollow_model(shape: str, tokenizer: str, folder: Path) -> None:
    """A model folder with a single weight: transformers makes up the others, on the device they are wanted on."""
    config = _config(shape)
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    norm = {"model.norm.weight": torch.ones(config.hidden_size)}
    save_file(norm, folder / "model.safetensors", metadata={"format": "pt"})


def _config(shape: str) -> Any:
    """The caller's own to change."""
    return AutoConfig.for_model(**SHAPES[shape].to_dict()) if shape in SHAPES else AutoConfig.from_pretrained(shape)


def _name(shape: str) -> str:
    """A config.json is called by its folder."""
    return shape if shape in SHAPES else Path(shape).resolve().parent.name.lower()


def _digest(config: Any, tokenizer: Any) -> str:
    values = [config.to_json_string(), sorted(tokenizer.get_vocab().items()), tokenizer.chat_template]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def _fill(folder: Path, config: Any, tokenizer: Any) -> None:
    """In bfloat16, half of the bytes; a CPU that computes in float32 reads it too."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        model.get_output_embeddings().weight[_silent(tokenizer, config.vocab_size)] = 0
    model.save_pretrained(folder, max_shard_size="4GB")
    tokenizer.save_pretrained(folder)


def _silent(tokenizer: Any, vocab_size: int) -> list[int]:
    """Tokens that alone show no text: special ones, halves of a character, those the tokenizer lacks. Their logit is
    to be 0, never the largest: else an answer might have no first token to be seen, or end there."""
    shown = tokenizer.batch_decode([[token] for token in range(len(tokenizer))], skip_special_tokens=True)
    silent = [token for token, text in enumerate(shown) if not text or "\ufffd" in text]
    return [*silent, *range(len(tokenizer), vocab_size)]
