"""File parts with their bytes inside → the document they name: uploaded once, found again whenever it is resent.

In: a Question, its body without the parts already. Out: the Question with its `document_id`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace

from lift_config.contract import DocumentRecord, JobRecord, job_documents_redis_key
from lift_config.recipe import Recipe
from lift_server import documents
from lift_server.dialects.dialect import FilePart
from lift_server.errors import DocumentNotFound, InvalidRequest, TooLarge
from lift_server.question import Question
from lift_server.quota import Quota
from lift_server.recipes import servable
from lift_server.schemas import UploadFields
from lift_server.state import State
from lift_server.upload import Upload, accept, fresh_job, plain_name, read_text, text_key
from lift_server.writes import STOPPED

MAX_SEEN = 10_000


@dataclass(frozen=True)
class Inline:
    """A part's bytes."""

    place: str
    filename: str | None
    content: bytes
    sha256: str


async def attach(state: State, question: Question) -> Question:
    """Clients resend the part with each turn, so bytes that are the owner's document already are not taken in again;
    where their training failed or was cancelled it begins anew, as for any upload."""
    if not question.inline:
        return question
    inline = await asyncio.to_thread(_one, question.inline, state.settings.server.max_upload_bytes)
    if question.document_id is not None:
        named, _ = await documents.find(state, question.owner, question.document_id)
        if named.sha256 != inline.sha256:
            raise _two(inline.place)
        return replace(question, inline=())
    upload = _upload(question, inline)
    document = await _seen_before(state, question, upload, inline.sha256)
    if document is None:  # else each turn of a conversation would ask Redis for the lock, and wait for it
        async with state.records.lock(f"inline {question.owner} {inline.sha256}"):
            document = await _document(state, question, upload, inline.sha256)
    return replace(question, document_id=document.id, inline=())


def inline_bytes(question: Question) -> int:
    """How much of the request's body its inline files are."""
    return sum(len(part.data or "") for part in question.inline)


def _one(parts: tuple[FilePart, ...], limit_bytes: int) -> Inline:
    """Several may be given only where they are all the same."""
    first, *others = (_decoded(part, limit_bytes) for part in parts)
    for other in others:
        if other.sha256 != first.sha256:
            raise _two(other.place)
    return first


def _decoded(part: FilePart, limit_bytes: int) -> Inline:
    place, data = f"{part.place}.file_data", part.data or ""
    if data.startswith("data:"):
        kind, comma, data = data.partition(",")
        if not comma or not kind.endswith(";base64"):
            raise InvalidRequest(f"{place}: a data URL must be data:<media type>;base64,<data>.", param=place)
    try:
        content = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{place}: is not valid base64.", param=place) from error
    if len(content) > limit_bytes:
        raise TooLarge("The file", limit_bytes)
    return Inline(place, part.filename, content, hashlib.sha256(content).hexdigest())


async def _seen_before(state: State, question: Question, upload: Upload, sha256: str) -> DocumentRecord | None:
    """The document of bytes that this server has read already."""
    recipe, seen = _seen(state, upload, sha256)
    if (key := state.inline_keys.get(seen)) is None:
        return None
    return await _known(state, question, fresh_job(state.settings, upload, key, recipe), sha256)


def _seen(state: State, upload: Upload, sha256: str) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe, and what these bytes are known by."""
    recipe = servable(state.settings, upload.fields.recipe or state.settings.recipe, param="lift.recipe")
    return recipe, (upload.owner, sha256, plain_name(upload.filename) or "", recipe.name)


async def _document(state: State, question: Question, upload: Upload, sha256: str) -> DocumentRecord:
    """Bytes that were read before are not read again, as long as their document is there."""
    recipe, seen = _seen(state, upload, sha256)
    converted = None
    if (key := state.inline_keys.get(seen)) is None:
        converted = await read_text(state, upload)
        key = text_key(state.settings, upload, converted.text, recipe)
        if len(state.inline_keys) >= MAX_SEEN:
            state.inline_keys.clear()
        state.inline_keys[seen] = key
    known = await _known(state, question, fresh_job(state.settings, upload, key, recipe), sha256)
    return known or (await accept(state, upload, converted))[0]


async def _known(state: State, question: Question, fresh: JobRecord, sha256: str) -> DocumentRecord | None:
    """The owner's document of these bytes that shares the job an upload of them would have."""
    owner = question.owner
    for document_id in sorted(await state.records.redis.smembers(job_documents_redis_key(fresh.key))):
        with suppress(DocumentNotFound):  # expired, or being deleted
            document, job = await documents.find(state, owner, str(document_id))
            if document.sha256 != sha256:
                continue
            if job.status in STOPPED and question.lift.mode != "context":  # which needs no training
                await state.records.add_again(fresh, Quota(state.records.redis, owner, state.settings.limits))
            return document
    return None


def _upload(question: Question, inline: Inline) -> Upload:
    return Upload(
        owner=question.owner,
        content=inline.content,
        param=inline.place,
        filename=inline.filename,
        fields=UploadFields(recipe=question.lift.recipe),
        received_s=question.received_s,
        traceparent=question.traceparent,
    )


def _two(place: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: another document is named as well; a question is about one.", param=place)
