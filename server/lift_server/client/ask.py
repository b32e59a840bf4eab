"""`lift-serve ask`: in: a question, and a document or the one uploaded last; out: the answer as it comes."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from lift_config.contract import DOCUMENT_ID
from lift_server.client.connection import Connection, Json, refused
from lift_server.client.last import last_document
from lift_server.client.screen import show_json
from lift_server.exits import DONE, UsageError

ROUTE = "/v1/chat/completions"


async def ask(connection: Connection, args: Namespace, state: Path) -> int:
    document_id, question = _meant(args.words)
    if document_id is None:
        document_id = last_document(state, connection.address)
        if not args.json:
            print(f"asking {document_id}, uploaded last from here", file=sys.stderr)
    body = question_body(await base_model(connection), document_id, args.mode, [turn("user", question)])
    if args.json:
        show_json(await connection.json("POST", ROUTE, json=body))
        return DONE
    async for text in answer(connection, body):
        print(text, end="", flush=True)
    print()
    return DONE


async def base_model(connection: Connection) -> str:
    return str((await connection.json("GET", "/v1/models"))["data"][0]["id"])


def turn(role: str, content: str) -> Json:
    return {"role": role, "content": content}


def question_body(model: str, document_id: str, mode: str | None, messages: list[Json]) -> Json:
    """The likeliest answer is asked for, so that the same question has the same one."""
    body: Json = {"model": model, "messages": messages, "document_id": document_id, "temperature": 0}
    return body | ({"lift": {"mode": mode}} if mode else {})


async def answer(connection: Connection, body: Json) -> AsyncIterator[str]:
    """The answer's text, streamed; CommandError where it breaks off."""
    async with connection.accepted("POST", ROUTE, json=body | {"stream": True}) as reply:
        async for chunk in _chunks(reply):
            for choice in chunk.get("choices", []):
                yield choice["delta"].get("content") or ""


def _meant(words: list[str]) -> tuple[str | None, str]:
    """The document, where it is named, and the question."""
    if len(words) > 2:
        raise UsageError("a document and a question at most: put the question in quotes")
    if len(words) == 2:
        return words[0], words[1]
    if DOCUMENT_ID.fullmatch(words[0]):
        raise UsageError(f"what shall be asked of {words[0]}? The question is missing")
    return None, words[0]


async def _chunks(reply: aiohttp.ClientResponse) -> AsyncIterator[Json]:
    async for line in reply.content:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise refused(reply.status, line[6:].decode())
            yield chunk
