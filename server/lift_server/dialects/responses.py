"""/v1/responses. The engine keeps none, so nothing can refer to an earlier one."""

from __future__ import annotations

import json
from typing import Any

from lift_config import prompts
from lift_server.dialects.dialect import FilePart, Json, Splice, Usage
from lift_server.dialects.files import file_part, without_files
from lift_server.engine import RESPONSES_ROUTE
from lift_server.errors import ApiError, InvalidRequest

ROUTE = RESPONSES_ROUTE
OPERATION = "chat"
FRAMED = True
DONE = b""
STORED = ("previous_response_id", "conversation", "background")  # what works only with responses that are kept
LAST = ("response.completed", "response.incomplete", "response.failed")
# Events that hold a response, and errors, are parsed; all others name no model and go on as they are.
PARSED = tuple(
    f"event: {name}\n".encode()
    for name in (*LAST, "response.created", "response.in_progress", "response.queued", "error")
)
TEXT_PARTS = ("input_text", "output_text")


def check(body: Json) -> None:
    for name in STORED:
        if body.get(name) not in (None, False):
            message = f"{name}: is not supported, responses are not kept here; send the whole conversation as input."
            raise InvalidRequest(message, param=name, code="unsupported_parameter")
    given = body.get("input")
    if not given or not isinstance(given, str | list):
        raise InvalidRequest("input: must be a text or a list of at least one item.", param="input")


def take_files(body: Json) -> tuple[Json, list[FilePart]]:
    if not isinstance(body["input"], list):
        return body, []
    items, files = without_files(body["input"], "input", _file)
    return (body | {"input": items} if files else body), files


def frame(body: Json, title: str | None, text: str | None = None) -> Json:
    """In `instructions`, which the engine makes the first system message of; else in the item that is that message."""
    first = body["input"][0]
    if body.get("instructions") or not (isinstance(first, dict) and first.get("role") in ("system", "developer")):
        (system,) = prompts.frame([{"role": "system", "content": body.get("instructions")}], title, text)
        return body | {"instructions": system["content"]}
    (framed,) = prompts.frame([first], title, text)
    if isinstance(framed["content"], list):
        line, *parts = framed["content"]
        framed["content"] = [line | {"type": "input_text"}, *parts]
    return body | {"input": [framed, *body["input"][1:]]}


def as_chat(body: Json) -> Json:
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages = [_message(item) for item in items if isinstance(item, dict)]
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    chat = {"messages": messages, "max_tokens": body.get("max_output_tokens")}
    if tools := [_tool(tool) for tool in body.get("tools") or () if isinstance(tool, dict)]:
        chat["tools"] = tools
    return chat | {name: body[name] for name in ("chat_template_kwargs",) if name in body}


def with_defaults(body: Json) -> Json:
    return body


def with_usage(body: Json) -> tuple[Json, bool]:
    return body, True  # always told, in the last event


def echo(answer: Json, body: Json, model: str) -> Json:
    """Whole, or in those of a stream's events that have it. The engine's instructions had our line in them."""
    own = {"model": model, "instructions": body.get("instructions")}
    if isinstance(answer.get("response"), dict):
        return answer | {"response": answer["response"] | own}
    return answer | own if answer.get("object") == "response" else answer


def model(answer: Json) -> str | None:
    told: str | None = (answer.get("response") or answer).get("model")
    return told


def with_lift(answer: Json, fields: Json) -> Json:
    if isinstance(answer.get("response"), dict):
        return answer | {"response": answer["response"] | fields}
    return answer | fields


def usage(answer: Json) -> Usage | None:
    told = (answer.get("response") or answer).get("usage")
    return Usage(told.get("input_tokens") or 0, told.get("output_tokens") or 0) if told else None


def said(answer: Json) -> dict[int, str]:
    if answer.get("type") == "response.output_text.delta":
        return {answer.get("output_index", 0): answer.get("delta") or ""}
    return {
        at: "".join(part.get("text") or "" for part in item.get("content") or ())
        for at, item in enumerate(answer.get("output") or ())
        if item.get("type") == "message"
    }


def splice(engine_model: str, model: str) -> Splice:
    def spliced(data: bytes) -> bytes | None:
        return None if data.startswith(PARSED) or not data.startswith(b"event: ") else data + b"\n\n"

    return spliced


def has_token(chunk: Json) -> bool:
    return str(chunk.get("type")).endswith(".delta") and bool(chunk.get("delta"))


def may_be_last(chunk: Json) -> bool:
    return chunk.get("type") in LAST


def is_usage_only(chunk: Json) -> bool:
    return False


def event(chunk: Json) -> bytes:
    data = json.dumps(chunk, separators=(",", ":"))
    return f"event: {chunk.get('type')}\ndata: {data}\n\n".encode()


def error_event(error: ApiError, number: int) -> bytes:
    """OpenAI's `error` event; both of its SDKs raise what has `error` in it, whatever the event's name."""
    told = error.envelope()["error"]
    fields = {"type": "error", "code": told["code"], "message": told["message"], "param": told["param"]}
    return event(fields | {"sequence_number": number, "error": told})


def _file(part: Json, place: str) -> FilePart | None:
    return file_part(part, place) if part.get("type") == "input_file" else None


def _message(item: Json) -> Json:
    """An input item as a chat message."""
    kind = item.get("type")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
    return {"role": item.get("role", "assistant"), "content": _content(item.get("content"))}


def _content(content: Any) -> Any:
    if not isinstance(content, list):
        return content or ""
    return [_part(part) for part in content if isinstance(part, dict)]


def _part(part: Json) -> Json:
    return {"type": "text", "text": part.get("text")} if part.get("type") in TEXT_PARTS else part


def _tool(tool: Json) -> Json:
    """Responses have a function's fields beside its type, chats below it."""
    if tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
