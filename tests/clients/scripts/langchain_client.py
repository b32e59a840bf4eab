"""langchain-openai: ChatOpenAI by model name, extra_body and header; streaming, async, structured output, tools."""

import asyncio
from typing import Any

import openai
from given import BASE, DOCUMENT, MAX_TOKENS, QUESTION, TOOL_TOKENS, UNKNOWN, Pet, say
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

NAMED = f"{BASE}:{DOCUMENT}"


def main() -> None:
    ways = {
        "model": chat(model=NAMED),
        "extra_body": chat(extra_body={"document_id": DOCUMENT}),
        "header": chat(default_headers={"X-Document-Id": DOCUMENT}),
        "responses": chat(model=NAMED, use_responses_api=True),
        "base": chat(),
    }
    answers = {name: model.invoke(QUESTION) for name, model in ways.items()}
    say(
        answers={name: answer.text for name, answer in answers.items()},
        streamed={name: "".join(chunk.text for chunk in model.stream(QUESTION)) for name, model in ways.items()},
        asynchronous=asyncio.run(asynchronous(ways["model"])),
        file_part=ways["base"].invoke([with_file()]).text,
        usage=answers["model"].usage_metadata,
        parsed=chat(model=NAMED, max_tokens=TOOL_TOKENS).with_structured_output(Pet).invoke(QUESTION).model_dump(),
        tool=tool(),
        unknown=unknown(),
    )


def chat(**given: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": BASE, "temperature": 0, "max_tokens": MAX_TOKENS, "max_retries": 0, **given})


async def asynchronous(model: ChatOpenAI) -> dict[str, str]:
    return {
        "answer": (await model.ainvoke(QUESTION)).text,
        "chunks": "".join([chunk.text async for chunk in model.astream(QUESTION)]),
    }


def with_file() -> HumanMessage:
    return HumanMessage([{"type": "file", "file": {"file_id": DOCUMENT}}, {"type": "text", "text": QUESTION}])


def tool() -> dict[str, Any]:
    """A call, and the answer after its result is told."""
    model = chat(model=NAMED, max_tokens=TOOL_TOKENS)
    question = HumanMessage(QUESTION)
    called = model.bind_tools([Pet], tool_choice="Pet", strict=True).invoke([question])
    (call,) = called.tool_calls
    told = ToolMessage("remembered", tool_call_id=call["id"])
    answer = model.bind_tools([Pet], tool_choice="none").invoke([question, called, told])
    return {"name": call["name"], "arguments": call["args"], "answer": answer.text}


def unknown() -> list[Any] | None:
    try:
        chat(model=f"{BASE}:{UNKNOWN}").invoke(QUESTION)
    except openai.NotFoundError as error:
        return [type(error).__name__, error.status_code, error.code]
    return None


if __name__ == "__main__":
    main()
