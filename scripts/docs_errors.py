"""Every error code with its status and what its message says, read from the source of server and workers.

In: the modules' syntax. Out: rows for the reference. Nothing is run: a code counts where it is written as a literal.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lift_server.decode import REFUSALS
from lift_server.errors import HTTP_CODES

ROOT = Path(__file__).resolve().parent.parent
SERVER, WORKERS = ROOT / "server" / "lift_server", ROOT / "workers" / "lift_workers"
RAISED = ("JobFailed", "__init__")  # itself, or what is made of it
CODE = re.compile(r"[a-z]+(_[a-z]+)*")
STATUSES = {"InvalidRequest": 400, "UnsupportedFormat": 415, "DocumentStopped": 409}  # told a code by who raises them
Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Row(NamedTuple):
    status: int
    code: str
    message: str


def answers() -> list[Row]:
    """What a request can be answered with: each code and status once, by status."""
    found = {(code, status): f"HTTP {status}" for status, code in HTTP_CODES.items()}
    found[("invalid_value", 400)] = "a field's value is no good; `param` names the field"
    found[("unknown_parameter", 400)] = "an upload or `lift` has no such field; `param` names it"
    found[("invalid_request", 400)] = "vLLM refused the request; its status and message are passed on"
    for path in sorted(SERVER.rglob("*.py")):
        for row in _told(ast.parse(path.read_text("utf-8"))):
            found.setdefault((row.code, row.status), row.message)
    return sorted(Row(status, code, message) for (code, status), message in found.items())


def failures() -> list[tuple[str, str]]:
    """Why a training failed, as the document's own `error` says it."""
    found: dict[str, str] = {}
    for path in sorted(WORKERS.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and _name(call) in RAISED and len(call.args) > 1:
                code, message = map(_text, call.args[:2])
                if CODE.fullmatch(code):
                    found.setdefault(code, message or "see its message")
    return sorted(found.items())


def _told(scope: Scope, purpose: str = "") -> Iterator[Row]:
    """Of a module, a class or a function; a name `message` is looked for in the function that says it."""
    purpose = (ast.get_docstring(scope) or purpose) if isinstance(scope, ast.ClassDef) else purpose
    said: dict[str, str] = {}
    for node in _inside(scope):
        if isinstance(node, Scope):
            yield from _told(node, purpose)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            said[node.targets[0].id] = _text(node.value)
        elif isinstance(node, ast.Call) and (code := _code(node)):
            texts = [said.get(arg.id, "") if isinstance(arg, ast.Name) else _text(arg) for arg in node.args]
            message = next(filter(None, texts), "") or purpose.partition("\n")[0]
            yield Row(_status(node, code), code, message)


def _inside(scope: Scope) -> Iterator[ast.AST]:
    """Everything below `scope`, functions and classes in it as a whole."""
    waiting: list[ast.AST] = list(scope.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, Scope):
            waiting[:0] = ast.iter_child_nodes(node)


def _code(call: ast.Call) -> str:
    given = [word.value for word in call.keywords if word.arg == "code"]
    return str(given[0].value) if given and isinstance(given[0], ast.Constant) else ""


def _status(call: ast.Call, code: str) -> int:
    if call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, int):
        return call.args[0].value
    name = _name(call)
    if name == "Refused":
        return REFUSALS.get(code, 400)
    assert name in STATUSES, f"{name}: say its status in STATUSES"
    return STATUSES[name]


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _text(node: ast.AST) -> str:
    """A literal; what an f-string fills in stays as `…`."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
