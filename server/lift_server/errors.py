"""Every error a client can meet, and the one shape they all take: OpenAI's envelope with a string code.

Raise an ApiError subclass anywhere below a route; the handlers here turn it into
`{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

import errno
import json
import logging
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from obstore.exceptions import BaseError as StoreError
from pydantic import BaseModel, ValidationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ExecAbortError, MasterDownError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

log = logging.getLogger(__name__)

NO_RETRY = {"x-should-retry": "false"}  # openai-python would try a 409 twice again on its own
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
REFUSALS = (OutOfMemoryError, ReadOnlyError, MasterDownError, ExecAbortError)
# Those that redis-py has no class for; in a pipeline it quotes them behind the command.
REFUSAL = re.compile(r"(?:^|caused error: \(['\"])(MISCONF|NOREPLICAS)\b")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last is a limit on files' sizes

ModelT = TypeVar("ModelT", bound=BaseModel)


class ApiError(Exception):
    """What the client is told. `headers` go on the HTTP answer where it has not begun yet."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        return "invalid_request_error" if self.status < 500 else "server_error"

    def envelope(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        body = json.dumps(self.envelope())  # ASCII: a message may quote a lone surrogate
        return Response(body, self.status, headers=self.headers, media_type="application/json")


class InvalidRequest(ApiError):
    """A field's value is no good; `param` names the field."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(400, message, code=code, param=param)


class TooLarge(ApiError):
    def __init__(self, what: str, limit_bytes: int) -> None:
        super().__init__(413, f"{what} is larger than the limit of {limit_bytes} bytes.", code="too_large")


class UnsupportedFormat(ApiError):
    """The body or the uploaded file is of a kind that is not read here."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "unsupported_format") -> None:
        super().__init__(415, message, code=code, param=param)


class DocumentNotFound(ApiError):
    """The same for a malformed id, an unknown one and another owner's."""

    def __init__(self, param: str = "document_id") -> None:
        super().__init__(404, "No such document.", code="document_not_found", param=param)


class ModelNotFound(ApiError):
    def __init__(self, model: str) -> None:
        super().__init__(404, f"The model {model[:200]!r} does not exist.", code="model_not_found", param="model")


class DocumentNotReady(ApiError):
    """Not trained within `lift.max_wait_s`; `Retry-After` says when to ask again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        headers = NO_RETRY | {"Retry-After": str(retry_after_s)}
        super().__init__(409, message, code="document_not_ready", param="document_id", headers=headers)


class DocumentStopped(ApiError):
    """The document's training, or that of the version asked for, ended: `document_failed`, `document_cancelled`."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(409, message, code=code, param="document_id", headers=NO_RETRY)


class TtftBudgetUnmet(ApiError):
    """No version is there, or can be there, within `lift.ttft_budget_s`."""

    def __init__(self, message: str) -> None:
        super().__init__(409, message, code="ttft_budget_unmet", param="lift.ttft_budget_s", headers=NO_RETRY)


class DocumentOutdated(ApiError):
    """Its adapter was trained for a base model that is no longer served."""

    def __init__(self, base_model: str) -> None:
        message = f"The document was trained for another base model or revision ({base_model}). Upload it again."
        super().__init__(409, message, code="document_outdated", param="document_id", headers=NO_RETRY)


class InvalidApiKey(ApiError):
    """The same for an unknown key and a revoked one; of what was given nothing is repeated."""

    def __init__(self, *, is_given: bool) -> None:
        what = "Incorrect API key provided." if is_given else "You didn't provide an API key."
        message = f"{what} Send one as `Authorization: Bearer KEY`."
        super().__init__(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class KeyNotFound(ApiError):
    """Where there are no keys at all, so that whoever asks shows none."""

    def __init__(self) -> None:
        super().__init__(404, "This server has no API keys, so there is none in use.", code="key_not_found")


class ApiKeysRequired(ApiError):
    """Nobody made a key yet, so only this machine is let in."""

    def __init__(self) -> None:
        message = (
            "This server has no API keys, so it answers only requests that come from its own machine, directly, to "
            "127.0.0.1, [::1] or localhost. To let others in, run `lift-serve keys create NAME` there."
        )
        super().__init__(401, message, code="api_keys_required", headers={"WWW-Authenticate": "Bearer"})


class RateLimited(ApiError):
    """Waiting helps. `kind` is OpenAI's `type` for it: requests, tokens; ours: training."""

    def __init__(self, limit: str, *, kind: str, retry_after_s: int) -> None:
        message = f"Rate limit reached: {limit}. Try again in {retry_after_s} s."
        super().__init__(429, message, code="rate_limit_exceeded", headers={"Retry-After": str(retry_after_s)})
        self.kind = kind

    @property
    def type(self) -> str:
        return self.kind


class InsufficientQuota(ApiError):
    """Waiting does not help, deleting does."""

    def __init__(self, limit: str) -> None:
        message = f"The limit of {limit} is reached. Delete documents, or ask the operator for more."
        super().__init__(429, message, code="insufficient_quota", headers=NO_RETRY)

    @property
    def type(self) -> str:
        return self.code


class EngineFailure(ApiError):
    """The engine's failure, not the question's: another engine may do better."""

    may_have_begun = True  # the engine with the question, before it failed


class EngineUnavailable(EngineFailure):
    def __init__(self, retry_after_s: int = 5, *, may_have_begun: bool = False) -> None:
        message = "The inference engine cannot be reached. It may be starting."
        super().__init__(503, message, code="engine_unavailable", headers={"Retry-After": str(retry_after_s)})
        self.may_have_begun = may_have_begun


class EngineStopped(ApiError):
    def __init__(self) -> None:
        super().__init__(502, "The inference engine stopped in the middle of the answer.", code="engine_error")


class NotOffered(ApiError):
    """A route of OpenAI's or vLLM's that the engine has not got for the base model it runs."""

    def __init__(self, route: str) -> None:
        super().__init__(404, f"The base model does not offer {route}.", code="not_offered")


class ResponseNotFound(ApiError):
    def __init__(self) -> None:
        message = "Responses are not kept here; send the whole conversation as input."
        super().__init__(404, message, code="response_not_found", param="response_id")


class StorageUnavailable(ApiError):
    def __init__(self) -> None:
        message = "Redis cannot be reached, or has lost its data and is being filled from the store."
        super().__init__(503, message, code="redis_unavailable", headers={"Retry-After": "2"})


class StorageRefuses(ApiError):
    """Redis is there and takes no writes."""

    def __init__(self) -> None:
        message = (
            "Redis takes no writes: its memory is full, it is a replica, or it cannot save to its disk. Nothing was "
            "changed; try again later. The server's log says which, and the operator has to see to it."
        )
        super().__init__(503, message, code="redis_unavailable", headers={"Retry-After": "30"})


class StoreUnavailable(ApiError):
    def __init__(self) -> None:
        message = "The store cannot be read or written; the server's log says why."
        super().__init__(503, message, code="store_unavailable", headers={"Retry-After": "5"})


class StoreFull(ApiError):
    """Waiting helps only where the operator, or a deletion, makes room: SDKs are not to wait for it on their own."""

    def __init__(self) -> None:
        message = "The server's disk is nearly full, so it takes no uploads. Documents that are there can be asked."
        super().__init__(503, message, code="store_full", headers=NO_RETRY | {"Retry-After": "60"})


class ServerStopping(ApiError):
    """For whoever waits for a training, or watches one; answers under way are finished."""

    def __init__(self) -> None:
        message = "The server is being stopped. Ask again when it is back: the training goes on."
        super().__init__(503, message, code="server_stopping", headers={"Retry-After": "5"})


class UploadNotFound(ApiError):
    """The same for a malformed id, an unknown one and another owner's."""

    def __init__(self) -> None:
        message = "No such upload. One that is not completed within an hour is gone."
        super().__init__(404, message, code="upload_not_found", param="upload_id")


class UploadNotPending(ApiError):
    def __init__(self, status: str) -> None:
        message = f"The upload is {status}. Create another one."
        super().__init__(409, message, code="upload_not_pending", param="upload_id", headers=NO_RETRY)


class TooManyUploads(ApiError):
    """Waiting does not help soon, completing or cancelling one does."""

    def __init__(self, limit: int) -> None:
        message = f"The limit of {limit} open uploads is reached. Complete or cancel one."
        super().__init__(429, message, code="too_many_uploads", headers=NO_RETRY)


class AdapterNotFound(ApiError):
    """The document has no such version."""

    def __init__(self, message: str) -> None:
        super().__init__(404, message, code="adapter_not_found", param="version")


def validated(model: type[ModelT], values: Any, prefix: str = "") -> ModelT:
    """`values` as `model`; InvalidRequest naming the first bad field, as `prefix` + its path."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _bad_field(error.errors(include_url=False)[0], prefix) from error


def as_api_error(error: Exception) -> ApiError:
    """What a client is told about any exception; an unforeseen one is logged."""
    told = told_as(error)
    if told.code == "internal_error":
        log.error("unforeseen error", exc_info=error)
    elif isinstance(error, StoreError):
        log.error("the store: %s", error)
    elif reason := refusal(error):
        log.error("Redis takes no writes: %s", reason)
    return told


def told_as(error: Exception) -> ApiError:
    """As `as_api_error`, for whoever only wants to know; an unforeseen one says nothing of its inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        return StorageUnavailable()
    if refusal(error):
        return StorageRefuses()
    if isinstance(error, StoreError):
        return StoreUnavailable()
    if isinstance(error, OSError) and error.errno in NO_ROOM:  # where a large form is put while it is read, say
        return StoreFull()
    return ApiError(500, "An unforeseen error occurred; the server's log has it.", code="internal_error")


def refusal(error: Exception) -> str | None:
    """Why Redis refused a write, and with it the whole transaction: nothing of it was done. Without Redis's own words,
    which quote the command."""
    if isinstance(error, REFUSALS):
        return type(error).__name__
    found = REFUSAL.search(str(error)) if isinstance(error, ResponseError) else None
    return found[1] if found else None


def install(app: FastAPI) -> None:
    """Register the handlers. What none of them knows is caught by middleware.Envelope."""

    @app.exception_handler(ApiError)
    async def _api(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _bad_field({**first, "loc": first["loc"][1:]}).response()  # without FastAPI's "query", "body"

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code = HTTP_CODES.get(error.status_code, "http_error")
        headers = {"Allow": _allowed(app, request)} if error.status_code == 405 else error.headers
        return ApiError(error.status_code, error.detail, code=code, headers=headers).response()


def _allowed(app: FastAPI, request: Request) -> str:
    """The methods of all routes with this path; Starlette names those of the first one only."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in matching for method in route.methods or ()}))


def _bad_field(error: Mapping[str, Any], prefix: str = "") -> InvalidRequest:
    param = prefix + ".".join(str(part) for part in error["loc"])
    code = "unknown_parameter" if error["type"] == "extra_forbidden" else "invalid_value"
    message = error["msg"].removeprefix("Value error, ")  # pydantic's, in front of what our validators say
    return InvalidRequest(f"{param}: {message}", param=param or None, code=code)
