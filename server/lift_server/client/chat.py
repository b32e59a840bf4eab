"""`lift-serve chat`: in: a document and lines, from a person or a pipe; out: answers as they come.

The conversation is kept here: every question is sent with what was said before. Ctrl-C stops an answer, not the chat;
what had come of it stays in the conversation.
"""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from pathlib import Path

from lift_server.client.ask import answer, base_model, question_body, turn
from lift_server.client.connection import Connection, Json, Server, document_route
from lift_server.client.last import last_document
from lift_server.client.screen import document_line
from lift_server.exits import DONE, CommandError, tell

PROMPT = "> "
QUIT = "/quit"


def chat(server: Server, args: Namespace, state: Path) -> int:
    """On a terminal a refusal is told and the chat goes on; in a pipe it ends it."""
    is_terminal = sys.stdin.isatty()
    document, model = asyncio.run(_opened(server, args.document or last_document(state, server.address)))
    if is_terminal:
        print(f"{document_line(document)}\n{QUIT} or Ctrl-D ends, Ctrl-C stops an answer", file=sys.stderr)
        import readline  # noqa: F401 - from now on `input` knows arrow keys and earlier lines
    messages: list[Json] = []
    while (question := _line(is_terminal=is_terminal)) is not None:
        try:
            body = question_body(model, [document["id"]], args.mode, [*messages, turn("user", question)])
            messages += _turns(question, _answered(server, body))
        except CommandError as error:
            if not is_terminal:
                raise
            tell(error, "chat", as_json=False)
    return DONE


async def _opened(server: Server, document_id: str) -> tuple[Json, str]:
    """An unknown document is told before the first question."""
    async with Connection(server) as connection:
        return await connection.json("GET", document_route(document_id)), await base_model(connection)


def _line(*, is_terminal: bool) -> str | None:
    """The next question; None at the end."""
    while True:
        try:
            text = input(PROMPT if is_terminal else "").strip()
        except EOFError:
            if is_terminal:
                print()
            return None
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            print()
            continue
        if text:
            return None if text == QUIT else text


def _answered(server: Server, body: Json) -> str:
    """What came of it until Ctrl-C, which asyncio.run makes a cancellation first: the server learns of it."""
    parts: list[str] = []
    try:
        asyncio.run(_show(server, body, parts))
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        print(" …", end="")
    print(flush=True)
    return "".join(parts)


async def _show(server: Server, body: Json, parts: list[str]) -> None:
    async with Connection(server) as connection:
        async for text in answer(connection, body):
            parts.append(text)
            print(text, end="", flush=True)


def _turns(question: str, said: str) -> list[Json]:
    """A question that was stopped before its answer began was not asked."""
    return [turn("user", question), turn("assistant", said)] if said else []
