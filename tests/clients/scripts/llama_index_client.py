"""llama-index: OpenAILike by model name, extra_body and header; chat, complete, streaming, async, tools."""

import asyncio
from typing import Any

import openai
from given import BASE, DOCUMENT, KEY, MAX_TOKENS, QUESTION, TOOL_TOKENS, UNKNOWN, URL, Pet, say
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

NAMED = f"{BASE}:{DOCUMENT}"
MESSAGES = [ChatMessage(role="user", content=QUESTION)]


def main() -> None:
    ways = {
        "model": model_of(model=NAMED),
        "extra_body": model_of(additional_kwargs={"extra_body": {"document_id": DOCUMENT}}),
        "header": model_of(default_headers={"X-Document-Id": DOCUMENT}),
        "base": model_of(),
    }
    answers = {name: model.chat(MESSAGES) for name, model in ways.items()}
    say(
        answers={name: answer.message.content for name, answer in answers.items()},
        lift={name: answer.raw.lift for name, answer in answers.items()},
        streamed={name: streamed(model) for name, model in ways.items()},
        asynchronous=asyncio.run(asynchronous(ways["model"])),
        complete=ways["model"].complete(QUESTION).text,
        completions=model_of(model=NAMED, is_chat_model=False).complete(QUESTION).text,
        usage=answers["model"].raw.usage.model_dump(),
        parsed=parsed(),
        tool=tool(),
        unknown=unknown(),
    )


def model_of(**given: Any) -> OpenAILike:
    asked = {"model": BASE, "temperature": 0, "max_tokens": MAX_TOKENS, "max_retries": 0, "is_chat_model": True}
    return OpenAILike(**{"api_base": URL, "api_key": KEY, **asked, **given})


def streamed(model: OpenAILike) -> str:
    return "".join(chunk.delta or "" for chunk in model.stream_chat(MESSAGES))


async def asynchronous(model: OpenAILike) -> dict[str, Any]:
    answer = await model.achat(MESSAGES)
    chunks = [chunk.delta or "" async for chunk in await model.astream_chat(MESSAGES)]
    return {"answer": answer.message.content, "chunks": "".join(chunks)}


def parsed() -> dict[str, Any]:
    model = model_of(model=NAMED, max_tokens=TOOL_TOKENS, should_use_structured_outputs=True)
    return model.as_structured_llm(Pet).chat(MESSAGES).raw.model_dump()


def tool() -> dict[str, Any]:
    """A call, and the answer after its result is told."""
    model = model_of(model=NAMED, max_tokens=TOOL_TOKENS, is_function_calling_model=True, strict=True)
    remember = FunctionTool.from_defaults(fn=lambda kind, name: "remembered", name="remember", fn_schema=Pet)
    called = model.chat_with_tools([remember], chat_history=MESSAGES, tool_required=True)
    (call,) = model.get_tool_calls_from_response(called)
    told = ChatMessage(role="tool", content="remembered", additional_kwargs={"tool_call_id": call.tool_id})
    answer = model.chat([*MESSAGES, called.message, told])
    return {"name": call.tool_name, "arguments": call.tool_kwargs, "answer": answer.message.content}


def unknown() -> list[Any] | None:
    try:
        model_of(model=f"{BASE}:{UNKNOWN}").chat(MESSAGES)
    except openai.NotFoundError as error:
        return [type(error).__name__, error.status_code, error.code]
    return None


if __name__ == "__main__":
    main()
