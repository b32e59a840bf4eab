"""A request's body → a Question: our own fields and file parts taken out and checked, everything else untouched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lift_config.contract import DOCUMENT_ID, cache_salt
from lift_config.settings import Settings
from lift_server.dialects.dialect import Dialect, FilePart
from lift_server.errors import InvalidRequest, ModelNotFound, validated
from lift_server.recipes import servable
from lift_server.schemas import LiftOptions, Several

Json = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """`body` is what the engine is to get, but for the model and the framing. `model` is echoed as asked.

    `inline` brings a document of its own, which attachments.py makes `document_id` of, and sets.py of `document_ids`.
    """

    owner: str
    dialect: Dialect
    body: Json
    model: str
    document_id: str | None
    lift: LiftOptions
    stream: bool
    received_s: float
    traceparent: str | None = None
    inline: tuple[FilePart, ...] = ()
    document_ids: list[str] = field(default_factory=list)


def read_question(
    settings: Settings,
    dialect: Dialect,
    values: Json,
    *,
    owner: str,
    in_header: str | None,
    received_s: float,
    traceparent: str | None,
) -> Question:
    """InvalidRequest naming the field, or ModelNotFound, before anything costs time.

    A document is named by the body's `document_id`, its `metadata.document_id`, the header X-Document-Id
    (`in_header`), the model or a file part; by several only where they agree. `document_ids` stands alone.
    """
    model, in_model = _model(settings, values.get("model"))
    dialect.check(values)
    body, files = dialect.take_files(dict(values))
    in_body, lift, several = (body.pop(name, None) for name in ("document_id", "lift", "document_ids"))
    stream = body.get("stream")
    if stream not in (None, True, False):
        raise InvalidRequest("stream: must be true or false.", param="stream")
    metadata = body.get("metadata")
    named = {
        "document_id": in_body,
        "metadata.document_id": metadata.get("document_id") if isinstance(metadata, dict) else None,
        "X-Document-Id": in_header,
        "model": in_model,
        **{f"{file.place}.file_id": file.file_id for file in files},
    }
    inline = tuple(file for file in files if file.data is not None)
    return Question(
        owner=owner,
        dialect=dialect,
        body=_salted(body, owner),
        model=model,
        document_id=_document_id(named),
        lift=_lift(settings, dialect, lift),
        stream=bool(stream),
        received_s=received_s,
        traceparent=traceparent,
        inline=inline,
        document_ids=_document_ids(several, [place for place, one in named.items() if one is not None], inline),
    )


def _model(settings: Settings, model: Any) -> tuple[str, str | None]:
    """The model as asked for, none being the base model, and the document that `<base>:<document id>` names."""
    if model is None:
        return settings.model_name, None
    if not isinstance(model, str):
        raise InvalidRequest(f"model: must be a string; this server serves {settings.model_name!r}.", param="model")
    if model == settings.model_name:
        return model, None
    document_id = model.removeprefix(f"{settings.model_name}:")
    if not DOCUMENT_ID.fullmatch(document_id) or document_id == model:
        raise ModelNotFound(model)
    return model, document_id


def _salted(body: Json, owner: str) -> Json:
    """With the engine's prefix cache to itself; what is no salt is left for the engine to refuse."""
    given = body.get("cache_salt")
    if not isinstance(given, str | None):
        return body
    salt = cache_salt(owner, given or "")
    return body | {"cache_salt": salt} if salt else body


def _document_id(named: dict[str, Any]) -> str | None:
    """The one document that all places which name one agree on."""
    given = {place: value for place, value in named.items() if value is not None}
    for place, value in given.items():
        if not isinstance(value, str):
            raise InvalidRequest(f"{place}: must be a string.", param=place)
    if len(set(given.values())) > 1:
        places = " and ".join(given)
        raise InvalidRequest(f"{places} name different documents; name one.", param="document_id")
    return next(iter(given.values()), None)


def _document_ids(given: Any, places: list[str], inline: tuple[FilePart, ...]) -> list[str]:
    """Of the documents that are asked as one; none where a single one is named, at `places` or by its bytes."""
    if given is None:
        return []
    for place in (*places, *(f"{file.place}.file_data" for file in inline)):
        message = f"document_ids: {place} names a document too; name all of them in document_ids, or one alone."
        raise InvalidRequest(message, param="document_ids")
    return validated(Several, {"document_ids": given}).document_ids


def _lift(settings: Settings, dialect: Dialect, values: Any) -> LiftOptions:
    if values is None:
        return LiftOptions()
    if not isinstance(values, dict):
        raise InvalidRequest("lift: must be an object.", param="lift")
    lift = validated(LiftOptions, values, prefix="lift.")
    if lift.mode in ("context", "hybrid") and not dialect.FRAMED:
        message = f"lift.mode: {dialect.ROUTE} has no place for the document's text; ask a chat, or leave it out."
        raise InvalidRequest(message, param="lift.mode")
    if lift.recipe is not None:
        servable(settings, lift.recipe, param="lift.recipe")
    for name in ("recipe", "ttft_budget_s"):
        if lift.mode == "context" and getattr(lift, name) is not None:
            message = f"lift.{name}: mode 'context' answers without an adapter; leave one of the two out."
            raise InvalidRequest(message, param=f"lift.{name}")
    if lift.recipe is not None and lift.ttft_budget_s is not None:
        message = "lift.ttft_budget_s: chooses a recipe by itself; leave lift.recipe out, or this."
        raise InvalidRequest(message, param="lift.ttft_budget_s")
    return lift
