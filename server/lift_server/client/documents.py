"""`lift-serve docs | status | rm | export`: in: ids; out: lists, objects, deletions, an adapter in a file."""

from __future__ import annotations

import os
import tempfile
from argparse import Namespace
from pathlib import Path

import aiohttp

from lift_server.client.connection import Connection, Json, document_route
from lift_server.client.last import forget
from lift_server.client.screen import document_line, show_json, show_list
from lift_server.exits import DONE, Refusals, UsageError

CHUNK_BYTES = 2**20


async def docs(connection: Connection, args: Namespace, _: Path) -> int:
    """All there are, newest first."""
    _show(await connection.documents(), as_json=args.json)
    return DONE


async def status(connection: Connection, args: Namespace, _: Path) -> int:
    """One document as JSON, or the newest."""
    if args.document:
        show_json(await connection.json("GET", document_route(args.document)))
    else:
        _show((await connection.json("GET", "/v1/documents"))["data"], as_json=args.json)
    return DONE


async def remove(connection: Connection, args: Namespace, state: Path) -> int:
    refusals = Refusals("rm", as_json=args.json)
    deleted: list[Json] = []
    try:
        for document_id in args.documents:
            with refusals.told():
                deleted.append(await connection.json("DELETE", document_route(document_id)))
                if not args.json:
                    print(document_id, flush=True)
                with refusals.warned():
                    forget(state, connection.address, document_id)
    finally:
        if args.json:
            show_list(deleted)
    return refusals.exit_code


async def export(connection: Connection, args: Namespace, _: Path) -> int:
    """Prints the file's name. There is a whole archive under that name, or none."""
    given: Path | None = args.output
    if given:
        _refuse_existing(given, force=args.force)
    async with connection.accepted("GET", document_route(args.document, "/adapter")) as answer:
        path = given or Path(_offered_name(answer))
        _refuse_existing(path, force=args.force)
        size_bytes = await _save(answer, path)
    if args.json:
        show_json({"document_id": args.document, "file": str(path), "bytes": size_bytes})
    else:
        print(path)
    return DONE


def _show(documents: list[Json], *, as_json: bool) -> None:
    if as_json:
        show_list(documents)
        return
    for document in documents:
        print(document_line(document))


def _refuse_existing(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name a file with -o")
    if path.exists() and not force:
        raise UsageError(f"{path} exists: --force overwrites it, -o names another file")


def _offered_name(answer: aiohttp.ClientResponse) -> str:
    """The server's, of which a path to elsewhere is cut off."""
    offered = answer.content_disposition.filename if answer.content_disposition else None
    return Path(offered or "adapter.tar").name or "adapter.tar"


async def _save(answer: aiohttp.ClientResponse, path: Path) -> int:
    """As it comes; under the file's own name once all of it is there. For this user alone, as it holds the document."""
    try:
        number, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    try:
        with os.fdopen(number, "wb") as file:
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                file.write(chunk)
        size_bytes = Path(draft).stat().st_size
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)
    return size_bytes
