"""openai-python: every way to name a document, three ways to ask, files, helpers for streams, parse, tools."""

import asyncio
import base64
import json
from collections.abc import Iterable
from typing import Any

import openai
from given import BASE, DOCUMENT, MAX_TOKENS, MESSAGES, QUESTION, RECIPE, TEXT, TOOL_TOKENS, UNKNOWN, Pet, say
from openai import AsyncOpenAI, OpenAI

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": MAX_TOKENS}
NAMED = f"{BASE}:{DOCUMENT}"


def main() -> None:
    client = OpenAI(max_retries=0)
    answers = {name: client.chat.completions.create(**asked, **GREEDY) for name, asked in ways().items()}
    base: dict[str, Any] = {"model": BASE, "messages": MESSAGES, **GREEDY}
    answers["base"] = client.chat.completions.create(**base)
    streams = {name: streamed(client, asked) for name, asked in ways().items()}
    say(
        version=openai.VERSION,
        answers={name: answer.choices[0].message.content for name, answer in answers.items()},
        lift={name: answer.to_dict()["lift"] for name, answer in answers.items()},
        usage=answers["model"].usage.to_dict(),
        streamed={
            **{name: stream["text"] for name, stream in streams.items()},
            # Without the helper, which refuses an answer that the limit cut off.
            "base": text_of(client.chat.completions.create(**base, stream=True)),
        },
        streams=streams,
        asynchronous=asyncio.run(asynchronous()),
        completions=completions(client),
        responses=responses(client),
        files=files(client),
        models=[client.models.retrieve(NAMED).id, *(model.id for model in client.models.list())],
        parsed=parsed(client),
        tool=tool(client),
        unknown=unknown(client),
    )


def ways() -> dict[str, dict[str, Any]]:
    """Of naming a document."""
    data = "data:text/plain;base64," + base64.b64encode(TEXT.encode()).decode()
    inline = {"filename": "varn.txt", "file_data": data}
    plain = {"model": BASE, "messages": MESSAGES}
    return {
        "document_id": {**plain, "extra_body": {"document_id": DOCUMENT}},
        "metadata": {**plain, "metadata": {"document_id": DOCUMENT}},
        "header": {**plain, "extra_headers": {"X-Document-Id": DOCUMENT}},
        "model": {**plain, "model": NAMED},
        "file_id": {"model": BASE, "messages": with_file({"file_id": DOCUMENT})},
        "file_data": {"model": BASE, "messages": with_file(inline), "extra_body": {"lift": {"recipe": RECIPE}}},
    }


def with_file(file: dict[str, str]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "file", "file": file}, {"type": "text", "text": QUESTION}]}]


