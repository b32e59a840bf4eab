"""/v1/documents: upload, list, look, content, cancel, delete."""

from __future__ import annotations

import json
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from lift_server import documents
from lift_server.body import JSON_GROWTH, Form, media_type, read_form, read_json
from lift_server.decode import is_utf16
from lift_server.errors import InvalidRequest, TooLarge, UnsupportedFormat, validated
from lift_server.middleware import received_s, traceparent
from lift_server.owner import CurrentOwner
from lift_server.schemas import (
    DocumentDeleted,
    DocumentList,
    DocumentObject,
    TextUpload,
    UploadFields,
    document_object,
)
from lift_server.state import CurrentState
from lift_server.upload import Upload, accept

router = APIRouter(prefix="/v1/documents")

JSON_FIELDS = ("metadata", "expires_after")  # sent as JSON text in a form


@router.post("")
async def upload(request: Request, state: CurrentState, owner: CurrentOwner) -> DocumentObject:
    limit_bytes = state.settings.server.max_upload_bytes
    kind = media_type(request)
    if kind == "multipart/form-data":
        given = _from_form(request, owner, await read_form(request, limit_bytes))
    elif kind == "application/json":
        values = await read_json(request, JSON_GROWTH * limit_bytes, "The upload")
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
    newest_first = order == "desc"
    start = 0
    if after is not None:
        rank = await state.records.rank(owner, after, newest_first=newest_first)
        if rank is None:
            raise InvalidRequest("after: no such document.", param="after")
        start = rank + 1
    found = []
    async for document, job in documents.in_order(state, owner, start=start, newest_first=newest_first):
        found.append(document_object(document, job))
        if len(found) > limit:
            break
    page = list(islice(found, limit))
    return DocumentList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(found) > limit,
    )


@router.get("/{document_id}")
async def look(document_id: str, state: CurrentState, owner: CurrentOwner) -> DocumentObject:
    return document_object(*await documents.find(state, owner, document_id))


@router.get("/{document_id}/content")
async def content(document_id: str, state: CurrentState, owner: CurrentOwner) -> Response:
    document, original = await documents.original(state, owner, document_id)
    is_markdown = (document.filename or "").lower().endswith((".md", ".markdown"))
    kind = "text/markdown" if is_markdown else "text/plain"
    charset = "utf-16" if is_utf16(original) else "utf-8"
    headers = {"Content-Type": f"{kind}; charset={charset}", "X-Content-Type-Options": "nosniff"}
    return Response(original, headers=headers)


@router.post("/{document_id}/cancel")
async def cancel(document_id: str, state: CurrentState, owner: CurrentOwner) -> DocumentObject:
    return document_object(*await documents.cancel(state, owner, document_id))


@router.delete("/{document_id}")
async def delete(document_id: str, state: CurrentState, owner: CurrentOwner) -> DocumentDeleted:
    await documents.delete(state, owner, document_id)
    return DocumentDeleted(id=document_id)


def _from_form(request: Request, owner: str, form: Form) -> Upload:
    values: dict[str, Any] = dict(form.fields)
    for name in JSON_FIELDS:
        if name in values:
            values[name] = _field_json(name, values[name])
    fields = validated(UploadFields, values)
    return _upload(request, owner, form.content, "file", form.filename, fields)


def _from_json(request: Request, owner: str, values: dict[str, Any], limit_bytes: int) -> Upload:
    fields = validated(TextUpload, values)
    content = fields.text.encode()
    if len(content) > limit_bytes:
        raise TooLarge("The text", limit_bytes)
    return _upload(request, owner, content, "text", None, fields)


def _upload(
    request: Request, owner: str, content: bytes, param: str, filename: str | None, fields: UploadFields
) -> Upload:
    return Upload(owner, content, param, filename, fields, received_s(request), traceparent(request))


def _field_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name}: is not valid JSON: {error}", param=name) from error
