"""`lift-serve mcp`: in: an agent's calls on standard input (Model Context Protocol); out: documents, answers.

A client of the server like any other: it sees what its key may see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from lift_server.client.ask import ROUTE, base_model, question_body, turn
from lift_server.client.connection import Connection, Json, document_route
from lift_server.client.upload import read_file, send
from lift_server.exits import CommandError

SHOWN = ("id", "title", "filename", "document_ids", "status", "unfinished", "bytes", "tokens", "progress", "error")
Mode = Literal["adapter", "auto", "context", "hybrid"]
INSTRUCTIONS = (
    "LIFT Serve learns documents by heart: each upload is trained into weights of its own, and questions are answered "
    "without the document in the prompt. Upload once, ask often. A question waits until the document is learned; mode "
    "`auto` answers from the text meanwhile."
)


async def serve(connection: Connection) -> None:
    """Until the agent closes standard input."""
    tools = Tools(connection)
    server = MCPServer("lift-serve", instructions=INSTRUCTIONS, log_level="WARNING")
    for tool in (
        tools.upload_file,
        tools.upload_text,
        tools.list_documents,
        tools.show_document,
        tools.ask_document,
        tools.ask_documents,
    ):
        server.tool()(tool)
    await server.run_stdio_async()


class Tools:
    """Each is described to the agent by its docstring. What the server refuses is said in its own words."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def upload_file(self, path: str, title: str | None = None) -> dict[str, Any]:
        """Upload a file of this machine (PDF, Word, PowerPoint, Excel, OpenDocument, EPUB, HTML, LaTeX, e-mail, text, a
        ZIP archive of several, ...). Returns its document with its id; learning has begun. The title names the document
        in every question."""
        with _told():
            return _shown(await send(self._connection, read_file(Path(path).expanduser()), title, recipe=None))

    async def upload_text(self, text: str, title: str | None = None) -> dict[str, Any]:
        """Upload a text. Returns its document with its id; learning has begun."""
        sent = {"text": text} | ({"title": title} if title else {})
        with _told():
            return _shown(await self._connection.json("POST", "/v1/documents", json=sent))

    async def list_documents(self) -> list[dict[str, Any]]:
        """All documents, newest first, each with its status: queued, training, ready, failed or cancelled."""
        with _told():
            return [_shown(document) for document in await self._connection.documents()]

    async def show_document(self, document_id: str) -> dict[str, Any]:
        """One document: how far its learning is, or why it failed."""
        with _told():
            return _shown(await self._connection.json("GET", document_route(document_id)))

    async def ask_document(self, document_id: str, question: str, mode: Mode = "auto") -> dict[str, Any]:
        """Ask one question about one document; it keeps no conversation. Mode `adapter` answers from what was learned,
        `context` from the text in the prompt, `hybrid` from both, `auto` from what is there first; `answered_from` says
        which it was. Answers can be wrong: the excerpts in `evidence` are the document's own words."""
        return await self._answer([document_id], question, mode)

    async def ask_documents(self, document_ids: list[str], question: str, mode: Mode = "auto") -> dict[str, Any]:
        """Ask one question about several documents at once, 2 to 32. The first question about them makes a document of
        its own of all their texts, which is then learned; the same ones asked again, in any order, are that document.
        Otherwise as `ask_document`."""
        return await self._answer(document_ids, question, mode)

    async def _answer(self, document_ids: list[str], question: str, mode: Mode) -> dict[str, Any]:
        with _told():
            model = await base_model(self._connection)
            body = question_body(model, document_ids, mode, [turn("user", question)])
            body["lift"]["evidence"] = True
            answer = await self._connection.json("POST", ROUTE, json=body)
        lift = answer["lift"]
        return {
            "answer": answer["choices"][0]["message"]["content"],
            "answered_from": lift["answered_from"],
            "evidence": [
                {name: one[name] for name in ("text", "verdict", "heading", "page") if name in one}
                for one in lift.get("evidence") or []  # null: looking for it failed
            ],
        } | ({"evidence_error": lift["evidence_error"]["message"]} if "evidence_error" in lift else {})


@contextmanager
def _told() -> Iterator[None]:
    """A refusal is a tool's error, which the agent reads, and not the server's end."""
    try:
        yield
    except CommandError as error:
        raise ToolError(str(error)) from error


def _shown(document: Json) -> Json:
    """What an agent can use of it."""
    return {name: document[name] for name in SHOWN if document.get(name) is not None}
