"""`lift-serve upload`: in: files, or standard input; out: the documents' ids, once they are ready where wanted."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from lift_server.client.connection import Connection, Json, document_route, read_object, refused
from lift_server.client.last import remember
from lift_server.client.screen import UNFINISHED, Progress, show_list
from lift_server.exits import Refusals, UntrainedError, UsageError

POLL_S = 1.0
STDIN = "-"
TOO_MANY = 429


@dataclass(frozen=True)
class File:
    name: str
    content: bytes


async def upload(connection: Connection, args: Namespace, state: Path) -> int:
    """All files are read before the first is sent: a misspelled name uploads nothing."""
    files = _read(args.files, args.title)
    refusals = Refusals("upload", as_json=args.json)
    documents: list[Json] = []
    try:
        for file in files:
            with refusals.told(file.name if len(files) > 1 else ""):
                documents.append(await send(connection, file, args.title, args.recipe))
                if not args.json:
                    print(documents[-1]["id"], flush=True)
                with refusals.warned():
                    remember(state, connection.address, documents[-1]["id"])
        if args.wait:
            await _wait(connection, documents, refusals)
    finally:
        if args.json:
            show_list(documents)
    return refusals.exit_code


def _read(names: list[str], title: str | None) -> list[File]:
    if title is not None and len(names) > 1:
        raise UsageError("--title names one document: upload the files one by one")
    if names.count(STDIN) > 1:
        raise UsageError("standard input (-) can be read once only")
    return [File("stdin", sys.stdin.buffer.read()) if name == STDIN else read_file(Path(name)) for name in names]


def read_file(path: Path) -> File:
    """UsageError where it cannot be read."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return File(path.name.encode(errors="replace").decode(), content)


async def send(connection: Connection, file: File, title: str | None, recipe: str | None) -> Json:
    """The document object."""
    form = aiohttp.FormData(quote_fields=False)  # else a space in the file's name becomes %20, for good
    for name, value in (("title", title), ("recipe", recipe)):
        if value is not None:
            value.encode()  # UnicodeError for what aiohttp calls a TypeError
            form.add_field(name, value)
    form.add_field("file", file.content, filename=file.name)
    return await connection.json("POST", "/v1/documents", data=form)


async def _wait(connection: Connection, documents: list[Json], refusals: Refusals) -> None:
    """For one after the other, as they are trained; each is put in the place of what it was."""
    progress = Progress(is_silent=refusals.as_json)
    try:
        for at, document in enumerate(documents):
            with refusals.told():
                documents[at] = await _ended(connection, document, progress)
                _refuse_untrained(documents[at])
    finally:
        progress.clear()


def _refuse_untrained(document: Json) -> None:
    if document["status"] != "ready":
        error = document.get("error") or {}
        said = f": {error['message']}" if error else ""
        raise UntrainedError(f"{document['id']} {document['status']}{said}", f"document_{document['status']}")


async def _ended(connection: Connection, document: Json, progress: Progress) -> Json:
    while document["status"] in UNFINISHED:
        document = await _look(connection, document["id"])
        progress.show(document)
    return document


async def _look(connection: Connection, document_id: str) -> Json:
    """The document in a moment; later where the key's requests of this minute are used up."""
    pause_s = POLL_S
    while True:
        await asyncio.sleep(pause_s)
        async with connection.reply("GET", document_route(document_id)) as answer:
            if answer.status == TOO_MANY:
                told = answer.headers.get("Retry-After", "")
                pause_s = float(told) if told.isdigit() else POLL_S
                continue
            if answer.status != 200:
                raise refused(answer.status, await answer.text())
            return await read_object(answer)
