"""`lift-serve ask`: in: a question, and documents or the one uploaded last; out: the answer as it comes."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from lift_config.contract import DOCUMENT_ID
from lift_server.client.connection import Connection, Json, refused
from lift_server.client.last import last_document
from lift_server.client.screen import show_json
from lift_server.client.waiting import Wait
from lift_server.exits import DONE, CommandError, UsageError

ROUTE = "/v1/chat/completions"
TRAINING = b": training"  # a comment in the stream, which keeps it alive


async def ask(connection: Connection, args: Namespace, state: Path) -> int:
    document_ids, question = _meant(args.words)
    if not document_ids:
        document_ids = [last_document(state, connection.address)]
        if not args.json:
            print(f"asking {document_ids[0]}, uploaded last from here", file=sys.stderr)
    messages = [turn("user", question)]
    body = question_body(await base_model(connection), document_ids, args.mode, messages, args.max_wait)
    if args.evidence:
        body["lift"] = body.get("lift", {}) | {"evidence": True}
    if args.json:
        show_json(await connection.json("POST", ROUTE, json=body))
    else:
        await _show(connection, body, document_ids)
    return DONE


async def _show(connection: Connection, body: Json, document_ids: list[str]) -> None:
    """The answer on standard output; what a person may want to know beside it on standard error."""
    wait = Wait(connection, document_ids)
    lift: Json = {}
    try:
        async for chunk in chunks(connection, body):
            if chunk is None:
                await wait.look()
                continue
            if text := said(chunk):
                wait.clear()
                print(text, end="", flush=True)
            lift = chunk.get("lift", lift)
    finally:
        wait.clear()
    print(flush=True)
    for line in _evidence(lift):
        print(line, flush=True)
    wait.answered(lift)


def _evidence(lift: Json) -> Iterator[str]:
    """What was found in the document, where it was asked for: a line for each segment."""
    if error := lift.get("evidence_error"):
        raise CommandError(f"the answer stands, but its evidence failed: {error['message']}")
    if lift.get("evidence") == []:
        yield "no segment shares a word with the question or the answer"
    for one in lift.get("evidence") or ():
        parts = (f"page {one['page']}" if "page" in one else None, one.get("heading"))
        place = ", ".join(filter(None, parts))
        yield f"{one['verdict']}{f' ({place})' if place else ''}: {' '.join(one['text'].split())}"


async def base_model(connection: Connection) -> str:
    return str((await connection.json("GET", "/v1/models"))["data"][0]["id"])


def turn(role: str, content: str) -> Json:
    return {"role": role, "content": content}


def question_body(
    model: str, document_ids: list[str], mode: str | None, messages: list[Json], max_wait_s: float | None = None
) -> Json:
    """The likeliest answer is asked for, so that the same question has the same one. Several documents are asked as
    one."""
    body: Json = {"model": model, "messages": messages, "temperature": 0}
    body |= {"document_id": document_ids[0]} if len(document_ids) == 1 else {"document_ids": document_ids}
    given = (("mode", mode), ("max_wait_s", max_wait_s))
    lift = {name: value for name, value in given if value is not None}
    return body | ({"lift": lift} if lift else {})


async def answer(connection: Connection, body: Json) -> AsyncIterator[str]:
    """The answer's text, streamed; CommandError where it breaks off."""
    async for chunk in chunks(connection, body):
        if chunk is not None:
            yield said(chunk)


async def chunks(connection: Connection, body: Json) -> AsyncIterator[Json | None]:
    """The answer as it comes; None now and then while its document is trained."""
    async with connection.accepted("POST", ROUTE, json=body | {"stream": True}) as reply:
        async for line in reply.content:
            if line.startswith(TRAINING):
                yield None
            elif line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise refused(reply.status, line[6:].decode())
                yield chunk


def said(chunk: Json) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", []))


def _meant(words: list[str]) -> tuple[list[str], str]:
    """The documents that are named, and the question."""
    *document_ids, question = words
    if len(document_ids) > 1 and not all(map(DOCUMENT_ID.fullmatch, document_ids)):
        raise UsageError("documents' ids and one question: put the question in quotes")
    if DOCUMENT_ID.fullmatch(question):
        raise UsageError(f"what shall be asked of {question}? The question is missing")
    return document_ids, question
