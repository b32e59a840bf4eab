"""Why a file has no text for us. Imports nothing, so that the child starts quickly."""

from __future__ import annotations


class Refused(Exception):
    """`code` is what the client reads in the envelope (README, "Errors")."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def too_large(what: str, limit_bytes: int) -> Refused:
    return Refused(f"{what} is larger than the limit of {limit_bytes} bytes.", code="too_large")
