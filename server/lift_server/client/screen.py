"""What a person sees of documents: in: document objects; out: a line for each, a bar that is drawn over, JSON."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from lift_server.client.connection import Json

UNFINISHED = ("queued", "training")
BAR_CHARACTERS = 24
CLEAR_LINE = "\r\x1b[K"


def document_line(document: Json) -> str:
    progress = document.get("progress") or {}
    doing = f"{progress.get('phase', '')} {_percent(document)}" if document["status"] in UNFINISHED else ""
    error = (document.get("error") or {}).get("message", "")
    return "  ".join(part for part in (document["id"], document["status"], doing, _name(document), error) if part)


def show_json(value: Any) -> None:
    """The one value on standard output."""
    print(json.dumps(value, indent=2))


def show_list(data: list[Json]) -> None:
    """As the API's lists are."""
    show_json({"object": "list", "data": data})


class Progress:
    """Of one document after the other, on standard error: on a terminal a bar, elsewhere a line for each change."""

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._is_terminal = sys.stderr.isatty()
        self._told = ""

    def show(self, document: Json) -> None:
        line = document_line(document)
        if self._is_silent or line == self._told:
            return
        self._told = line
        if not self._is_terminal:
            print(line, file=sys.stderr)
        elif document["status"] in UNFINISHED:
            bar = _bar(document)[: shutil.get_terminal_size().columns - 1]  # one that wraps could not be drawn over
            print(f"{CLEAR_LINE}{bar}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{CLEAR_LINE}{line}", file=sys.stderr)

    def clear(self) -> None:
        """Takes a bar away that was left half way."""
        if self._is_terminal and not self._is_silent:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)


def _bar(document: Json) -> str:
    progress = document.get("progress") or {}
    done = round(BAR_CHARACTERS * progress.get("fraction", 0))
    eta_s = progress.get("eta_s")
    parts = (
        f"[{'#' * done}{'.' * (BAR_CHARACTERS - done)}]",
        _percent(document),
        str(progress.get("phase", "")),
        f"about {eta_s:.0f} s left" if eta_s else "",
        _name(document),
    )
    return "  ".join(part for part in parts if part)


def _percent(document: Json) -> str:
    return f"{100 * (document.get('progress') or {}).get('fraction', 0):.0f} %"


def _name(document: Json) -> str:
    return str(document.get("title") or document.get("filename") or "")
