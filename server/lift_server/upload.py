"""An upload → its document's record and a training job; the same content shares one job (records.add).

The producing half of the queue; lift_workers/jobs.py is the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from dataclasses import dataclass, replace
from functools import partial

from lift_config.contract import DocumentRecord, JobRecord, job_key
from lift_config.phases import Phase, Timeline
from lift_config.recipe import Recipe
from lift_config.settings import Settings
from lift_server.convert.converter import Converted
from lift_server.decode import file_text, plain_text
from lift_server.errors import InvalidRequest
from lift_server.quota import Quota
from lift_server.recipes import servable
from lift_server.schemas import UploadFields
from lift_server.state import State
from lift_server.store import refuse_if_full

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """What came in, and whose it is. `param` is the field that held it: `file`, `text`, …"""

    owner: str
    content: bytes
    param: str
    filename: str | None
    fields: UploadFields
    received_s: float
    traceparent: str | None
    purpose: str = "user_data"  # what a client of /v1/files said it is for
    is_text: bool = False  # the text itself, never to be converted
    members: tuple[DocumentRecord, ...] = ()  # a set's documents


async def accept(state: State, upload: Upload, converted: Converted | None = None) -> tuple[DocumentRecord, JobRecord]:
    """Record the document and see that it gets trained; returns before that begins. `converted`: what was read
    already."""
    recipe = servable(state.settings, upload.fields.recipe or state.settings.recipe, param="recipe")
    check_base_model(state.settings, upload.fields)
    await refuse_if_full(state.records.store, state.settings)
    quota = Quota(state.records.redis, upload.owner, state.settings.limits)
    await quota.keep(len(upload.content))  # before it costs anything; and again, for certain, when it is added
    span = state.traces.upload(upload.received_s, upload.traceparent) if state.traces else None
    if span:
        upload = replace(upload, traceparent=span.traceparent)
    converted = converted or await read_text(state, upload)
    text = converted.text
    key = text_key(state.settings, upload, text, recipe)
    fresh = fresh_job(state.settings, upload, key, recipe).changed(text_bytes=len(text.encode()))
    sha256 = await asyncio.to_thread(lambda: hashlib.sha256(upload.content).hexdigest())
    document = _document(upload, sha256, fresh.key)
    job = await state.records.add(document, fresh, upload.content, converted, quota)
    log.info("%s uploaded: %d bytes, job %s is %s", document.id, document.size_bytes, job.key, job.status.value)
    if span:
        span.end(document, job)
    return document, job


def check_base_model(settings: Settings, fields: UploadFields) -> None:
    if fields.base_model not in (None, settings.model_name):
        raise InvalidRequest(f"base_model: this server serves {settings.model_name!r} only.", param="base_model")


async def read_text(state: State, upload: Upload) -> Converted:
    """Its normalised text."""
    if upload.is_text:
        return await plain_text(upload.content, upload.param)
    limit_bytes = state.settings.server.max_upload_bytes  # for what comes out, too
    convert = partial(state.converter.read, owner=upload.owner, limit_bytes=limit_bytes)
    return await file_text(upload.content, upload.filename, upload.param, convert)


def text_key(settings: Settings, upload: Upload, text: str, recipe: Recipe) -> str:
    return job_key(
        owner=upload.owner,
        text=text,
        title=upload.fields.title or None,
        base_model=settings.model_name,
        base_revision=settings.base_revision,
        recipe=recipe,
    )


def fresh_job(settings: Settings, upload: Upload, key: str, recipe: Recipe) -> JobRecord:
    """What trains the upload where nothing has its content yet; `text_bytes` is left to who has the text."""
    return JobRecord(
        key=key,
        owner=upload.owner,
        title=upload.fields.title or None,
        base_model=settings.model_name,
        base_revision=settings.base_revision,
        recipe=recipe.name,
        received_s=upload.received_s,
        traceparent=upload.traceparent,
        fence=int(upload.received_s * 1000),  # above any claim of a job deleted under the same key
        timeline=_queued_timeline(upload.received_s),
    )


def plain_name(filename: str | None) -> str | None:
    """The last part of a path, without control characters or lone surrogates."""
    name = re.split(r"[/\\]", filename or "")[-1]
    return "".join(c for c in name if c.isprintable())[:255] or None


def _queued_timeline(received_s: float) -> Timeline:
    timeline = Timeline()
    timeline.start(Phase.QUEUE, received_s)
    return timeline


def _expires_s(upload: Upload) -> float | None:
    """A set's with the first of its documents at the latest."""
    own = upload.fields.expires_after
    ends_s = [upload.received_s + own.seconds] if own else []
    return min([*ends_s, *(one.expires_s for one in upload.members if one.expires_s is not None)], default=None)


def _document(upload: Upload, sha256: str, key: str) -> DocumentRecord:
    return DocumentRecord(
        id=f"doc_{secrets.token_hex(12)}",
        owner=upload.owner,
        job_key=key,
        title=upload.fields.title or None,
        filename=plain_name(upload.filename),
        size_bytes=len(upload.content),
        sha256=sha256,
        created_s=upload.received_s,
        metadata=upload.fields.metadata,
        expires_s=_expires_s(upload),
        purpose=upload.purpose,
        document_ids=[one.id for one in upload.members],
    )