def text_of(chunks: Iterable[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def streamed(client: OpenAI, asked: dict[str, Any]) -> dict[str, Any]:
    """By the SDK's helper, which puts the chunks together and checks them."""
    with client.chat.completions.stream(**asked, **GREEDY, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        whole = stream.get_final_completion()
    deltas = [event.delta for event in events if event.type == "content.delta"]
    chunks = [event.chunk.to_dict() for event in events if event.type == "chunk"]
    return {
        "text": "".join(deltas),
        "lift": chunks[-1]["lift"],
        "final": whole.choices[0].message.content,
        "usage": whole.usage.to_dict(),
    }


async def asynchronous() -> dict[str, Any]:
    async with AsyncOpenAI(max_retries=0) as client:
        asked = {"model": NAMED, "messages": MESSAGES, **GREEDY}
        answer = await client.chat.completions.create(**asked)
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        async with client.chat.completions.stream(**asked) as stream:
            whole = await stream.get_final_completion()
    return {
        "answer": answer.choices[0].message.content,
        "chunks": text_of(chunks),
        "lift": chunks[-1].to_dict()["lift"],
        "helper": whole.choices[0].message.content,
    }


def completions(client: OpenAI) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": NAMED, "prompt": QUESTION, **GREEDY}
    answer = client.completions.create(**asked)
    chunks = client.completions.create(**asked, stream=True)
    return {
        "answer": answer.choices[0].text,
        "streamed": "".join(chunk.choices[0].text for chunk in chunks),
        "lift": answer.to_dict()["lift"],
    }


def responses(client: OpenAI) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": BASE, "temperature": 0, "max_output_tokens": MAX_TOKENS}
    parts = [{"type": "input_file", "file_id": DOCUMENT}, {"type": "input_text", "text": QUESTION}]
    with_part = client.responses.create(input=[{"role": "user", "content": parts}], **asked)
    plain = client.responses.create(input=QUESTION, metadata={"document_id": DOCUMENT}, **asked)
    with client.responses.stream(input=QUESTION, extra_body={"document_id": DOCUMENT}, **asked) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        whole = stream.get_final_response()
    parsed = client.responses.parse(
        input=QUESTION, text_format=Pet, **{**asked, "model": NAMED, "max_output_tokens": TOOL_TOKENS}
    )
    return {
        "answers": {"input_file": with_part.output_text, "metadata": plain.output_text},
        "streamed": {"text": "".join(deltas), "final": whole.output_text},
        "lift": {"input_file": with_part.to_dict()["lift"], "stream": whole.to_dict()["lift"]},
        "parsed": parsed.output_parsed.model_dump(),
    }


def files(client: OpenAI) -> dict[str, Any]:
    """Uploaded whole and in parts, asked, listed, looked at, read, deleted."""
    file = client.files.create(file=("varn.txt", TEXT.encode()), purpose="user_data", extra_body={"recipe": RECIPE})
    in_parts = client.uploads.upload_file_chunked(
        file=TEXT.encode(),
        filename="varn.txt",
        bytes=len(TEXT.encode()),
        mime_type="text/plain",
        purpose="user_data",
    ).file
    answer = client.chat.completions.create(model=f"{BASE}:{file.id}", messages=MESSAGES, **GREEDY)
    return {
        "file": file.to_dict(),
        "answer": answer.choices[0].message.content,
        "lift": answer.to_dict()["lift"],
        "listed": {file.id, in_parts.id} <= {listed.id for listed in client.files.list()},
        "retrieved": client.files.retrieve(file.id).to_dict(),
        "content": client.files.content(file.id).text,
        "in_parts": client.files.content(in_parts.id).text,
        "deleted": [client.files.delete(one).deleted for one in (file.id, in_parts.id)],
        "after": error_of(lambda: client.files.retrieve(file.id)),
    }


def parsed(client: OpenAI) -> dict[str, Any]:
    answer = client.chat.completions.parse(
        model=NAMED, messages=MESSAGES, response_format=Pet, temperature=0, max_tokens=TOOL_TOKENS
    )
    return answer.choices[0].message.parsed.model_dump()


def tool(client: OpenAI) -> dict[str, Any]:
    """A call, and the answer after its result is told."""
    function = openai.pydantic_function_tool(Pet, name="remember")
    asked: dict[str, Any] = {"model": NAMED, "tools": [function], "temperature": 0, "max_tokens": TOOL_TOKENS}
    named = {"type": "function", "function": {"name": "remember"}}
    called = client.chat.completions.create(messages=MESSAGES, tool_choice=named, **asked).choices[0].message
    (call,) = called.tool_calls
    told = [called.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "remembered"}]
    answer = client.chat.completions.create(messages=[*MESSAGES, *told], tool_choice="none", **asked)
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "answer": answer.choices[0].message.content,
    }


def unknown(client: OpenAI) -> dict[str, Any]:
    asked: dict[str, Any] = {"messages": MESSAGES, **GREEDY}
    return {
        "model": error_of(lambda: client.chat.completions.create(model=f"{BASE}:{UNKNOWN}", **asked)),
        "stream": error_of(
            lambda: client.chat.completions.create(
                model=BASE, extra_body={"document_id": UNKNOWN}, stream=True, **asked
            )
        ),
        "file": error_of(lambda: client.files.retrieve(UNKNOWN)),
        "responses": error_of(lambda: client.responses.create(model=f"{BASE}:{UNKNOWN}", input=QUESTION)),
    }


def error_of(ask: Any) -> list[Any] | None:
    try:
        ask()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code]
    return None


if __name__ == "__main__":
    main()
