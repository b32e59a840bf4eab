"""The table: for every route what FastAPI cannot tell of it. Statuses are all that can come, beside those of COMMON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import BaseModel

from lift_server.file_objects import FileFields, UploadComplete, UploadCreate
from lift_server.openapi import shapes
from lift_server.routes.offered import OFFERED, OFFERED_AUDIO
from lift_server.schemas import UploadFields

JSON = "application/json"
FORM = "multipart/form-data"
STREAM = "text/event-stream"
COMMON = (401, 429, 500, 503)  # the key, its limits, and what is not the client's doing
BODY = (400, 413, 415)
ENGINE = (404, 502)
TAGS = {
    "Documents": "Texts that a small adapter is trained on.",
    "Files": "The same documents, as OpenAI's clients know files; in parts, too.",
    "Ask": "Questions, to a document or to the base model, as OpenAI's and vLLM's clients ask them.",
    "Keys": "The key that is shown, and no other. Keys are made where the server runs: `lift-serve keys`.",
    "Models": "The base model, and ready documents as models.",
    "Pass-through": "What else the engine may offer for the base model it runs; 404 `not_offered` where it does not.",
    "Operate": "For whoever runs the server. No key is needed.",
}

PASSED: dict[str, type[BaseModel]] = {
    "/v1/embeddings": shapes.EmbeddingRequest,
    "/tokenize": shapes.TokenizeRequest,
    "/detokenize": shapes.DetokenizeRequest,
}


@dataclass(frozen=True)
class Operation:
    """`id` is what a client generator calls it. `answers`: media types of a 200, with their shape where one is known;
    empty: as FastAPI has it. `file`: the form's part that is a file."""

    id: str
    tag: str
    summary: str
    statuses: tuple[int, ...] = ()
    body: dict[str, type[BaseModel]] = field(default_factory=dict)
    file: str | None = None
    answers: dict[str, type[BaseModel] | None] = field(default_factory=dict)
    makes: str | None = None  # the path parameter that its answer's `id` is good for
    names_document: bool = False  # by the header X-Document-Id
    is_open: bool = False

    def all_statuses(self) -> Iterator[int]:
        yield from sorted({*self.statuses, *(() if self.is_open else COMMON)})


def _question(name: str, what: str, body: type[BaseModel], answer: type[BaseModel]) -> Operation:
    answers: dict[str, type[BaseModel] | None] = {JSON: answer, STREAM: None}
    return Operation(name, "Ask", what, (*BODY, *ENGINE, 409), {JSON: body}, answers=answers, names_document=True)


def _passed(path: str) -> Operation:
    is_audio, name = path in OFFERED_AUDIO, path.strip("/").replace("/", "_")
    return Operation(
        f"pass_{name}",
        "Pass-through",
        f"{path} of the engine",
        (*BODY, *ENGINE),
        {FORM: shapes.Audio} if is_audio else {JSON: PASSED.get(path, shapes.Passed)},
        "file" if is_audio else None,
        {JSON: None, "text/plain": None, STREAM: None} if is_audio else {JSON: None},
    )


def _no_response(name: str, what: str) -> Operation:
    return Operation(name, "Ask", f"{what}: none is kept, so always 404", (404,), answers={JSON: None})


