"""The command `lift-serve`: in: arguments; out: a process, or a command's answer and its exit code (exits.py).

Nothing heavy is imported before the command is known, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lift_server.arguments import parser
from lift_server.exits import DONE, FAILED, INTERRUPTED, USAGE, CommandError, UsageError, tell

if TYPE_CHECKING:
    from lift_config.settings import Settings
    from lift_server.client.connection import Server

CONFIG = Path("config/lift.yaml")
USES_STORE = ("keys", "dead-letters", "doctor")
ROLES = {"server": "lift_server", "worker": "lift_workers", "engine": "lift_engine"}


def main(argv: Sequence[str] | None = None) -> int:
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
        import argcomplete

        argcomplete.autocomplete(parser())
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter of the answer shows another
    args, rest = parser().parse_known_args(argv)
    if args.command in ROLES:
        command = [sys.executable, "-m", ROLES[args.command], *rest]
        os.execv(command[0], command)
    if args.command == "ask":  # argparse would have the document and the question side by side
        args.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    code = _run(args)
    if args.command in USES_STORE:
        _leave(code)
    return code


def _run(args: argparse.Namespace) -> int:
    """The edge at which errors become a line and an exit code."""
    name = " ".join(filter(None, (args.command, getattr(args, "action", None))))
    try:
        code = OPERATING.get(args.command, _ask_server)(args)
        sys.stdout.flush()
        return code
    except CommandError as error:
        tell(error, name, as_json=getattr(args, "json", False))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has enough; what is still to be flushed goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except UnicodeError as error:  # a name or a title in another encoding than the terminal's
        tell(UsageError(str(error)), name, as_json=getattr(args, "json", False))
        return USAGE
    except OSError as error:
        tell(CommandError(str(error)), name, as_json=getattr(args, "json", False))
        return FAILED


def _keys(args: argparse.Namespace) -> int:
    import asyncio

    from obstore.exceptions import BaseError
    from redis.exceptions import RedisError

    from lift_server.keys_command import run

    os.umask(0o077)
    try:
        told = asyncio.run(run(_settings(), args))
    except (ValueError, LookupError, RedisError, BaseError) as error:
        raise CommandError(str(error)) from error
    if told.output:
        print(told.output)
    if not getattr(args, "json", False):
        print(told.aside, file=sys.stderr)
    if not told.is_done:
        raise CommandError("Redis cannot be reached, so a running server may not know; run it again")
    return DONE


def _dead_letters(args: argparse.Namespace) -> int:
    import asyncio

    from obstore.exceptions import BaseError
    from redis.exceptions import RedisError

    from lift_server.dead_letters import run
    from lift_server.errors import ApiError

    os.umask(0o077)
    try:
        print(asyncio.run(run(_settings(), args)))
    except (LookupError, RedisError, BaseError, ApiError) as error:
        raise CommandError(str(error)) from error
    return DONE


def _doctor(args: argparse.Namespace) -> int:
    import asyncio

    from lift_server.client.connection import Server, server_address
    from lift_server.doctor.examine import examine, installation, is_gone, report

    os.umask(0o077)
    loop = asyncio.new_event_loop()  # not asyncio.run, which would wait for a check that hangs in the kernel
    if args.gone:
        if args.url:
            raise UsageError("--gone looks into store and Redis by the settings here, not at a --url")
        return loop.run_until_complete(report(is_gone(_settings(), args.gone), as_json=args.json))
    if args.url:
        server = Server(server_address(args.url), _key(args))
        return loop.run_until_complete(report(examine(server), as_json=args.json))
    return loop.run_until_complete(report(installation(_settings, os.environ, _key(args)), as_json=args.json))


def _leave(code: int) -> NoReturn:
    """Without taking the interpreter down: a thread of obstore's that wants it in that moment aborts the process, and
    what was done would look undone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _up(args: argparse.Namespace) -> int:
    from lift_server.launcher.up import run_up

    settings = _settings()
    if args.ray:
        check_cluster(settings, os.environ, is_installed=_has_ray())
    return run_up(settings, os.environ, ray=args.ray)


