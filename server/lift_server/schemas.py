"""The shapes on the wire: what an upload and the `lift` field may hold, and the objects that answer (product.md)."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import asdict
from itertools import zip_longest
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    StringConstraints,
)

from lift_config.contract import AdapterRecord, DocumentRecord, Failure, JobRecord, LearningRecord, Progress
from lift_server.places import Whereabouts

Seconds = dict[str, float | None]


def _encodable(text: str) -> str:
    """JSON can escape half a character, which no encoding can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds a lone surrogate") from error
    return text


def _unless_null(default: Any, kind: Any) -> BeforeValidator:
    """Null is the default, as OpenAI has it: clients send it for what they were not told. `kind` is for the schema."""
    return BeforeValidator(lambda given: default if given is None else given, json_schema_input_type=kind | None)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_line(text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("control characters are not allowed")
    return text


def _several(ids: list[str]) -> list[str]:
    if not 2 <= len(ids) <= MAX_SEVERAL:
        raise ValueError(f"must have 2 to {MAX_SEVERAL} ids; a single document is named in document_id")
    if len(set(ids)) < len(ids):
        raise ValueError("names a document twice")
    return ids


# ---- requests ---------------------------------------------------------------------------------------------

Title = Annotated[str, StringConstraints(strip_whitespace=True, max_length=512), AfterValidator(_one_line)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(strict=True, max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Mode = Literal["adapter", "context", "hybrid", "auto"]
MAX_SEVERAL = 32
SEVERAL: dict[str, Any] = {"minItems": 2, "maxItems": MAX_SEVERAL, "uniqueItems": True}
DocumentIds = Annotated[list[StrictStr], AfterValidator(_several), Field(json_schema_extra=SEVERAL)]


class ExpiresAfter(_Request):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class UploadFields(_Request):
    """What may come with a document, in a form or as JSON."""

    title: Title | None = Field(None, description="names the document in every question")
    recipe: str | None = Field(None, description="how it is trained; default: the setting `recipe`")
    metadata: Annotated[Metadata, _unless_null({}, Metadata)] = Field(
        default_factory=dict, description="your own notes, handed back"
    )
    expires_after: ExpiresAfter | None = Field(None, description="deletes it by itself; `seconds` after its creation")
    base_model: str | None = Field(None, description="the server's; any other is refused")


class TextUpload(UploadFields):
    """An upload as JSON."""

    text: Annotated[str, AfterValidator(_encodable)] = Field(
        examples=["The keeper's dog is called Brisket."], description="the document, as plain text or Markdown"
    )


class Several(_Request):
    """The request field `document_ids`."""

    document_ids: DocumentIds


class SetUpload(UploadFields):
    """A set made ahead of its first question; `title` is made of its documents' where none is given."""

    document_ids: DocumentIds


class LiftOptions(_Request):
    """The request field `lift`: how a question about a document is to be answered."""

    mode: Annotated[Mode, _unless_null("adapter", Mode)] = Field(
        "adapter", description="where the answer comes from; `auto`: the adapter where it is ready, else the text"
    )
    max_wait_s: float | None = Field(
        None, ge=0, le=86_400, allow_inf_nan=False, description="seconds to wait for the adapter"
    )
    recipe: str | None = Field(None, description="answer from this recipe's version; it is trained where it lacks")
    ttft_budget_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="the most thorough recipe that is there within so many seconds"
    )
    evidence: Annotated[StrictBool, _unless_null(False, StrictBool)] = Field(
        False, description="with the document's segments that support or contradict the answer"
    )


# ---- documents --------------------------------------------------------------------------------------------


class AdapterObject(BaseModel):
    id: str
    version: int
    base_model: str
    recipe: str
    rank: int
    bytes: int


class AdapterVersion(AdapterObject):
    """`ready_s`: seconds from this document's upload until the version was published; the rest went into it."""

    ready_s: float
    tasks: int
    steps: int


class ProgressObject(BaseModel):
    phase: str
    fraction: float
    eta_s: float | None
    segments: int
    tasks: int
    steps: int


class SynthesisObject(BaseModel):
    requests: int
    prompt_tokens: int
    computed_prompt_tokens: int
    generated_tokens: int


class FailureObject(BaseModel):
    code: str
    message: str


class DocumentObject(BaseModel):
    id: str
    object: Literal["document"] = "document"
    created_at: int
    title: str | None
    filename: str | None
    document_ids: list[str] | None
    bytes: int
    tokens: int
    sha256: str
    metadata: dict[str, str]
    expires_at: int | None
    status: str
    unfinished: bool
    progress: ProgressObject
    adapter: AdapterObject | None
    adapters: list[AdapterVersion]
    synthesis: SynthesisObject
    timeline: dict[str, Seconds]
    error: FailureObject | None


class TaskObject(BaseModel):
    """`heading`, the nearest one above, and `page` of what it is about, where the document has such."""

    question: str
    answer: str
    heading: str | None
    page: int | None


class LossObject(BaseModel):
    """`loss`: what the training makes small, in nats; the mean over the steps since the point before."""

    step: int
    loss: float


class LearningObject(BaseModel):
    """What a document is learned with, or was last: the newest tasks, newest last, and the loss so far."""

    id: str
    object: Literal["document.learning"] = "document.learning"
    tasks: list[TaskObject]
    losses: list[LossObject]


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
    best = job.best()
    return DocumentObject(
        id=document.id,
        created_at=int(document.created_s),
        title=document.title,
        filename=document.filename,
        document_ids=document.document_ids or None,
        bytes=document.size_bytes,
        tokens=job.tokens,
        sha256=document.sha256,
        metadata=document.metadata,
        expires_at=None if document.expires_s is None else math.ceil(document.expires_s),
        status=job.status.value,
        unfinished=job.unfinished,
        progress=_progress_object(job.progress),
        adapter=AdapterObject(**_adapter(best)) if best else None,
        adapters=[_adapter_version(adapter, document.created_s) for adapter in job.adapters],
        synthesis=SynthesisObject(**asdict(job.synthesis)),
        timeline=job.timeline.relative_to(document.created_s),
        error=_failure_object(job.error) if job.error else None,
    )


def learning_object(document: DocumentRecord, learning: LearningRecord, where: Whereabouts) -> LearningObject:
    told = zip_longest(learning.tasks, learning.spans)
    return LearningObject(
        id=document.id,
        tasks=[_task_object(question, answer, span, where) for (question, answer), span in told],
        losses=[LossObject(step=step, loss=loss) for step, loss in learning.losses],
    )


def _task_object(question: str, answer: str, span: tuple[int, int] | None, where: Whereabouts) -> TaskObject:
    heading, page = (where.heading(*span), where.page(span[0])) if span else (None, None)
    return TaskObject(question=question, answer=answer, heading=heading, page=page)


def _adapter_version(adapter: AdapterRecord, created_s: float) -> AdapterVersion:
    ready_s = round(max(0.0, adapter.ready_s - created_s), 3)
    return AdapterVersion(**_adapter(adapter), ready_s=ready_s, tasks=adapter.tasks, steps=adapter.steps)


def _adapter(adapter: AdapterRecord) -> dict[str, Any]:
    """An AdapterObject's fields."""
    return {
        "id": adapter.id,
        "version": adapter.version,
        "base_model": adapter.base_model,
        "recipe": adapter.recipe,
        "rank": adapter.rank,
        "bytes": adapter.size_bytes,
    }


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


# ---- keys -------------------------------------------------------------------------------------------------


class UseObject(BaseModel):
    """`limit` 0: none."""

    used: int
    limit: int


class KeyObject(BaseModel):
    """`limits` by the names that `lift-serve keys create` has."""

    object: Literal["key"] = "key"
    id: str | None
    name: str | None
    created_at: int | None
    limits: dict[str, UseObject]


class NewKeyObject(KeyObject):
    """`key`: the secret, told this once."""

    key: str


class KeyRevoked(BaseModel):
    object: Literal["key.revoked"] = "key.revoked"
    id: str


# ---- models -----------------------------------------------------------------------------------------------


class ModelObject(BaseModel):
    """`name` is what a chat front end's model picker shows; OpenAI has none."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "lift-serve"
    name: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]