UPLOADED = dict.fromkeys(("text/plain", "text/markdown", "application/pdf", "application/octet-stream"))

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/documents"): Operation(
        "create_document", "Documents", "Upload a document, or make one of several", (*BODY, 404),
        {JSON: shapes.JsonUpload, FORM: UploadFields}, "file", makes="document_id",
    ),
    ("GET", "/v1/documents"): Operation("list_documents", "Documents", "List documents, newest first", (400,)),
    ("GET", "/v1/documents/{document_id}"): Operation("get_document", "Documents", "Look at a document", (404,)),
    ("GET", "/v1/documents/{document_id}/content"): Operation(
        "get_document_content", "Documents", "The upload as it came", (404,),
        answers=UPLOADED,
    ),
    ("GET", "/v1/documents/{document_id}/adapter"): Operation(
        "get_document_adapter", "Documents", "A version of the adapter, for peft and vLLM", (400, 404, 409),
        answers={"application/x-tar": None},
    ),
    ("GET", "/v1/documents/{document_id}/learning"): Operation(
        "get_document_learning", "Documents", "The newest tasks it is learned with, and the loss", (404,)
    ),
    ("GET", "/v1/documents/{document_id}/events"): Operation(
        "watch_document", "Documents", "The document now and at every change, until its training ends", (400, 404),
        answers={STREAM: None},
    ),
    ("POST", "/v1/documents/{document_id}/cancel"): Operation(
        "cancel_document", "Documents", "Stop what is still being trained", (404, 409)
    ),
    ("DELETE", "/v1/documents/{document_id}"): Operation("delete_document", "Documents", "Delete a document", (404,)),
    ("POST", "/v1/files"): Operation(
        "create_file", "Files", "Upload a file", BODY, {FORM: FileFields}, "file", makes="file_id"
    ),
    ("GET", "/v1/files"): Operation("list_files", "Files", "List files, newest first", (400,)),
    ("GET", "/v1/files/{file_id}"): Operation("get_file", "Files", "Look at a file", (404,)),
    ("GET", "/v1/files/{file_id}/content"): Operation(
        "get_file_content", "Files", "The upload as it came", (404,),
        answers=UPLOADED,
    ),
    ("DELETE", "/v1/files/{file_id}"): Operation("delete_file", "Files", "Delete a file", (404,)),
    ("POST", "/v1/uploads"): Operation(
        "create_upload", "Files", "Announce a file in parts", BODY, {JSON: UploadCreate}, makes="upload_id"
    ),
    ("POST", "/v1/uploads/{upload_id}/parts"): Operation(
        "add_upload_part", "Files", "Add a part", (*BODY, 404, 409), {FORM: shapes.Part}, "data"
    ),
    ("POST", "/v1/uploads/{upload_id}/complete"): Operation(
        "complete_upload", "Files", "Make the file of its parts", (*BODY, 404, 409), {JSON: UploadComplete}
    ),
    ("POST", "/v1/uploads/{upload_id}/cancel"): Operation("cancel_upload", "Files", "Give an upload up", (404, 409)),
    ("POST", "/v1/chat/completions"): _question(
        "create_chat_completion", "Ask a chat", shapes.ChatRequest, shapes.ChatCompletion
    ),
    ("POST", "/v1/completions"): _question(
        "create_completion", "Continue a prompt", shapes.CompletionRequest, shapes.Completion
    ),
    ("POST", "/v1/responses"): _question("create_response", "Ask", shapes.ResponseRequest, shapes.Response),
    ("GET", "/v1/responses/{response_id}"): _no_response("get_response", "Look at a response"),
    ("DELETE", "/v1/responses/{response_id}"): _no_response("delete_response", "Delete a response"),
    ("POST", "/v1/responses/{response_id}/cancel"): _no_response("cancel_response", "Cancel a response"),
    ("GET", "/v1/responses/{response_id}/input_items"): _no_response("list_input_items", "Look at a response's input"),
    ("GET", "/v1/models"): Operation("list_models", "Models", "The base model and the newest 100 ready documents"),
    ("GET", "/v1/models/{model_id}"): Operation("get_model", "Models", "Look at a model", (404,)),
    ("GET", "/v1/keys/me"): Operation("get_key", "Keys", "The key of this request, its limits and their use"),
    ("POST", "/v1/keys/me/replace"): Operation(
        "replace_key", "Keys", "Another secret in place of the one this request shows", (404,)
    ),
    ("DELETE", "/v1/keys/me"): Operation("revoke_key", "Keys", "Revoke the key of this request", (404,)),
    ("GET", "/health"): Operation(
        "health", "Operate", "This process lives", (500,), answers={JSON: shapes.Health}, is_open=True
    ),
    ("GET", "/ready"): Operation(
        "ready", "Operate", "Every part answers (else 503, with the same shape)", (500,),
        answers={JSON: shapes.Ready}, is_open=True,
    ),
    ("GET", "/metrics"): Operation(
        "metrics", "Operate", "Prometheus", (500, 503), answers={"text/plain": None}, is_open=True
    ),
    **{("POST", path): _passed(path) for path in (*OFFERED, *OFFERED_AUDIO)},
}  # fmt: skip
