"""OpenAI's shapes of files and of uploads in parts: what a request may hold, and the objects that answer."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StringConstraints

from lift_config.contract import DocumentRecord, Failure, JobRecord, Status, UploadRecord
from lift_server.job_states import JobState
from lift_server.schemas import UploadFields
from lift_server.upload import plain_name

Purpose = Literal["user_data", "assistants"]
# All of OpenAI's: a list may be asked for those that no file here has.
ListedPurpose = Literal[
    "assistants",
    "assistants_output",
    "batch",
    "batch_output",
    "evals",
    "fine-tune",
    "fine-tune-results",
    "user_data",
    "vision",
]
UNTITLED = ".txt"  # after the id of a document that came without a file name: clients want one

# ---- requests ---------------------------------------------------------------------------------------------


def _file_name(given: str) -> str:
    name = plain_name(given)
    if name is None:
        raise ValueError("has no printable character after its last slash")
    return name


class FileFields(UploadFields):
    """What may come with a file, in a form."""

    purpose: Purpose


class UploadCreate(FileFields):
    """A file announced. `mime_type` is any: the content decides whether it can be read."""

    bytes: StrictInt = Field(gt=0)
    filename: Annotated[str, StringConstraints(max_length=1024), AfterValidator(_file_name)]
    mime_type: Annotated[str, StringConstraints(min_length=1, max_length=255)]


class UploadComplete(BaseModel):
    """`part_ids` in the order of their bytes; `md5` of all of them, in hexadecimal digits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    part_ids: tuple[Annotated[str, StringConstraints(strict=True, max_length=64)], ...] = Field(min_length=1)
    md5: Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{32}$")] | None = None


# ---- answers ----------------------------------------------------------------------------------------------


class FileObject(BaseModel):
    """A document as a file; `processed` once it can be asked."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class UploadObject(BaseModel):
    """An upload in parts; `file` once it is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled"]
    file: FileObject | None = None


class PartObject(BaseModel):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


def file_object(document: DocumentRecord, job: JobRecord | JobState) -> FileObject:
    return FileObject(
        id=document.id,
        bytes=document.size_bytes,
        created_at=int(document.created_s),
        expires_at=None if document.expires_s is None else math.ceil(document.expires_s),
        filename=document.filename or f"{document.id}{UNTITLED}",
        purpose=document.purpose,
        status=_file_status(job.status),
        status_details=_why(job.status, job.error),
    )


def upload_object(upload: UploadRecord, file: FileObject | None = None) -> UploadObject:
    return UploadObject(
        id=upload.id,
        bytes=upload.size_bytes,
        created_at=int(upload.created_s),
        expires_at=math.ceil(upload.expires_s),
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.status,
        file=file,
    )


def _file_status(status: Status) -> Literal["uploaded", "processed", "error"]:
    """What is cancelled is an error here: a client that waits for `processed` has to hear of it."""
    if status is Status.READY:
        return "processed"
    return "error" if status in (Status.FAILED, Status.CANCELLED) else "uploaded"


def _why(status: Status, failure: Failure | None) -> str | None:
    if status is Status.CANCELLED:
        return "The training was cancelled."
    return failure.message if status is Status.FAILED and failure else None
