"""The application whose OpenAPI document is complete: FastAPI's own, with every operation as the table has it.

In: routes, OPERATIONS. Out: /openapi.json, fit for a fuzzer and for client generators.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lift_config.contract import DOCUMENT_ID
from lift_server.openapi import shapes
from lift_server.openapi.operations import FORM, JSON, OPERATIONS, STREAM, TAGS, Operation

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]

REF = "#/components/schemas/{model}"
DESCRIPTION = (
    "An OpenAI-compatible server that puts a document into a model's weights. Stock OpenAI clients work; a document "
    'is named by `document_id`, `metadata.document_id`, `X-Document-Id`, a file part, or `model="<base>:doc_…"`; '
    "several that are asked as one are named by `document_ids`."
)
EVENT: Json = {
    "description": "Each server-sent event; comments keep the stream alive. `data` is JSON, or `[DONE]` at the end.",
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
HEADERS: dict[str, Json] = {
    "X-Request-Id": {"description": "Of the request, or made up here", "required": True, "schema": {"type": "string"}},
    "openai-processing-ms": {
        "description": "Until the headers were sent", "required": True, "schema": {"type": "integer", "minimum": 0}
    },
}  # fmt: skip
RETRY: dict[str, Json] = {
    "Retry-After": {"description": "Seconds, where waiting helps", "schema": {"type": "integer", "minimum": 1}},
    "x-should-retry": {"description": "`false` where it does not", "schema": {"const": "false"}},
}
READY = "ready"  # tells with the same shape that it is not
RETRIED = (409, 429, 503)
STATUSES = sorted({status for told in OPERATIONS.values() for status in told.all_statuses()})
DOCUMENT_HEADER: Json = {
    "name": "X-Document-Id",
    "in": "header",
    "required": False,
    "description": "The document that is asked, for clients that can set headers only",
    "schema": {"type": "string", "pattern": f"^{DOCUMENT_ID.pattern}$", "examples": [shapes.EXAMPLE_ID]},
}


class Api(FastAPI):
    """Its document is made when it is asked for first."""

    def __init__(self, **given: Any) -> None:
        super().__init__(title="LIFT Serve", version=version("lift-serve"), description=DESCRIPTION, **given)

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            self.openapi_schema = _complete(super().openapi())
        return self.openapi_schema


def _complete(document: Json) -> Json:
    """FastAPI knows paths, parameters and what typed routes answer. KeyError for a route that the table lacks."""
    schemas, named = document["components"]["schemas"], _schemas()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"] |= {
        "schemas": dict(sorted({**schemas, **named}.items())),
        "headers": HEADERS | RETRY,
        "responses": {_error_name(status): _error(status) for status in STATUSES},
    }
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    document["servers"] = [{"url": "/"}]
    for path, methods in document["paths"].items():
        for method, found in methods.items():
            methods[method] = _operation(OPERATIONS[method.upper(), path], found)
    return document


def _operation(told: Operation, found: Json) -> Json:
    parameters = [*found.get("parameters", ()), *([DOCUMENT_HEADER] if told.names_document else ())]
    own: Json = {"operationId": told.id, "tags": [told.tag], "summary": told.summary}
    if "description" in found:
        own["description"] = found["description"]
    if parameters:
        own["parameters"] = parameters
    if told.body:
        own["requestBody"] = {
            "required": True,
            "content": {media: {"schema": _body(told, media, shape)} for media, shape in told.body.items()},
        }
    if not told.is_open:
        own["security"] = found["security"]
    return own | {"responses": _responses(told, found["responses"]["200"])}


def _responses(told: Operation, found: Json) -> Json:
    content = {media: {"schema": _answer(shape, media)} for media, shape in told.answers.items()} or found["content"]
    answers: Json = {"200": {"description": "OK", "headers": _headers(HEADERS), "content": content}}
    if told.makes:
        answers["200"]["links"] = _links(told.makes)
    if told.id == READY:
        answers["503"] = answers["200"] | {"description": "Something does not answer"}
    errors = {str(status): {"$ref": f"#/components/responses/{_error_name(status)}"} for status in told.all_statuses()}
    return answers | errors


def _links(parameter: str) -> Json:
    """To every operation whose path has the parameter."""
    found = [told for (_, path), told in OPERATIONS.items() if f"{{{parameter}}}" in path]
    return {told.id: {"operationId": told.id, "parameters": {parameter: "$response.body#/id"}} for told in found}


def _error(status: int) -> Json:
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _headers(HEADERS | (RETRY if status in RETRIED else {})),
        "content": {JSON: {"schema": _ref(shapes.ErrorEnvelope)}},
    }


def _error_name(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


def _headers(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _body(told: Operation, media: str, shape: type[BaseModel]) -> Json:
    """A form has the shape's fields beside the file; what is null in JSON is left out of it."""
    if media != FORM:
        return _ref(shape)
    schema = shape.model_json_schema(ref_template=REF)
    schema.pop("$defs", None)
    fields = {name: _given(field) for name, field in schema.get("properties", {}).items()}
    schema["properties"] = {told.file: {"type": "string", "format": "binary"}} | fields
    schema["required"] = [told.file, *schema.get("required", ())]
    return schema


def _given(field: Json) -> Json:
    """Its schema where it is not null."""
    kept = [one for one in field.get("anyOf", ()) if one != {"type": "null"}]
    return {name: value for name, value in field.items() if name not in ("anyOf", "default")} | (
        kept[0] if len(kept) == 1 else {}
    )


def _answer(shape: type[BaseModel] | None, media: str) -> Json:
    if shape:
        return _ref(shape)
    return {JSON: {}, STREAM: EVENT}.get(media, {"type": "string"})


def _ref(shape: type[BaseModel]) -> Json:
    return {"$ref": REF.format(model=shape.__name__)}


def _schemas() -> Json:
    """Of all shapes in the table, and of what stands in them."""
    requests = {shape: None for told in OPERATIONS.values() for shape in told.body.values()}
    answers = {shape: None for told in OPERATIONS.values() for shape in told.answers.values() if shape}
    modes: list[tuple[type[BaseModel], Mode]] = [(shape, "validation") for shape in requests]
    modes += [(shape, "serialization") for shape in answers]
    _, definitions = models_json_schema([*modes, (shapes.ErrorEnvelope, "serialization")], ref_template=REF)
    return dict(definitions["$defs"])
