"""The shapes on the wire: what an upload and the `lift` field may hold, and the objects that answer (product.md)."""

from __future__ import annotations

import math
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from lift_config.contract import AdapterRecord, DocumentRecord, Failure, JobRecord, Progress

Seconds = dict[str, float | None]


def _encodable(text: str) -> str:
    """JSON can escape half a character, which no encoding can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds a lone surrogate") from error
    return text


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_line(text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("control characters are not allowed")
    return text


# ---- requests ---------------------------------------------------------------------------------------------

Title = Annotated[str, StringConstraints(strip_whitespace=True, max_length=512), AfterValidator(_one_line)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(strict=True, max_length=512)]


class ExpiresAfter(_Request):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class UploadFields(_Request):
    """What may come with a document, in a form or as JSON."""

    title: Title | None = None
    recipe: str | None = None
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16)
    expires_after: ExpiresAfter | None = None
    base_model: str | None = None


class TextUpload(UploadFields):
    """An upload as JSON."""

    text: Annotated[str, AfterValidator(_encodable)]


class LiftOptions(_Request):
    """The request field `lift`: how a question about a document is to be answered."""

    mode: Literal["adapter", "context"] = "adapter"
    max_wait_s: float | None = Field(None, ge=0, le=86_400, allow_inf_nan=False)


# ---- documents --------------------------------------------------------------------------------------------


class AdapterObject(BaseModel):
    id: str
    version: int
    base_model: str
    recipe: str
    rank: int
    bytes: int


class AdapterVersion(AdapterObject):
    """`ready_s`: seconds from this document's upload until the version was published."""

    ready_s: float


class ProgressObject(BaseModel):
    phase: str
    fraction: float
    eta_s: float | None
    segments: int
    tasks: int
    steps: int


class FailureObject(BaseModel):
    code: str
    message: str


class DocumentObject(BaseModel):
    id: str
    object: Literal["document"] = "document"
    created_at: int
    title: str | None
    filename: str | None
    bytes: int
    tokens: int
    sha256: str
    metadata: dict[str, str]
    expires_at: int | None
    status: str
    progress: ProgressObject
    adapter: AdapterObject | None
    adapters: list[AdapterVersion]
    timeline: dict[str, Seconds]
    error: FailureObject | None


class DocumentList(BaseModel):
    object: Literal["list"] = "list"
    data: list[DocumentObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DocumentDeleted(BaseModel):
    id: str
    object: Literal["document.deleted"] = "document.deleted"
    deleted: Literal[True] = True


def document_object(document: DocumentRecord, job: JobRecord) -> DocumentObject:
    versions = [_adapter_version(adapter, document.created_s) for adapter in job.adapters]
    return DocumentObject(
        id=document.id,
        created_at=int(document.created_s),
        title=document.title,
        filename=document.filename,
        bytes=document.size_bytes,
        tokens=job.tokens,
        sha256=document.sha256,
        metadata=document.metadata,
        expires_at=None if document.expires_s is None else math.ceil(document.expires_s),
        status=job.status.value,
        progress=_progress_object(job.progress),
        adapter=AdapterObject(**versions[-1].model_dump(exclude={"ready_s"})) if versions else None,
        adapters=versions,
        timeline=job.timeline.relative_to(document.created_s),
        error=_failure_object(job.error) if job.error else None,
    )


def _adapter_version(adapter: AdapterRecord, created_s: float) -> AdapterVersion:
    return AdapterVersion(
        id=adapter.id,
        version=adapter.version,
        base_model=adapter.base_model,
        recipe=adapter.recipe,
        rank=adapter.rank,
        bytes=adapter.size_bytes,
        ready_s=round(max(0.0, adapter.ready_s - created_s), 3),
    )


def _progress_object(progress: Progress) -> ProgressObject:
    return ProgressObject(
        phase=progress.phase,
        fraction=progress.fraction,
        eta_s=progress.eta_s,
        segments=progress.segments,
        tasks=progress.tasks,
        steps=progress.steps,
    )


def _failure_object(failure: Failure) -> FailureObject:
    return FailureObject(code=failure.code, message=failure.message)


# ---- models -----------------------------------------------------------------------------------------------


class ModelObject(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "lift-serve"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]
