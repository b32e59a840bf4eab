"""A chat request's body → a Question: our own fields taken out and checked, everything else untouched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lift_config.contract import DOCUMENT_ID
from lift_config.settings import Settings
from lift_server.errors import InvalidRequest, ModelNotFound, validated
from lift_server.recipes import servable
from lift_server.schemas import LiftOptions

Json = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """`body` is what the engine is to get, but for the model and the framing. `model` is echoed as asked."""

    owner: str
    body: Json
    model: str
    document_id: str | None
    lift: LiftOptions
    stream: bool
    received_s: float
    traceparent: str | None = None


def read_question(
    settings: Settings,
    values: Json,
    *,
    owner: str,
    in_header: str | None,
    received_s: float,
    traceparent: str | None,
) -> Question:
    """InvalidRequest naming the field, or ModelNotFound, before anything costs time.

    A document is named by the body's `document_id`, its `metadata.document_id`, the header X-Document-Id
    (`in_header`) or the model; by several only where they agree.
    """
    body = dict(values)
    in_body, lift = body.pop("document_id", None), body.pop("lift", None)
    model, in_model = _model(settings, body.get("model"))
    metadata = body.get("metadata")
    in_metadata = metadata.get("document_id") if isinstance(metadata, dict) else None
    stream = body.get("stream")
    if stream not in (None, True, False):
        raise InvalidRequest("stream: must be true or false.", param="stream")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise InvalidRequest("messages: must be a list of at least one message.", param="messages")
    return Question(
        owner=owner,
        body=body,
        model=model,
        document_id=_document_id(
            {"document_id": in_body, "metadata.document_id": in_metadata, "X-Document-Id": in_header, "model": in_model}
        ),
        lift=_lift(settings, lift),
        stream=bool(stream),
        received_s=received_s,
        traceparent=traceparent,
    )


def _model(settings: Settings, model: Any) -> tuple[str, str | None]:
    """The model as asked for, and the document that `<base>:<document id>` names."""
    if not isinstance(model, str):
        raise InvalidRequest(f"model: must be a string; this server serves {settings.model_name!r}.", param="model")
    if model == settings.model_name:
        return model, None
    document_id = model.removeprefix(f"{settings.model_name}:")
    if not DOCUMENT_ID.fullmatch(document_id) or document_id == model:
        raise ModelNotFound(model)
    return model, document_id


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


def _lift(settings: Settings, values: Any) -> LiftOptions:
    if values is None:
        return LiftOptions()
    if not isinstance(values, dict):
        raise InvalidRequest("lift: must be an object.", param="lift")
    lift = validated(LiftOptions, values, prefix="lift.")
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
