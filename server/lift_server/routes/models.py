"""/v1/models: the base model, and ready documents as `<base>:<document id>`."""

from __future__ import annotations

from fastapi import APIRouter

from lift_config.contract import DocumentRecord, Status
from lift_server import documents
from lift_server.errors import DocumentNotFound, ModelNotFound
from lift_server.owner import CurrentOwner
from lift_server.schemas import ModelList, ModelObject
from lift_server.state import CurrentState, State

router = APIRouter(prefix="/v1/models")

SHOWN_DOCUMENTS = 100


@router.get("")
async def list_models(state: CurrentState, owner: CurrentOwner) -> ModelList:
    base = _base(state)
    models = [base]
    async for document, job in documents.in_order(state, owner):
        if job.status is Status.READY:
            models.append(_of_document(base, document))
        if len(models) > SHOWN_DOCUMENTS:
            break
    return ModelList(data=models)


@router.get("/{model_id:path}")
async def look(model_id: str, state: CurrentState, owner: CurrentOwner) -> ModelObject:
    base = _base(state)
    if model_id == base.id:
        return base
    document_id = model_id.removeprefix(f"{base.id}:")
    try:
        document, job = await documents.find(state, owner, document_id)
    except DocumentNotFound as error:
        raise ModelNotFound(model_id) from error
    if document_id == model_id or job.status is not Status.READY:
        raise ModelNotFound(model_id)
    return _of_document(base, document)


def _base(state: State) -> ModelObject:
    name = state.settings.model_name
    return ModelObject(id=name, created=int(state.started_s), name=name)


def _of_document(base: ModelObject, document: DocumentRecord) -> ModelObject:
    name = document.title or document.filename or document.id
    return ModelObject(id=f"{base.id}:{document.id}", created=int(document.created_s), name=name)
