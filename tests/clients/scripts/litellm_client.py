"""LiteLLM: `openai/<model>` by model name, extra_body, header and file part; files, streaming, async, parse, tools."""

import asyncio
import json
from typing import Any

import litellm
from given import BASE, DOCUMENT, KEY, MAX_TOKENS, MESSAGES, QUESTION, RECIPE, TEXT, TOOL_TOKENS, UNKNOWN, URL, Pet, say

NAMED = f"openai/{BASE}:{DOCUMENT}"
ADDRESS = {"api_base": URL, "api_key": KEY}
litellm.suppress_debug_info = True  # else it writes to stdout, beside the JSON
OPENAI_FILES: dict[str, Any] = {"custom_llm_provider": "openai", **ADDRESS}


def main() -> None:
    answers = {name: ask(**given) for name, given in ways().items()}
    say(
        answers={name: answer.choices[0].message.content for name, answer in answers.items()},
        lift={name: answer.model_dump().get("lift") for name, answer in answers.items()},
        streamed={name: streamed(given) for name, given in ways().items()},
        asynchronous=asyncio.run(asynchronous()),
        responses=responses(),
        usage=answers["model"].usage.model_dump(),
        files=files(),
        parsed=json.loads(ask(model=NAMED, response_format=Pet, max_tokens=TOOL_TOKENS).choices[0].message.content),
        tool=tool(),
        unknown=unknown(),
    )


def ways() -> dict[str, dict[str, Any]]:
    """Of naming a document."""
    part = [{"type": "file", "file": {"file_id": DOCUMENT}}, {"type": "text", "text": QUESTION}]
    return {
        "model": {"model": NAMED},
        "extra_body": {"extra_body": {"document_id": DOCUMENT}},
        "header": {"extra_headers": {"X-Document-Id": DOCUMENT}},
        "file_id": {"messages": [{"role": "user", "content": part}]},
        "base": {},
    }


def asked(given: dict[str, Any]) -> dict[str, Any]:
    plain = {"model": f"openai/{BASE}", "messages": MESSAGES, "temperature": 0, "max_tokens": MAX_TOKENS}
    return {**plain, "num_retries": 0, **ADDRESS, **given}


def ask(**given: Any) -> Any:
    return litellm.completion(**asked(given))


def streamed(given: dict[str, Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in ask(**given, stream=True))


async def asynchronous() -> dict[str, Any]:
    answer = await litellm.acompletion(**asked({"model": NAMED}))
    chunks = await litellm.acompletion(**asked({"model": NAMED, "stream": True}))
    return {
        "answer": answer.choices[0].message.content,
        "chunks": "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]),
    }


def responses() -> str:
    answer = litellm.responses(model=NAMED, input=QUESTION, temperature=0, max_output_tokens=MAX_TOKENS, **ADDRESS)
    return answer.output_text


def files() -> dict[str, Any]:
    file = litellm.create_file(
        file=("varn.txt", TEXT.encode()), purpose="user_data", extra_body={"recipe": RECIPE}, **OPENAI_FILES
    )
    return {
        "answer": ask(model=f"openai/{BASE}:{file.id}").choices[0].message.content,
        "listed": file.id in [listed.id for listed in litellm.file_list(**OPENAI_FILES)],
        "content": litellm.file_content(file_id=file.id, **OPENAI_FILES).text,
        "deleted": litellm.file_delete(file_id=file.id, **OPENAI_FILES).deleted,
    }


def tool() -> dict[str, Any]:
    """A call, and the answer after its result is told."""
    function = {"name": "remember", "strict": True, "parameters": Pet.model_json_schema()}
    given: dict[str, Any] = {
        "model": NAMED,
        "tools": [{"type": "function", "function": function}],
        "max_tokens": TOOL_TOKENS,
    }
    named = {"type": "function", "function": {"name": "remember"}}
    called = ask(tool_choice=named, **given).choices[0].message
    (call,) = called.tool_calls
    told = [called.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "remembered"}]
    answer = ask(messages=[*MESSAGES, *told], tool_choice="none", **given)
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "answer": answer.choices[0].message.content,
    }


def unknown() -> list[Any] | None:
    """LiteLLM makes BadRequestError of every `invalid_request_error`, but for the code `model_not_found`."""
    try:
        ask(model=f"openai/{BASE}:{UNKNOWN}")
    except litellm.BadRequestError as error:
        return [type(error).__name__, error.message]
    return None


if __name__ == "__main__":
    main()
