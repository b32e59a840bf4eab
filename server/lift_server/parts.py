"""An upload in parts (/v1/uploads): announced → its parts, in the store → put together, a document; or cancelled.

Its record lies in Redis alone: a Redis that is lost loses unfinished uploads. Their parts, like all that were left
behind, are swept from the store by age.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import obstore
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from lift_config.contract import (
    PARTS_FOLDER,
    UPLOAD_ID,
    UPLOAD_OPEN_S,
    DocumentRecord,
    JobRecord,
    UploadRecord,
    open_uploads_redis_key,
    part_path,
    upload_parts_redis_key,
    upload_redis_key,
)
from lift_server.errors import (
    ApiError,
    InvalidRequest,
    TooManyUploads,
    UploadNotFound,
    UploadNotPending,
    validated,
)
from lift_server.file_objects import UploadComplete, UploadCreate
from lift_server.quota import Quota
from lift_server.recipes import servable
from lift_server.schemas import UploadFields
from lift_server.state import State
from lift_server.store import refuse_if_full, store_now_s
from lift_server.upload import Upload, accept, check_base_model

log = logging.getLogger(__name__)

MAX_OPEN = 32  # uploads of one owner
MAX_PARTS = 1000
SENT_AGAIN = 3  # parts may come to so many times the file: SDKs send a part again when its answer was lost
KNOWN_S = 2 * UPLOAD_OPEN_S  # an ended upload is told from an unknown one for so long


async def create(state: State, owner: str, wanted: UploadCreate, created_s: float) -> UploadRecord:
    """Refused here is whatever can be known before the bytes come."""
    _check(state, wanted)
    await refuse_if_full(state.records.store, state.settings)
    await Quota(state.records.redis, owner, state.settings.limits).keep(wanted.bytes)
    upload = UploadRecord(
        id=f"upload_{secrets.token_hex(12)}",
        owner=owner,
        filename=wanted.filename,
        size_bytes=wanted.bytes,
        purpose=wanted.purpose,
        created_s=created_s,
        fields=wanted.model_dump(include=set(UploadFields.model_fields), exclude_none=True),
    )
    await _open(state, upload)
    return upload


async def find(state: State, owner: str, upload_id: str) -> UploadRecord:
    """The owner's upload; UploadNotFound, also for another's and for an id that can be none."""
    if not UPLOAD_ID.fullmatch(upload_id):
        raise UploadNotFound
    fields: Any = await state.records.redis.hgetall(upload_redis_key(upload_id))
    upload = UploadRecord.from_redis(fields) if fields else None
    if upload is None or upload.owner != owner:
        raise UploadNotFound
    return upload


async def find_pending(state: State, owner: str, upload_id: str) -> UploadRecord:
    upload = await find(state, owner, upload_id)
    _check_pending(upload)
    return upload


async def add(state: State, upload: UploadRecord, content: bytes) -> str:
    """Keep a part of a pending upload; its id."""
    if not content:
        raise InvalidRequest("data: the part is empty.", param="data")
    await refuse_if_full(state.records.store, state.settings)
    part_id = f"part_{secrets.token_hex(12)}"
    path = part_path(upload.id, part_id)
    await state.records.put(path, content)
    try:
        await _record_part(state, upload, part_id, len(content))
    except BaseException:
        await state.records.discard(path)
        raise
    return part_id


async def complete(
    state: State, upload: UploadRecord, wanted: UploadComplete, received_s: float, traceparent: str | None
) -> tuple[UploadRecord, DocumentRecord, JobRecord]:
    """The upload, and the document that its parts make. Where they make none, it is pending again."""
    _check_pending(upload)
    await _check_parts(state, upload, wanted.part_ids)
    completed = await _end(state, upload, "completed")
    try:
        given = Upload(
            owner=upload.owner,
            content=await _content(state, upload, wanted),
            param="part_ids",
            filename=upload.filename,
            fields=validated(UploadFields, upload.fields),
            received_s=received_s,
            traceparent=traceparent,
            purpose=upload.purpose,
        )
        document, job = await accept(state, given)
    except BaseException:
        await _reopen(state, upload)
        raise
    await state.records.redis.hset(upload_redis_key(upload.id), "document_id", json.dumps(document.id))
    await _forget_parts(state, upload)
    log.info("%s completed: %s", upload.id, document.id)
    return completed, document, job


async def cancel(state: State, owner: str, upload_id: str) -> UploadRecord:
    """A second time changes nothing."""
    upload = await find(state, owner, upload_id)
    if upload.status == "cancelled":
        return upload
    cancelled = await _end(state, upload, "cancelled")
    await _forget_parts(state, upload)
    return cancelled


async def sweep(state: State) -> None:
    """Delete parts of uploads that expired, or that nobody knows any more."""
    async for batch in obstore.list(state.records.store, PARTS_FOLDER):
        before_s = await store_now_s(state.records.store) - UPLOAD_OPEN_S
        for entry in batch:
            if entry["last_modified"].timestamp() < before_s:
                await state.records.discard(entry["path"])


# ---- before anything is written ---------------------------------------------------------------------------


def _check(state: State, wanted: UploadCreate) -> None:
    limit_bytes = state.settings.server.max_upload_bytes
    if wanted.bytes > limit_bytes:
        message = f"bytes: the file is larger than the limit of {limit_bytes} bytes."
        raise ApiError(413, message, code="too_large", param="bytes")
    check_base_model(state.settings, wanted)
    servable(state.settings, wanted.recipe or state.settings.recipe, param="recipe")


def _check_pending(upload: UploadRecord) -> None:
    if upload.status != "pending":
        raise UploadNotPending(upload.status)
    if upload.expires_s <= time.time():
        raise UploadNotPending("expired")


async def _check_parts(state: State, upload: UploadRecord, part_ids: tuple[str, ...]) -> None:
    sizes = await _sizes(state, upload)
    if unknown := [part_id for part_id in part_ids if part_id not in sizes]:
        raise InvalidRequest(f"part_ids: the upload has no part {unknown[0]!r}.", param="part_ids")
    if len(set(part_ids)) < len(part_ids):
        raise InvalidRequest("part_ids: a part is named twice.", param="part_ids")
    size_bytes = sum(sizes[part_id] for part_id in part_ids)
    if size_bytes != upload.size_bytes:
        message = f"part_ids: the parts have {size_bytes} bytes, {upload.size_bytes} were announced."
        raise InvalidRequest(message, param="part_ids")


async def _content(state: State, upload: UploadRecord, wanted: UploadComplete) -> bytes:
    parts = [await state.records.read(part_path(upload.id, part_id)) for part_id in wanted.part_ids]
    if None in parts:
        raise UploadNotPending("expired")  # the sweep was here this moment
    content = b"".join(part for part in parts if part is not None)
    if wanted.md5 is not None and await asyncio.to_thread(_md5, content) != wanted.md5:
        raise InvalidRequest("md5: the parts in this order have another checksum.", param="md5")
    return content


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# ---- Redis ------------------------------------------------------------------------------------------------


async def _in_redis(state: State, keys: tuple[str, ...], change: Callable[[Pipeline], Awaitable[None]]) -> None:
    """`change` looks, then queues commands; again where one of `keys` changed meanwhile."""
    while True:
        with suppress(WatchError):
            async with state.records.transaction(*keys) as pipe:
                await change(pipe)
                await pipe.execute()
                return


async def _open(state: State, upload: UploadRecord) -> None:
    opened = open_uploads_redis_key(upload.owner)

    async def change(pipe: Pipeline) -> None:
        if await state.records.redis.zcount(opened, upload.created_s, "+inf") >= MAX_OPEN:
            raise TooManyUploads(MAX_OPEN)
        pipe.multi()  # type: ignore[no-untyped-call]
        fields: dict[Any, Any] = {**upload.to_redis()}  # redis-py's type for a mapping is invariant
        pipe.hset(upload_redis_key(upload.id), mapping=fields)
        pipe.expire(upload_redis_key(upload.id), KNOWN_S)
        pipe.zremrangebyscore(opened, "-inf", upload.created_s)
        pipe.zadd(opened, {upload.id: upload.expires_s})
        pipe.expire(opened, KNOWN_S)

    await _in_redis(state, (opened,), change)


async def _record_part(state: State, upload: UploadRecord, part_id: str, size_bytes: int) -> None:
    parts = upload_parts_redis_key(upload.id)

    async def change(pipe: Pipeline) -> None:
        await find_pending(state, upload.owner, upload.id)
        sizes = await _sizes(state, upload)
        if len(sizes) >= MAX_PARTS:
            raise InvalidRequest(f"data: the upload has its {MAX_PARTS} parts already.", param="data")
        if sum(sizes.values()) + size_bytes > SENT_AGAIN * upload.size_bytes:
            message = f"data: the parts come to more than {SENT_AGAIN} times the {upload.size_bytes} announced bytes."
            raise InvalidRequest(message, param="data")
        pipe.multi()  # type: ignore[no-untyped-call]
        pipe.hset(parts, part_id, str(size_bytes))
        pipe.expire(parts, KNOWN_S)

    await _in_redis(state, (upload_redis_key(upload.id), parts), change)


async def _end(state: State, upload: UploadRecord, status: Literal["completed", "cancelled"]) -> UploadRecord:
    """The upload with its new status; UploadNotPending where another request was faster."""
    ended = replace(upload, status=status)

    async def change(pipe: Pipeline) -> None:
        await find_pending(state, upload.owner, upload.id)
        pipe.multi()  # type: ignore[no-untyped-call]
        pipe.hset(upload_redis_key(upload.id), "status", ended.to_redis()["status"])

    await _in_redis(state, (upload_redis_key(upload.id),), change)
    return ended


async def _reopen(state: State, upload: UploadRecord) -> None:
    await state.records.redis.hset(upload_redis_key(upload.id), "status", upload.to_redis()["status"])


async def _forget_parts(state: State, upload: UploadRecord) -> None:
    for part_id in await _sizes(state, upload):
        await state.records.discard(part_path(upload.id, part_id))
    async with state.records.redis.pipeline() as pipe:
        pipe.delete(upload_parts_redis_key(upload.id))
        pipe.zrem(open_uploads_redis_key(upload.owner), upload.id)
        await pipe.execute()


async def _sizes(state: State, upload: UploadRecord) -> dict[str, int]:
    """Bytes by part."""
    found = await state.records.redis.hgetall(upload_parts_redis_key(upload.id))
    return {str(part_id): int(size_bytes) for part_id, size_bytes in found.items()}
