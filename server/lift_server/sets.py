"""Several documents asked at once → a set: a document of its own, with one adapter trained over all their texts.

In: the ids of an owner's documents, with a question or ahead of it. Out: the set's record; asked again, in whatever
order, the one there is. Only the texts are needed: how far the documents' own trainings are does not matter.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate

from lift_config.contract import DOCUMENT_ID, DocumentRecord, JobRecord
from lift_server import documents
from lift_server.context import full_text
from lift_server.convert.converter import Converted
from lift_server.documents import Found
from lift_server.errors import ApiError, DocumentNotFound, InvalidRequest
from lift_server.question import Question
from lift_server.schemas import SetUpload
from lift_server.state import State
from lift_server.upload import Upload, accept

TITLE_CHARS = 200  # the title stands in every question
NAME_CHARS = 80  # of a document, in the title
BEGINNING_CHARS = 40
BETWEEN = "\n\n"


@dataclass(frozen=True)
class Section:
    """One document's text, headed so that readers and the tasks written about it can tell which it is."""

    name: str
    text: str
    document: DocumentRecord


async def attach_set(state: State, question: Question) -> Question:
    """A question that names several documents is asked of their set, which is made where there is none yet."""
    ids = question.document_ids
    if not ids:
        return question
    found = await _known(state, question.owner, ids)
    if found is None:
        async with state.records.lock(f"set {question.owner} {sorted(ids)}"):
            found = await _known(state, question.owner, ids) or await _made(state, question)
    return replace(question, document_id=found.id)


async def make(
    state: State, owner: str, wanted: SetUpload, received_s: float, traceparent: str | None
) -> tuple[DocumentRecord, JobRecord]:
    """As by an upload of the text: a document of its own each time, and one training."""
    sections = await _sections(state, await _members(state, owner, wanted.document_ids))
    converted = _joined(sections)
    title = wanted.title or _title([section.name for section in sections])
    upload = Upload(
        owner=owner,
        content=converted.text.encode(),
        param="document_ids",
        filename=None,
        fields=wanted.model_copy(update={"title": title}),
        received_s=received_s,
        traceparent=traceparent,
        is_text=True,
        members=tuple(section.document for section in sections),
    )
    return await accept(state, upload, converted)


async def _members(state: State, owner: str, ids: list[str]) -> list[Found]:
    """Each document; DocumentNotFound as for one. No sets: what they are made of would be in the text twice."""
    found = []
    for at, document_id in enumerate(ids):
        param = f"document_ids.{at}"
        try:
            document, job = await documents.find(state, owner, document_id)
        except DocumentNotFound as error:
            raise DocumentNotFound(param) from error
        if document.document_ids:
            raise InvalidRequest(f"{param}: is made of several documents itself; name those.", param=param)
        found.append((document, job))
    return found


async def _known(state: State, owner: str, ids: list[str]) -> DocumentRecord | None:
    """The set of exactly these that was made last; it is there only while all of them are. One of another base model
    is passed over: the texts can be trained anew."""
    if not all(map(DOCUMENT_ID.fullmatch, ids)):
        return None
    base = (state.settings.model_name, state.settings.base_revision)
    candidates = await state.records.sets_of(*ids)
    for one in sorted(candidates, key=lambda one: one.created_s, reverse=True):
        with suppress(DocumentNotFound):  # being deleted
            document, job = await documents.find(state, owner, one.id)
            if len(document.document_ids) == len(ids) and (job.base_model, job.base_revision) == base:
                return document
    return None


async def _made(state: State, question: Question) -> DocumentRecord:
    wanted = SetUpload(document_ids=question.document_ids, recipe=question.lift.recipe)
    return (await make(state, question.owner, wanted, question.received_s, question.traceparent))[0]


async def _sections(state: State, members: list[Found]) -> list[Section]:
    """In an order that only the texts decide, so that the same texts are the same training."""
    limit_bytes = state.settings.server.max_upload_bytes
    left_bytes = limit_bytes + len(BETWEEN)
    sections = []
    for document, job in members:
        text = await full_text(state, job)
        name = unicodedata.normalize("NFC", document.title or document.filename or _beginning(text))
        section = Section(name, f'Document "{name}":{BETWEEN}{text.strip()}', document)
        left_bytes -= len(section.text.encode()) + len(BETWEEN)
        if left_bytes < 0:  # before the next one is read
            message = f"The documents' texts together are larger than the limit of {limit_bytes} bytes."
            raise ApiError(413, message, code="too_large", param="document_ids")
        sections.append(section)
    return sorted(sections, key=lambda section: section.text)


def _joined(sections: list[Section]) -> Converted:
    """Each document's head is the heading of all its text: evidence says by it which document a segment is of."""
    ends = accumulate(len(section.text) + len(BETWEEN) for section in sections)
    return Converted(BETWEEN.join(section.text for section in sections), {"headings": [0, *ends][: len(sections)]})


def _beginning(text: str) -> str:
    """Of a document without any name."""
    line = " ".join(text[: 10 * BEGINNING_CHARS].split())
    return _cut("".join(character for character in line if character.isprintable()), BEGINNING_CHARS)


def _title(names: list[str]) -> str:
    """As many of the names as there is room for."""
    shown = [_cut(name, NAME_CHARS) for name in names]
    while len("; ".join(shown)) > TITLE_CHARS:
        shown.pop()
    hidden = len(names) - len(shown)
    return "; ".join(shown) + (f" and {hidden} more" if hidden else "")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
