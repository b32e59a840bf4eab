"""A file in a file (a ZIP's, a tar's, a mail's) → its text, as if it had been uploaded alone, with marks (clean.py)."""

from __future__ import annotations

import importlib
from pathlib import PurePath

from lift_server import places
from lift_server.convert import legacy
from lift_server.convert.kinds import Kind, kind_of
from lift_server.convert.refusal import Refused

NESTED = "it is an archive in an archive; pack its files themselves."


def text_of(content: bytes, name: str) -> str:
    """Refused with the reason, also where it is an archive of files, which would have no end."""
    try:
        kind = kind_of(content, name)
        if kind in (Kind.TAR, Kind.GZIP):
            raise Refused(NESTED, code="unsupported_format")
        if kind is Kind.ARCHIVE:
            return _of_archive(content)
        if kind in (Kind.TEXT, Kind.LEGACY):
            return places.marked(legacy.read(content), PurePath(name).name)
        reader = importlib.import_module(f"lift_server.convert.{kind.value}")
        return str(reader.read(content))
    except Refused:
        raise
    except Exception as error:  # a parser's, of a damaged file
        raise Refused("it is damaged, or far too large inside.", code="conversion_failed") from error


def reason(refused: Refused) -> str:
    """In brief, for a text that names the file."""
    return refused.message.partition(". ")[0].rstrip(".")


def _of_archive(content: bytes) -> str:
    from lift_server.convert.archive import Archive

    inner = Archive(content)
    if inner.is_bundle:
        raise Refused(NESTED, code="unsupported_format")
    return inner.text()
