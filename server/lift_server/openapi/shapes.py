"""What questions and their answers look like, for the OpenAPI document only: requests are read raw, so that fields
nobody here knows reach the engine. Types are those that vLLM takes; a field that stands here is one it has."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from lift_config.contract import DOCUMENT_ID
from lift_config.settings import BUNDLED_MODEL
from lift_server.schemas import SEVERAL, LiftOptions, SetUpload, TextUpload

EXAMPLE_ID = "doc_0123456789abcdef01234567"
DocumentId = Annotated[str, Field(pattern=f"^{DOCUMENT_ID.pattern}$", examples=[EXAMPLE_ID])]
Object = dict[str, Any]
Temperature = Annotated[float | None, Field(ge=0, le=2)]
Share = Annotated[float | None, Field(gt=0, le=1)]
Penalty = Annotated[float | None, Field(ge=-2, le=2)]
Count = Annotated[int | None, Field(ge=1)]
Seed = Annotated[int | None, Field(ge=-(2**63), lt=2**63)]


class ErrorDetails(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorEnvelope(BaseModel):
    """Every error. `code` is for programs, `message` for people, `param` names what to change."""

    error: ErrorDetails


class _Loose(BaseModel):
    """The engine knows more fields than stand here, and gets them."""

    model_config = ConfigDict(extra="allow")


# ---- requests -----------------------------------------------------------------------------------------------------


class JsonUpload(RootModel[TextUpload | SetUpload]):
    """A text, or a set of documents that are there."""


class StreamOptions(_Loose):
    include_usage: bool | None = None


class Question(_Loose):
    """What all ways to ask have in common."""

    model: str | None = Field(
        None, examples=[BUNDLED_MODEL], description="As /v1/models lists it: the base model, or `<base>:<document id>`"
    )
    document_id: DocumentId | None = Field(None, description="The document that is asked")
    document_ids: Annotated[list[DocumentId], Field(json_schema_extra=SEVERAL)] | None = Field(
        None, description="Several documents that are asked as one, which is trained over all of them"
    )
    lift: LiftOptions | None = Field(None, description="How a question about a document is answered")
    metadata: dict[str, Any] | None = Field(None, description="`document_id` in it names the document too")
    stream: bool | None = None
    temperature: Temperature = None
    top_p: Share = None


class ContentPart(_Loose):
    """`text`, or `file` with `file_id` or `file_data`: the document that is asked."""

    type: str


class Message(_Loose):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None


class ChatRequest(Question):
    """As OpenAI's; see there, and vLLM's documentation, for the fields that are not listed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": BUNDLED_MODEL, "messages": [{"role": "user", "content": "Who built the lighthouse?"}]},
                {
                    "model": BUNDLED_MODEL,
                    "document_id": EXAMPLE_ID,
                    "lift": {"mode": "auto", "max_wait_s": 0},
                    "messages": [{"role": "user", "content": "Who built the lighthouse?"}],
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
            ]
        }
    )

    messages: list[Message] = Field(min_length=1)
    stream_options: StreamOptions | None = None
    max_completion_tokens: Count = None
    max_tokens: Count = None
    n: Annotated[int | None, Field(ge=1, le=128)] = None
    stop: str | list[str] | None = None
    seed: Seed = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    tools: list[Object] | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = None
    response_format: Object | None = None
    user: str | None = None


class CompletionRequest(Question):
    """As OpenAI's. The prompt goes to the model as it is: no line about the document, and no chat template."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": BUNDLED_MODEL, "prompt": "The lighthouse was", "max_tokens": 16}]}
    )

    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=0)] = None
    n: Annotated[int | None, Field(ge=1, le=128)] = None
    stop: str | list[str] | None = None
    seed: Seed = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    user: str | None = None


class ResponseRequest(Question):
    """As OpenAI's. Responses are not kept: what refers to an earlier one is refused."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": BUNDLED_MODEL, "input": "Who built the lighthouse at Varn Point?"}]}
    )

    input: Annotated[str, Field(min_length=1)] | Annotated[list[Object], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Count = None
    tools: list[Object] | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Object | None = None
    text: Object | None = None
    store: bool | None = None
    user: str | None = None


class Passed(_Loose):
    """As the engine documents it. Only the base model is asked."""

    model: str | None = Field(None, examples=[BUNDLED_MODEL])


class TokenizeRequest(Passed):
    """A prompt, or a chat's messages."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}]})

    prompt: str = ""
    messages: Annotated[list[Message], Field(min_length=1)] = []
    add_special_tokens: bool = True


class DetokenizeRequest(Passed):
    tokens: list[Annotated[int, Field(ge=0)]]


class EmbeddingRequest(Passed):
    input: str | list[str] | list[int] | list[list[int]]


class Part(_Loose):
    """Some of the file's bytes."""


class Audio(_Loose):
    """As OpenAI's."""

    model: str | None = Field(None, examples=[BUNDLED_MODEL])


# ---- answers ------------------------------------------------------------------------------------------------------


class Span(BaseModel):
    """Seconds since the question's first byte; a phase without an end is still going on."""

    start_s: float | None
    end_s: float | None


class EvidenceSegment(BaseModel):
    segment: int
    start: int
    end: int
    text: str
    score: float
    verdict: Literal["supports", "contradicts", "unclear"]
    heading: str | None = Field(None, description="The nearest one above, where the document has any")
    page: int | None = Field(None, description="Or slide, from 1, where the document has any")


class Lift(_Loose):
    """How an answer came about."""

    document_id: str | None = Field(description="that was asked")
    document_ids: list[str] | None = Field(None, description="of several documents asked as one")
    adapter_id: str | None = Field(description="whose weights answered")
    adapter_version: int | None = Field(description="its number among the document's versions")
    answered_from: Literal["adapter", "hybrid", "context", "base"] = Field(description="`base`: no document was named")
    excerpt: Literal[True] | None = Field(
        None, description="of a text that does not fit, what is near to the question was in the prompt"
    )
    adapter_eta_s: float | None = Field(
        None, description="where the text answered: seconds until there is an adapter, as far as is known"
    )
    ttft_s: float = Field(description="first byte of the request read to first token written; whole: to its end")
    phases: dict[str, Span] = Field(description="where the time went; phases overlap, never sum them")
    evidence: list[EvidenceSegment] | None = Field(None, description="where `lift.evidence` asked for it")
    evidence_s: float | None = Field(None, description="how long the search for it took")


class _Answer(_Loose):
    id: str
    object: str
    model: str = Field(description="As it was asked for")
    lift: Lift


class ChatCompletion(_Answer):
    created: int
    choices: list[Object]
    usage: Object | None = None


class Completion(_Answer):
    created: int
    choices: list[Object]
    usage: Object | None = None


class Response(_Answer):
    created_at: float
    status: str
    output: list[Object]
    usage: Object | None = None


class Health(BaseModel):
    status: Literal["ok"]


class Parts(BaseModel):
    redis: bool
    engines: list[bool]
    workers: int
    blobs: bool
    store: bool
    disk: bool


class Ready(BaseModel):
    ready: bool
    parts: Parts
