"""The command `lift-serve`: in: arguments; out: one of the processes, or a question to a running server.

Nothing heavy is imported before the command is known, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

ROLES = {"server": "lift_server", "worker": "lift_workers", "engine": "lift_engine"}


def main(argv: Sequence[str] | None = None) -> int:
    args, rest = _parser().parse_known_args(argv)
    if args.command in ROLES:
        command = [sys.executable, "-m", ROLES[args.command], *rest]
        os.execv(command[0], command)
    if rest:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    if args.command == "up":
        return _up()
    return _ask_server(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lift-serve", description="Answers from documents' weights (LIFT).")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start Redis, engines, workers and the server on this machine")
    commands.add_parser("server", help="only the HTTP front end", add_help=False)
    commands.add_parser("worker", help="only a training worker (--index N)", add_help=False)
    commands.add_parser("engine", help="only a vLLM engine (--index N)", add_help=False)

    client = argparse.ArgumentParser(add_help=False)
    client.add_argument("--url", help="the server's address; default: from the settings")
    upload = commands.add_parser("upload", parents=[client], help="upload a document, print its id")
    upload.add_argument("file", type=Path)
    upload.add_argument("--title", help="names the document in every question")
    upload.add_argument("--recipe", help="how its adapter is trained")
    upload.add_argument("--wait", action="store_true", help="return when its adapter is ready")
    ask = commands.add_parser("ask", parents=[client], help="ask a question of a document")
    ask.add_argument("document", help="a document's id")
    ask.add_argument("question")
    ask.add_argument("--mode", choices=["adapter", "auto", "context", "hybrid"], help="where the answer comes from")
    status = commands.add_parser("status", parents=[client], help="list the documents, or show one")
    status.add_argument("document", nargs="?", help="a document's id")
    return parser


def _up() -> int:
    from pydantic import ValidationError

    from lift_config.settings import Settings
    from lift_server.launcher.up import run_up

    try:
        settings = Settings()
    except ValidationError as error:
        print(f"lift-serve: {error}", file=sys.stderr)
        return 2
    return run_up(settings, os.environ)


def _ask_server(args: argparse.Namespace) -> int:
    import asyncio

    import aiohttp

    from lift_server.client import ServerRefusedError

    try:
        asyncio.run(_request(args, args.url or _address()))
    except (ServerRefusedError, aiohttp.ClientError, OSError) as error:
        print(f"lift-serve {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _request(args: argparse.Namespace, address: str) -> Coroutine[Any, Any, None]:
    from lift_server import client

    if args.command == "upload":
        return client.upload(address, args.file, args.title, args.recipe, args.wait)
    if args.command == "ask":
        return client.ask(address, args.document, args.question, args.mode)
    return client.status(address, args.document)


def _address() -> str:
    from lift_config.settings import Settings

    server = Settings().server
    return f"http://{server.host}:{server.port}"


if __name__ == "__main__":
    sys.exit(main())
