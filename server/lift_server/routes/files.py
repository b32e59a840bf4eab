"""/v1/files: documents as OpenAI's clients know files. A file's id is its document's."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from lift_server import documents
from lift_server.body import form_values, read_form
from lift_server.errors import validated
from lift_server.file_objects import FileDeleted, FileFields, FileList, FileObject, ListedPurpose, file_object
from lift_server.middleware import received_s, traceparent
from lift_server.owner import CurrentOwner
from lift_server.routes.documents import content_response
from lift_server.state import CurrentState
from lift_server.upload import Upload, accept

router = APIRouter(prefix="/v1/files")

MOST = 10_000


@router.post("")
async def create(request: Request, state: CurrentState, owner: CurrentOwner) -> FileObject:
    form = await read_form(request, state.settings.server.max_upload_bytes)
    fields = validated(FileFields, form_values(form))
    upload = Upload(
        owner=owner,
        content=form.content,
        param="file",
        filename=form.filename,
        fields=fields,
        received_s=received_s(request),
        traceparent=traceparent(request),
        purpose=fields.purpose,
    )
    return file_object(*await accept(state, upload))


@router.get("")
async def list_files(
    state: CurrentState,
    owner: CurrentOwner,
    limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: ListedPurpose | None = None,
) -> FileList:
    found, has_more = await documents.page(
        state, owner, after=after, limit=limit, newest_first=order == "desc", purpose=purpose
    )
    shown = [file_object(document, job) for document, job in found]
    return FileList(
        data=shown,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=has_more,
    )


@router.get("/{file_id}")
async def look(file_id: str, state: CurrentState, owner: CurrentOwner) -> FileObject:
    return file_object(*await documents.find(state, owner, file_id))


@router.get("/{file_id}/content")
async def content(file_id: str, state: CurrentState, owner: CurrentOwner) -> Response:
    return content_response(*await documents.original(state, owner, file_id))


@router.delete("/{file_id}")
async def delete(file_id: str, state: CurrentState, owner: CurrentOwner) -> FileDeleted:
    await documents.delete(state, owner, file_id)
    return FileDeleted(id=file_id)
