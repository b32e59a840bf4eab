"""/v1/documents/{id}/adapter: the archive, as tar, PEFT and a reader of its README meet it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lift_config.contract import ADAPTER_FILES, AdapterRecord, adapter_path
from lift_config.prompts import document_line

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
MEMBERS = ["README.md", "adapter_config.json", "manifest.json", "adapter_model.safetensors"]


async def archive(front_end: Any, document_id: str, query: str = "") -> tuple[Any, tarfile.TarFile]:
    answer = await front_end.client.get(f"/v1/documents/{document_id}/adapter{query}")
    assert answer.status_code == 200, answer.text
    return answer, tarfile.open(fileobj=io.BytesIO(answer.content))


def content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


async def test_the_best_version(front_end: Any, worker: Any, store: Path) -> None:
    document = await front_end.upload(TEXT, title="Orvel {0}")
    adapter = await worker.train()
    answer, tar = await archive(front_end, document["id"])
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["content-disposition"] == f'attachment; filename="{document["id"]}-v1.tar"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert tar.getnames() == MEMBERS
    for name in MEMBERS[1:]:
        assert content(tar, name) == (store / adapter_path(adapter.id, name)).read_bytes()
    readme = content(tar, "README.md").decode()
    for told in (
        "smollm2-135m-instruct",
        "revision: main",
        document_line("Orvel {0}"),
        adapter.id,
        "--max-lora-rank 16",
    ):
        assert told in readme


async def test_another_version(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    first = await worker.train("fast")
    last = await worker.publish(await worker.newest_job("lift:jobs:refine"))
    for query, adapter in (("", last), ("?version=1", first), ("?version=2", last)):
        _, tar = await archive(front_end, document["id"], query)
        assert adapter.id in content(tar, "README.md").decode()
    answer = await front_end.client.get(f"/v1/documents/{document['id']}/adapter?version=3")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "adapter_not_found", "version")
    for bad in ("0", "-1", "x", "1.5", "", "9" * 10_000):
        answer = await front_end.client.get(f"/v1/documents/{document['id']}/adapter?version={bad}")
        assert answer.json()["error"]["param"] == "version", bad[:10]
        assert answer.status_code in (400, 404)


async def test_none_yet(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    url = f"/v1/documents/{document['id']}/adapter"
    job = await worker.claim(await worker.newest_job())
    for query in ("", "?version=1"):
        answer = await front_end.client.get(url + query)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "document_not_ready")
        assert int(answer.headers["retry-after"]) == 8
        assert answer.headers["x-should-retry"] == "false"
    await worker.fail(job, "nothing to learn")
    answer = await front_end.client.get(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "document_failed")
    assert "nothing to learn" in answer.json()["error"]["message"]


async def test_of_a_deleted_document(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    await worker.train()
    await front_end.client.delete(f"/v1/documents/{document['id']}")
    answer = await front_end.client.get(f"/v1/documents/{document['id']}/adapter")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "document_not_found")


async def test_files_of_any_size_are_padded(front_end: Any, worker: Any, store: Path) -> None:
    document = await front_end.upload(TEXT)
    adapter = await worker.train()
    for size in (0, 1, 511, 512, 513, 3 * 2**20 + 7):
        weights = bytes(range(256)) * (size // 256) + bytes(size % 256)
        (store / adapter_path(adapter.id, ADAPTER_FILES[0])).write_bytes(weights)
        answer, tar = await archive(front_end, document["id"])
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert content(tar, ADAPTER_FILES[0]) == weights


async def test_peft_loads_it(front_end: Any, worker: Any, store: Path, tmp_path: Path) -> None:
    """What a worker exports, through the archive, gives the model the same answers."""
    document = await front_end.upload(TEXT, title="Orvel")
    adapter = await worker.train()
    expected, base, ids = exported(store, adapter, tmp_path)
    _, tar = await archive(front_end, document["id"])
    (tmp_path / "unpacked").mkdir()
    for name in tar.getnames():  # not extractall: its `filter` is not in every Python 3.11
        (tmp_path / "unpacked" / name).write_bytes(content(tar, name))
    import torch
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    config = json.loads((tmp_path / "unpacked/adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"], config["r"]) == ("LORA", "CAUSAL_LM", 4)
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), str(tmp_path / "unpacked"))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, expected)
        with model.disable_adapter(), pytest.raises(AssertionError):  # so it was the adapter
            torch.testing.assert_close(model(ids).logits, expected)


def exported(store: Path, adapter: AdapterRecord, folder: Path) -> tuple[Any, Path, Any]:
    """Random weights in the place of the adapter's, as lift_workers.lora writes them; what they make of some tokens."""
    import torch
    from tests.lift_workers.tiny import save_tiny_model
    from transformers import LlamaForCausalLM

    from lift_workers.lora import Adapter, inject

    base = save_tiny_model(folder / "tiny")
    model = LlamaForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    lora = Adapter(inject(model), rank=4, alpha=8)
    with torch.no_grad():
        lora.weights.normal_(std=0.1)
    lora.refresh()
    lora.export((store / adapter_path(adapter.id, "")).resolve(), 8)
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        return model(ids).logits, base, ids
