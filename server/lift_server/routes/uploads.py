"""/v1/uploads: a file in parts, for clients that do not send it at once."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request

from lift_server import documents, parts
from lift_server.body import read_form, read_json
from lift_server.errors import validated
from lift_server.file_objects import (
    PartObject,
    UploadComplete,
    UploadCreate,
    UploadObject,
    file_object,
    upload_object,
)
from lift_server.middleware import received_s, traceparent
from lift_server.owner import CurrentOwner
from lift_server.state import CurrentState

router = APIRouter(prefix="/v1/uploads")

BODY_BYTES = 256 * 1024  # the ids of all parts there may be, and more


@router.post("")
async def create(request: Request, state: CurrentState, owner: CurrentOwner) -> UploadObject:
    wanted = validated(UploadCreate, await read_json(request, BODY_BYTES))
    return upload_object(await parts.create(state, owner, wanted, received_s(request)))


@router.post("/{upload_id}/parts")
async def add_part(upload_id: str, request: Request, state: CurrentState, owner: CurrentOwner) -> PartObject:
    upload = await parts.find_pending(state, owner, upload_id)
    form = await read_form(request, upload.size_bytes, "data")
    part_id = await parts.add(state, upload, form.content)
    return PartObject(id=part_id, created_at=int(time.time()), upload_id=upload.id)


@router.post("/{upload_id}/complete")
async def complete(upload_id: str, request: Request, state: CurrentState, owner: CurrentOwner) -> UploadObject:
    upload = await parts.find(state, owner, upload_id)
    wanted = validated(UploadComplete, await read_json(request, BODY_BYTES))
    if upload.document_id is not None:  # asked again, as an SDK does where the answer was lost
        return upload_object(upload, file_object(*await documents.find(state, owner, upload.document_id)))
    completed, document, job = await parts.complete(state, upload, wanted, received_s(request), traceparent(request))
    return upload_object(completed, file_object(document, job))


@router.post("/{upload_id}/cancel")
async def cancel(upload_id: str, state: CurrentState, owner: CurrentOwner) -> UploadObject:
    return upload_object(await parts.cancel(state, owner, upload_id))
