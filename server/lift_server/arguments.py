"""The arguments of `lift-serve`: in: nothing; out: the parser, with every command's help. Standard library only."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from lift_server.exits import MEANINGS

LIMITS = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens of prompts and answers",
    "documents": "documents that the owner has",
    "bytes": "bytes of the owner's documents, together",
    "training": "documents of the owner in training at once",
}
MODES = ("adapter", "auto", "context", "hybrid")
EXAMPLE = 'lift-serve upload report.pdf && lift-serve ask "Who signed it?"'
CLUSTER = "the hosts of the Ray cluster at ADDRESS; auto: the one that this machine is in"
LAST = "a document's id; default: the one uploaded last from here to this address"

Add = Callable[..., argparse.ArgumentParser]


def parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in MEANINGS.items())
    top = argparse.ArgumentParser(
        prog="lift-serve",
        description="Answers from documents' weights (LIFT).",
        epilog=f"example:\n  {EXAMPLE}\n\nexit codes:\n{codes}\n\n"
        "`lift-serve COMMAND --help` tells of a command. Errors go to standard error; with --json as a JSON object.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = top.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser
    up = add("up", help="start Redis, engines, workers and the server on this machine")
    up.add_argument("--ray", default="", metavar="ADDRESS", help=f"engines and workers on {CLUSTER}")
    down = add("down", help="end what `up --ray` started on a Ray cluster")
    down.add_argument("--ray", required=True, metavar="ADDRESS", help=CLUSTER)
    add("server", help="only the HTTP front end", add_help=False)
    add("worker", help="only a training worker (--index N)", add_help=False)
    add("engine", help="only a vLLM engine (--index N)", add_help=False)
    json = argparse.ArgumentParser(add_help=False)
    json.add_argument("--json", action="store_true", help="one JSON value on standard output, errors as JSON too")
    client = argparse.ArgumentParser(add_help=False)
    client.add_argument("--url", help="the server's address; default: from the settings")
    client.add_argument("--key", help="an API key, where the server wants one; default: LIFT_API_KEY")
    _add_asking(add, client, json)
    _add_documents(add, client, json)
    _add_operating(add, client, json)
    return top


def _add_asking(add: Add, client: argparse.ArgumentParser, json: argparse.ArgumentParser) -> None:
    upload = add("upload", parents=[client, json], help="upload documents, print their ids")
    upload.add_argument("files", nargs="+", metavar="FILE", help="PDF, Word, HTML, text, …; - is standard input")
    upload.add_argument("--title", help="names the document in every question")
    upload.add_argument("--recipe", help="how its adapter is trained")
    upload.add_argument("--wait", action="store_true", help="return when every adapter is ready, show how far it is")
    ask = add(
        "ask",
        parents=[client, json],
        help="ask a question of a document, or of several as one",
        usage="%(prog)s [options] [DOC …] QUESTION",
    )
    ask.add_argument("words", nargs="+", metavar="[DOC …] QUESTION", help=f"DOC: {LAST}")
    ask.add_argument("--max-wait", type=_seconds, metavar="SECONDS", help="for the adapter; default: the server's")
    ask.add_argument("--evidence", action="store_true", help="then print what in the document is for or against it")
    chat = add("chat", parents=[client], help="a conversation about a document; Ctrl-D or /quit ends it")
    chat.add_argument("document", nargs="?", metavar="DOC", help=LAST)
    bench = add(
        "bench",
        parents=[client, json],
        help="measure the time to the first token, cold and warm, and tokens a second",
        description="Uploads FILE as a document never seen and asks at once (cold), then asks again and again (warm). "
        "FILE's document is deleted afterwards. Better versions may be in training meanwhile and slow warm questions: "
        "--document asks one whose training is over, and measures warm only.",
    )
    bench.add_argument("file", nargs="?", metavar="FILE", help="PDF, Word, HTML, text, …")
    bench.add_argument("--document", metavar="DOC", help="a document's id, in place of FILE")
    bench.add_argument("--question", default="What is this about?", metavar="TEXT", help="default: %(default)s")
    bench.add_argument("-n", "--questions", type=_some, default=20, metavar="N", help="warm ones; default: %(default)s")
    add("mcp", parents=[client], help="a Model Context Protocol server on standard input and output, for agents")
    for command in (ask, chat):
        command.add_argument("--mode", choices=MODES, help="where answers come from")


def _add_documents(add: Add, client: argparse.ArgumentParser, json: argparse.ArgumentParser) -> None:
    add("docs", parents=[client, json], help="list all documents, newest first")
    status = add("status", parents=[client, json], help="list the newest documents, or show one as JSON")
    status.add_argument("document", nargs="?", metavar="DOC", help="a document's id")
    export = add("export", parents=[client, json], help="a document's adapter into a tar that PEFT and vLLM can load")
    export.add_argument("document", metavar="DOC", help="a document's id")
    export.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: the server's name for it, in this folder"
    )
    export.add_argument("--force", action="store_true", help="overwrite a file that is there")
    remove = add("rm", parents=[client, json], help="delete documents")
    remove.add_argument("documents", nargs="+", metavar="DOC", help="a document's id")


def _add_operating(add: Add, client: argparse.ArgumentParser, json: argparse.ArgumentParser) -> None:
    doctor = add(
        "doctor",
        parents=[client, json],
        help="check the deployment, say what to fix",
        description="Checks what the settings here name: files, Redis, store, engines, workers, server. With --url "
        "only the server there, as it is seen from here. With --gone instead, that nothing is left of deleted "
        "documents anywhere. Changes nothing; exit code 1 where something FAILs.",
    )
    doctor.add_argument(
        "--gone",
        nargs="+",
        metavar="ID",
        help="of a deleted document, of its adapter (which finds texts too), or a job",
    )
    keys = add("keys", help="create, list or revoke API keys")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", parents=[json], help="print a new key, this once")
    create.add_argument("name", metavar="NAME", help="for your own eyes, in `keys list`")
    create.add_argument("--owner", help="a second key for this owner, or `default`: what was uploaded without keys")
    for limit, what in LIMITS.items():
        help_ = f"{what}; 0: no limit; default: the setting"
        create.add_argument(f"--{limit.replace('_', '-')}", type=_count, metavar="N", help=help_)
    actions.add_parser("list", parents=[json], help="every key's id, owner and limits")
    revoke = actions.add_parser("revoke", parents=[json], help="a key is refused from now on")
    revoke.add_argument("id", metavar="ID")
    letters = add("dead-letters", help="list jobs that failed after every attempt, or retry them")
    actions = letters.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser(
        "list", parents=[json], help="each job, when and why it failed, and the documents that wait for it"
    )
    retry = actions.add_parser("retry", parents=[json], help="put jobs into the queue again")
    retry.add_argument("job", nargs="*", metavar="JOB", help="as `list` names it; default: all")


def _some(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _seconds(text: str) -> float:
    if not 0 <= (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError("must be a number from 0 on")
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value
