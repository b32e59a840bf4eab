"""The document uploaded last from this machine, one for each server's address; what `lift-serve ask` without one means.

In: a small file of this user's. Out: an id. It holds addresses and ids, no key, no text.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lift_server.exits import CommandError, UsageError


def state_path(environment: Mapping[str, str]) -> Path:
    """Below XDG_STATE_HOME, which the XDG specification wants ignored where it is relative."""
    given = Path(environment.get("XDG_STATE_HOME", ""))
    folder = given if given.is_absolute() else Path(environment.get("HOME") or "/") / ".local" / "state"
    return folder / "lift-serve" / "last.json"


def last_document(path: Path, address: str) -> str:
    """UsageError that says what to do where there is none."""
    if document_id := _read(path).get(address):
        return document_id
    raise UsageError(
        f"no document was uploaded to {address} from here: name one (`lift-serve docs` lists them), "
        "or begin with `lift-serve upload FILE`"
    )


def remember(path: Path, address: str, document_id: str) -> None:
    _write(path, _read(path) | {address: document_id})


def forget(path: Path, address: str, document_id: str) -> None:
    """Where it is the one: it was deleted."""
    known = _read(path)
    if known.get(address) == document_id:
        _write(path, {url: one for url, one in known.items() if url != address})


def _read(path: Path) -> dict[str, str]:
    try:
        values = json.loads(path.read_text("utf-8"))
        return {str(address): str(document_id) for address, document_id in values.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise CommandError(f"{path} cannot be understood: delete it") from error


def _write(path: Path, known: dict[str, str]) -> None:
    """Whole or not at all, for this user's eyes only (mkstemp's mode is 0600)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump(known, file)
        Path(draft).replace(path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise
