"""How a command ends: in: what went wrong; out: one line on standard error and an exit code that a script can go by."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DONE, FAILED, USAGE, UNREACHABLE, UNTRAINED, INTERRUPTED = 0, 1, 2, 3, 4, 130
UNTRAINED_CODES = ("document_failed", "document_cancelled")
MEANINGS = {
    DONE: "done",
    FAILED: "refused by the server, or failed",
    USAGE: "wrong arguments, files or settings; nothing was done",
    UNREACHABLE: "the server cannot be reached",
    UNTRAINED: "the document failed or was cancelled",
    INTERRUPTED: "interrupted",
}


class CommandError(Exception):
    """Failed here, or refused there: then `envelope` is the server's own."""

    exit_code = FAILED
    code = "failed"

    def __init__(self, message: str, envelope: dict[str, Any] | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.envelope = envelope or {"message": str(self), "type": "command_error", "param": None, "code": self.code}


class UsageError(CommandError):
    exit_code = USAGE
    code = "usage"


class UnreachableError(CommandError):
    exit_code = UNREACHABLE
    code = "server_unreachable"

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}: {fix}")
        self.what = what
        self.fix = fix


class UntrainedError(CommandError):
    """The document's status is `failed` or `cancelled`."""

    exit_code = UNTRAINED

    def __init__(self, message: str, code: str, envelope: dict[str, Any] | None = None) -> None:
        self.code = code
        super().__init__(message, envelope)


def tell(error: CommandError, command: str, about: str = "", *, as_json: bool) -> None:
    """A line for people, or the envelope on a line of its own. `about` is one file of several."""
    told = {"error": error.envelope} | ({"file": about} if about else {})
    line = json.dumps(told) if as_json else f"lift-serve {f'{command} {about}'.rstrip()}: {error}"
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Refusals:
    """Of several files or documents one may be refused: that is told at once, the others have their turn, and the last
    refusal says how the command ends."""

    def __init__(self, command: str, *, as_json: bool) -> None:
        self.as_json = as_json
        self.exit_code = DONE
        self._command = command

    @contextmanager
    def told(self, about: str = "") -> Iterator[None]:
        """A server that is out of reach is so for all of them."""
        try:
            yield
        except UnreachableError:
            raise
        except CommandError as error:
            tell(error, self._command, about, as_json=self.as_json)
            self.exit_code = error.exit_code

    @contextmanager
    def warned(self) -> Iterator[None]:
        """What was done stands, whatever becomes of this."""
        try:
            yield
        except (CommandError, OSError) as error:
            tell(CommandError(f"done, but: {error}"), self._command, as_json=self.as_json)
