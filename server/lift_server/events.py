"""A document's changes → server-sent events: its object now and whenever that changed, until nothing more will come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from lift_server import documents
from lift_server.context import whereabouts
from lift_server.errors import DocumentNotFound, as_api_error
from lift_server.estimate import foretold
from lift_server.places import Whereabouts
from lift_server.schemas import DocumentDeleted, DocumentObject, LearningObject, document_object, learning_object
from lift_server.state import State
from lift_server.watch import RECHECK_S


async def document_events(
    state: State, owner: str, document_id: str, job_key: str, *, with_learning: bool
) -> AsyncIterator[bytes]:
    """All watchers of a process share its one subscription. A deletion is told as the route that deletes tells it."""
    try:
        with state.watcher.changes(job_key) as changed:
            async for part in _changes(state, owner, document_id, changed, with_learning):
                yield part
    except DocumentNotFound:
        yield _event(DocumentDeleted(id=document_id).model_dump_json())
    except Exception as error:  # noqa: BLE001 - the HTTP edge: the headers are gone, the envelope can still be sent
        yield _event(json.dumps(as_api_error(error).envelope()))
    yield _event("[DONE]")


async def _changes(
    state: State, owner: str, document_id: str, changed: asyncio.Event, with_learning: bool
) -> AsyncIterator[bytes]:
    """Looks again every RECHECK_S: a message may be lost, and a document may expire."""
    told: DocumentObject | None = None
    learned: LearningObject | None = None
    where: Whereabouts | None = None
    while True:
        state.watcher.refuse_stopping()
        changed.clear()
        document, job = await documents.find(state, owner, document_id)
        shown = document_object(document, await foretold(state, job))
        yield _event(shown.model_dump_json()) if shown != told else f": {shown.status}\n\n".encode()
        if with_learning:
            where = where or await whereabouts(state, job)  # read once: a job's text stays the same
            learning = learning_object(document, await state.records.learning(job.key), where)
            if learning != learned:
                yield _event(learning.model_dump_json())
            learned = learning
        if not job.unfinished:
            return
        told = shown
        with suppress(TimeoutError):
            async with asyncio.timeout(RECHECK_S):
                await changed.wait()


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
