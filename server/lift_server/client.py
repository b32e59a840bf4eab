"""`lift-serve upload | ask | status`: in: a server's address; out: its answers on the terminal."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

POLL_S = 1.0
UNFINISHED = ("queued", "training")
TOO_MANY = 429


@dataclass(frozen=True)
class Server:
    """Where it is, and the key to show."""

    address: str
    key: str | None = None


class ServerRefusedError(Exception):
    """The server answered with an error; the message is its own."""


async def upload(server: Server, path: Path, title: str | None, recipe: str | None, wait: bool) -> None:
    """Prints the document's id, progress on standard error."""
    form = aiohttp.FormData()
    for name, value in (("title", title), ("recipe", recipe)):
        if value is not None:
            form.add_field(name, value)
    form.add_field("file", path.read_bytes(), filename=path.name)
    async with _session(server) as session:
        document = await _json(session.post("/v1/documents", data=form))
        print(document["id"], flush=True)
        while wait and document["status"] in UNFINISHED:
            document = await _look(session, document["id"])
            print(_line(document), file=sys.stderr)
    if wait and document["status"] != "ready":
        raise ServerRefusedError(_line(document))


async def _look(session: aiohttp.ClientSession, document_id: str) -> Any:
    """The document in a moment; later where the key's requests of this minute are used up."""
    pause_s = POLL_S
    while True:
        await asyncio.sleep(pause_s)
        async with session.get(f"/v1/documents/{document_id}") as answer:
            if answer.status == TOO_MANY:
                pause_s = float(answer.headers.get("Retry-After", POLL_S))
                continue
            await _check(answer)
            return await answer.json()


async def ask(server: Server, document_id: str, question: str, mode: str | None) -> None:
    """Prints the answer as it comes."""
    async with _session(server) as session:
        models = await _json(session.get("/v1/models"))
        body: dict[str, Any] = {
            "model": models["data"][0]["id"],
            "messages": [{"role": "user", "content": question}],
            "document_id": document_id,
            "stream": True,
        }
        if mode:
            body["lift"] = {"mode": mode}
        async with session.post("/v1/chat/completions", json=body) as answer:
            await _check(answer)
            async for chunk in _chunks(answer):
                for choice in chunk.get("choices", []):
                    print(choice["delta"].get("content") or "", end="", flush=True)
    print()


async def status(server: Server, document_id: str | None) -> None:
    """One document as JSON, or a line for each."""
    async with _session(server) as session:
        if document_id:
            print(json.dumps(await _json(session.get(f"/v1/documents/{document_id}")), indent=2))
            return
        for document in (await _json(session.get("/v1/documents")))["data"]:
            print(_line(document))


def _session(server: Server) -> aiohttp.ClientSession:
    """No time limit: a question may wait for its document's training."""
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    return aiohttp.ClientSession(
        base_url=server.address, headers=headers, timeout=aiohttp.ClientTimeout(total=None, sock_connect=10)
    )


def _line(document: dict[str, Any]) -> str:
    progress = document.get("progress") or {}
    doing = f"{progress.get('phase', '')} {100 * progress.get('fraction', 0):.0f} %" if _busy(document) else ""
    name = document.get("title") or document.get("filename") or ""
    error = (document.get("error") or {}).get("message", "")
    return "  ".join(part for part in (document["id"], document["status"], doing, name, error) if part)


def _busy(document: dict[str, Any]) -> bool:
    return document["status"] in UNFINISHED


async def _json(request: Any) -> Any:
    async with request as answer:
        await _check(answer)
        return await answer.json()


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 400:
        raise ServerRefusedError(_message(await answer.text()) or f"HTTP {answer.status}")


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.content:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise ServerRefusedError(chunk["error"]["message"])
            yield chunk


def _message(body: str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:500]
