"""The command `lift-serve`: in: arguments; out: a process, API keys, dead letters, or a question to a running server.

Nothing heavy is imported before the command is known, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from lift_config.settings import Settings
    from lift_server.client import Server

CONFIG = Path("config/lift.yaml")
LIMITS = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens of prompts and answers",
    "documents": "documents that the owner has",
    "bytes": "bytes of the owner's documents, together",
    "training": "documents of the owner in training at once",
}
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
    if args.command == "keys":
        _leave(_keys(args))
    if args.command == "dead-letters":
        _leave(_dead_letters(args))
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
    client.add_argument("--key", help="an API key, where the server wants one; default: LIFT_API_KEY")
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
    _add_keys(commands.add_parser("keys", help="create, list or revoke API keys"))
    letters = commands.add_parser("dead-letters", help="list jobs that failed after every attempt, or retry them")
    actions = letters.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="each job, when and why it failed, and the documents that wait for it")
    retry = actions.add_parser("retry", help="put jobs into the queue again")
    retry.add_argument("job", nargs="*", metavar="JOB", help="as `list` names it; default: all")
    return parser


def _add_keys(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="print a new key, this once")
    create.add_argument("name", metavar="NAME", help="for your own eyes, in `keys list`")
    create.add_argument("--owner", help="a second key for this owner, or `default`: what was uploaded without keys")
    for limit, what in LIMITS.items():
        help_ = f"{what}; 0: no limit; default: the setting"
        create.add_argument(f"--{limit.replace('_', '-')}", type=_count, metavar="N", help=help_)
    actions.add_parser("list", help="every key's id, owner and limits")
    actions.add_parser("revoke", help="a key is refused from now on").add_argument("id", metavar="ID")


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _keys(args: argparse.Namespace) -> int:
    import asyncio

    from redis.exceptions import RedisError

    from lift_server.keys_command import run

    os.umask(0o077)
    try:
        told = asyncio.run(run(_settings(), args))
    except (ValueError, LookupError, RedisError, OSError) as error:
        print(f"lift-serve keys {args.action}: {error}", file=sys.stderr)
        return 1
    if told.output:
        print(told.output)
    print(told.aside, file=sys.stderr)
    if not told.is_done:
        print(
            "lift-serve keys: Redis cannot be reached, so a running server may not know; run it again", file=sys.stderr
        )
    return 0 if told.is_done else 1


def _dead_letters(args: argparse.Namespace) -> int:
    import asyncio

    from redis.exceptions import RedisError

    from lift_server.dead_letters import run
    from lift_server.errors import ApiError

    os.umask(0o077)
    try:
        print(asyncio.run(run(_settings(), args)))
    except (LookupError, RedisError, ApiError, OSError) as error:
        print(f"lift-serve dead-letters {args.action}: {error}", file=sys.stderr)
        return 1
    return 0


def _leave(code: int) -> NoReturn:
    """Without taking the interpreter down: a thread of obstore's that wants it in that moment aborts the process, and
    what was done would look undone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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

    from lift_server import client

    try:
        asyncio.run(_request(args, client.Server(args.url or _address(), args.key or os.environ.get("LIFT_API_KEY"))))
    except (client.ServerRefusedError, aiohttp.ClientError, OSError) as error:
        print(f"lift-serve {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _request(args: argparse.Namespace, server: Server) -> Coroutine[Any, Any, None]:
    from lift_server import client

    if args.command == "upload":
        return client.upload(server, args.file, args.title, args.recipe, args.wait)
    if args.command == "ask":
        return client.ask(server, args.document, args.question, args.mode)
    return client.status(server, args.document)


def _settings() -> Settings:
    """As scripts/serve finds them: in a checkout its own file, where LIFT_CONFIG names no other."""
    from lift_config.settings import Settings

    if "LIFT_CONFIG" not in os.environ and CONFIG.is_file():
        os.environ["LIFT_CONFIG"] = str(CONFIG)
    return Settings()


def _address() -> str:
    server = _settings().server
    return f"http://{server.host}:{server.port}"


if __name__ == "__main__":
    sys.exit(main())