def _down(args: argparse.Namespace) -> int:
    import asyncio

    settings = _settings()
    check_cluster(settings, os.environ, is_installed=_has_ray())
    from lift_server.cluster.fleet import Fleet, FleetError

    try:
        fleet = Fleet(settings, args.ray)
        fleet.claim()
        members = fleet.members()
        asyncio.run(fleet.drain(members))
    except FleetError as error:
        raise CommandError(str(error)) from error
    print(f"ended: {', '.join(member.name for member in members) or 'nothing was there'}")
    return DONE


def _has_ray() -> bool:
    from importlib.util import find_spec

    return find_spec("ray") is not None


def check_cluster(settings: Settings, environment: Mapping[str, str], *, is_installed: bool) -> None:
    """UsageError where another host could not take part."""
    if not is_installed:
        raise UsageError("--ray: Ray is not installed: pip install 'lift-serve[ray]'")
    needed = {
        "REDIS_URL": settings.redis_url,
        "store_url": settings.store_url,
        "engine.api_key": settings.engine.api_key,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise UsageError(f"--ray: all hosts must share these settings: set {', '.join(missing)}")
    if settings.engine.urls:
        raise UsageError("--ray: engine.urls must be empty: the engines are found in Redis")
    if not environment.get("RAY_AUTH_MODE"):  # Ray would let in everybody, who could run code on all hosts
        raise UsageError(
            "--ray: set RAY_AUTH_MODE=token, as for `ray start` (docs/how-to/ray.md); or disabled, where nobody else is"
        )


def _ask_server(args: argparse.Namespace) -> int:
    import asyncio

    from lift_server.client import ask, bench, chat, documents, last, upload
    from lift_server.client.connection import Connection

    server, state = _server(args), last.state_path(os.environ)
    if args.command == "chat":
        return chat.chat(server, args, state)
    command = {
        "upload": upload.upload,
        "ask": ask.ask,
        "bench": bench.bench,
        "docs": documents.docs,
        "status": documents.status,
        "export": documents.export,
        "rm": documents.remove,
    }[args.command]

    async def run() -> int:
        async with Connection(server) as connection:
            return await command(connection, args, state)

    return asyncio.run(run())


def _mcp(args: argparse.Namespace) -> int:
    import asyncio

    from lift_server.client.connection import Connection

    try:
        from lift_server.client.mcp import serve
    except ModuleNotFoundError as error:
        raise UsageError(f"{error}: pip install 'lift-serve[mcp]'") from error

    async def run() -> int:
        async with Connection(_server(args)) as connection:
            await serve(connection)
        return DONE

    return asyncio.run(run())


def _server(args: argparse.Namespace) -> Server:
    from lift_server.client.connection import Server, own_address, server_address

    address = server_address(args.url) if args.url else own_address(_settings().server)
    return Server(address, _key(args))


def _key(args: argparse.Namespace) -> str | None:
    key: str | None = args.key or os.environ.get("LIFT_API_KEY")
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError("--key, LIFT_API_KEY: a key has printable ASCII characters only")
    return key


def _settings() -> Settings:
    """As scripts/serve finds them: in a checkout its own file, where LIFT_CONFIG names no other. UsageError that names
    each setting that is no good."""
    if "LIFT_CONFIG" not in os.environ and CONFIG.is_file():
        os.environ["LIFT_CONFIG"] = str(CONFIG)
    from pydantic import ValidationError
    from yaml import YAMLError

    from lift_config.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}".removeprefix(": ")
            for one in error.errors()
        ]
        raise UsageError(f"settings: {'; '.join(found)}") from error
    except (YAMLError, ValueError, OSError) as error:  # ValueError: a file that is no mapping, a list that is no JSON
        raise UsageError(f"settings: {os.environ.get('LIFT_CONFIG', 'the environment')}: {error}") from error


OPERATING = {"up": _up, "down": _down, "keys": _keys, "dead-letters": _dead_letters, "doctor": _doctor, "mcp": _mcp}


if __name__ == "__main__":
    sys.exit(main())
