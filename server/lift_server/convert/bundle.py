"""A ZIP of several files → the text of each under its path, in the order of their paths; one document.

Nothing is unpacked to a disk. A member that has no text for us refuses the whole by name: half a document, silently,
would be worse.
"""

from __future__ import annotations

import re
import zipfile

from lift_server.convert import inner
from lift_server.convert.archive import Archive
from lift_server.convert.clean import HEADING
from lift_server.convert.refusal import Refused

MAX_FILES = 1000
MAX_PATH_CHARS = 255
UNUSUAL_PATH = re.compile(r"^[/~]|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)|[\x00-\x1f\x7f\ufdd0-\ufdef]")
LEFT_BEHIND = re.compile(r"(?:^|/)(?:\.[^./]|__MACOSX/|Thumbs\.db$|desktop\.ini$)")  # by systems and tools, unseen


def text_of(archive: Archive) -> str:
    members = [one for one in archive.members if not one.is_dir() and not LEFT_BEHIND.search(one.filename)]
    if len(members) > MAX_FILES:
        raise Refused(f"The ZIP archive holds {len(members)} files; at most {MAX_FILES} are read.", code="too_large")
    if not members:
        raise Refused("The ZIP archive holds no files.", code="unsupported_format")
    for member in members:
        _check_path(member.filename)
    texts = [(member.filename, _text(archive, member)) for member in sorted(members, key=_order)]
    return "\n\n".join(f"{HEADING}{name}\n\n{text}" for name, text in texts if text.strip())


def _check_path(name: str) -> None:
    if len(name) > MAX_PATH_CHARS or UNUSUAL_PATH.search(name):
        raise _refused(name, "its path is not one below the archive")


def _order(member: zipfile.ZipInfo) -> list[tuple[int, str]]:
    """Chapter 2 before chapter 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", member.filename)]


def _text(archive: Archive, member: zipfile.ZipInfo) -> str:
    try:
        content = archive.content_of(member)
    except Exception as error:  # zipfile's, of a damaged archive: say which one
        raise _refused(member.filename, "it is damaged.", "conversion_failed") from error
    try:
        return inner.text_of(content, member.filename)
    except Refused as refused:
        raise _refused(member.filename, refused.message, refused.code) from refused


def _refused(name: str, why: str, code: str = "unsupported_format") -> Refused:
    shown = name if len(name) <= MAX_PATH_CHARS else f"{name[:MAX_PATH_CHARS]}…"
    return Refused(f"{shown!r} in the ZIP archive: {why}", code=code)
