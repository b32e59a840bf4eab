"""A version of a document's adapter → an uncompressed tar that PEFT or any vLLM can load once unpacked.

In: the store's objects. Out: the archive's length, then its bytes as the store gives them: nothing is held as a whole.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import obstore

from lift_config.contract import (
    ADAPTER_FILES,
    MANIFEST_FILE,
    AdapterRecord,
    DocumentRecord,
    JobRecord,
    adapter_path,
)
from lift_config.prompts import document_line
from lift_server import documents, versions
from lift_server.errors import AdapterNotFound, DocumentNotFound, DocumentNotReady
from lift_server.state import State
from lift_server.store import in_time

if TYPE_CHECKING:
    from obstore import GetResult  # a name of its stubs

CHUNK_BYTES = 2**20
END = bytes(2 * tarfile.BLOCKSIZE)
WEIGHTS, CONFIG = ADAPTER_FILES
ORDER = (CONFIG, MANIFEST_FILE, WEIGHTS)  # what is short comes first, for whoever reads while it arrives
RETRY_S = 30  # where nobody can say how long the training takes

README = """\
# A LIFT adapter

LoRA weights in PEFT's format, trained on one document.

- document: {document_id}
- adapter: {adapter_id} (version {version}, recipe {recipe}, rank {rank})
- base model: {base_model}
- revision: {base_revision}

It answers questions about the document only with the system line it was trained with, word for word, as the first
line of the system message (in front of your own, with an empty line between):

{line}

The user's turns are left as they are. With vLLM, after unpacking into a folder `lift`:

    vllm serve {base_model} --enable-lora --max-lora-rank {rank} --lora-modules lift=./lift

With PEFT: `PeftModel.from_pretrained(base, "./lift")`. manifest.json has the files' checksums.
"""


@dataclass(frozen=True)
class Archive:
    """`readme` and the store's objects, opened, in ORDER."""

    name: str
    readme: bytes
    files: dict[str, GetResult]
    created_s: float

    @property
    def size_bytes(self) -> int:
        sizes = [len(self.readme), *(file.meta["size"] for file in self.files.values())]
        return sum(tarfile.BLOCKSIZE + size + _padding(size) for size in sizes) + len(END)

    async def stream(self) -> AsyncIterator[bytes]:
        yield self._header("README.md", len(self.readme)) + self.readme + bytes(_padding(len(self.readme)))
        for name, file in self.files.items():
            yield self._header(name, file.meta["size"])
            async for chunk in file.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
            yield bytes(_padding(file.meta["size"]))
        yield END

    def _header(self, name: str, size: int) -> bytes:
        member = tarfile.TarInfo(name)
        member.size, member.mtime = size, int(self.created_s)
        return member.tobuf(tarfile.GNU_FORMAT)  # its sizes know no 8 GiB limit


async def open_archive(state: State, owner: str, document_id: str, version: int | None) -> Archive:
    """The best version, or that of the number; a 409 where there is none yet."""
    document, job = await documents.find(state, owner, document_id)
    adapter = _chosen(job, version)
    try:
        async with in_time():
            files = {
                name: await obstore.get_async(state.records.store, adapter_path(adapter.id, name)) for name in ORDER
            }
    except FileNotFoundError as error:
        raise DocumentNotFound from error  # deleted this moment
    name = f"{document.id}-v{adapter.version}.tar"
    return Archive(name, _readme(document, job, adapter).encode(), files, adapter.ready_s)


def _chosen(job: JobRecord, version: int | None) -> AdapterRecord:
    if not job.adapters:
        versions.refuse_stopped(job)
        message = f"The document has no adapter yet: {job.status.value}, phase {job.progress.phase}."
        raise DocumentNotReady(message, retry_after_s=int(job.progress.eta_s or RETRY_S) + 1)
    found = next((one for one in job.adapters if version == one.version), None) if version else job.best()
    if found is None:
        numbers = ", ".join(str(one.version) for one in job.adapters)
        raise AdapterNotFound(f"version: the document has no version {version}; there are: {numbers}.")
    return found


def _readme(document: DocumentRecord, job: JobRecord, adapter: AdapterRecord) -> str:
    return README.format(
        document_id=document.id,
        adapter_id=adapter.id,
        version=adapter.version,
        recipe=adapter.recipe,
        rank=adapter.rank,
        base_model=adapter.base_model,
        base_revision=job.base_revision,
        line=document_line(document.title),
    )


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE
