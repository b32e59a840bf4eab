"""/v1/documents: upload, list, look, content, adapter, learning, events, cancel, delete."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from lift_config.contract import DocumentRecord
from lift_server import documents
from lift_server.archive import open_archive
from lift_server.body import JSON_GROWTH, Form, form_values, media_type, read_form, read_json
from lift_server.context import whereabouts
from lift_server.convert.kinds import media_of
from lift_server.errors import TooLarge, UnsupportedFormat, validated
from lift_server.estimate import foretold
from lift_server.events import document_events
from lift_server.middleware import received_s, traceparent
from lift_server.owner import CurrentOwner
from lift_server.schemas import (
    DocumentDeleted,
    DocumentList,
    DocumentObject,
    LearningObject,
    SetUpload,
    TextUpload,
    UploadFields,
    document_object,
    learning_object,
)
from lift_server.sets import make
from lift_server.state import CurrentState
from lift_server.upload import Upload, accept

router = APIRouter(prefix="/v1/documents")


@router.post("")
async def upload(request: Request, state: CurrentState, owner: CurrentOwner) -> DocumentObject:
    limit_bytes = state.settings.server.max_upload_bytes
    kind = media_type(request)
    if kind == "multipart/form-data":
        given = _from_form(request, owner, await read_form(request, limit_bytes))
    elif kind == "application/json":
        values = await read_json(request, JSON_GROWTH * limit_bytes, "The upload")
        if "document_ids" in values:
            wanted = validated(SetUpload, values)
            return document_object(*await make(state, owner, wanted, received_s(request), traceparent(request)))
        given = _from_json(request, owner, values, limit_bytes)
    else:
        raise UnsupportedFormat("Send multipart/form-data or application/json.", code="unsupported_media_type")
    return document_object(*await accept(state, given))


@router.get("")
async def list_documents(
    state: CurrentState,
    owner: CurrentOwner,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> DocumentList:
    found, has_more = await documents.page(state, owner, after=after, limit=limit, newest_first=order == "desc")
    with_jobs = await documents.with_jobs(state, found)
    shown = [document_object(document, await foretold(state, job)) for document, job in with_jobs]
    return DocumentList(
        data=shown,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=has_more,
    )


@router.get("/{document_id}")
async def look(document_id: str, state: CurrentState, owner: CurrentOwner) -> DocumentObject:
    document, job = await documents.find(state, owner, document_id)
    return document_object(document, await foretold(state, job))


@router.get("/{document_id}/content")
async def content(document_id: str, state: CurrentState, owner: CurrentOwner) -> Response:
    return content_response(*await documents.original(state, owner, document_id))


@router.get("/{document_id}/adapter")
async def adapter(
    document_id: str,
    state: CurrentState,
    owner: CurrentOwner,
    version: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    archive = await open_archive(state, owner, document_id, version)
    headers = {
        "Content-Length": str(archive.size_bytes),
        "Content-Disposition": f'attachment; filename="{archive.name}"',
    }
    return StreamingResponse(archive.stream(), headers=headers, media_type="application/x-tar")


@router.get("/{document_id}/learning")
async def learning(document_id: str, state: CurrentState, owner: CurrentOwner) -> LearningObject:
    """The newest dozen of the tasks that the document is learned with, and the loss in 100 points at most; both of its
    last training, and kept until the document is deleted or Redis is lost."""
    document, job = await documents.find(state, owner, document_id)
    return learning_object(document, await state.records.learning(job.key), await whereabouts(state, job))


@router.get("/{document_id}/events")
async def events(document_id: str, state: CurrentState, owner: CurrentOwner, learning: bool = False) -> Response:
    """Server-sent events: the document object now and at every change, until nothing more will come. With `learning`
    also the object of `/learning` at its changes; `object` tells them apart."""
    _, job = await documents.find(state, owner, document_id)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    told = document_events(state, owner, document_id, job.key, with_learning=learning)
    return StreamingResponse(told, headers=headers, media_type="text/event-stream")


@router.post("/{document_id}/cancel")
async def cancel(document_id: str, state: CurrentState, owner: CurrentOwner) -> DocumentObject:
    return document_object(*await documents.cancel(state, owner, document_id))


@router.delete("/{document_id}")
async def delete(document_id: str, state: CurrentState, owner: CurrentOwner) -> DocumentDeleted:
    await documents.delete(state, owner, document_id)
    return DocumentDeleted(id=document_id)


def content_response(document: DocumentRecord, original: bytes) -> Response:
    """The upload as it came; of a browser that opens it nothing is executed."""
    headers = {"Content-Type": media_of(original, document.filename), "X-Content-Type-Options": "nosniff"}
    return Response(original, headers=headers)


def _from_form(request: Request, owner: str, form: Form) -> Upload:
    fields = validated(UploadFields, form_values(form))
    return _upload(request, owner, form.content, "file", form.filename, fields)


def _from_json(request: Request, owner: str, values: dict[str, Any], limit_bytes: int) -> Upload:
    fields = validated(TextUpload, values)
    content = fields.text.encode()
    if len(content) > limit_bytes:
        raise TooLarge("The text", limit_bytes)
    return replace(_upload(request, owner, content, "text", None, fields), is_text=True)


def _upload(
    request: Request, owner: str, content: bytes, param: str, filename: str | None, fields: UploadFields
) -> Upload:
    return Upload(owner, content, param, filename, fields, received_s(request), traceparent(request))
