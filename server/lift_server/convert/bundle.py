"""A ZIP of several files → the text of each under its path, in the order of their paths; one document.

Nothing is unpacked to a disk. Members of a kind without text for us (pictures, programs, archives) are passed over and
named at the end. One that should have text and gives none refuses the whole by name: half a document, silently, would
be worse.
"""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence

from lift_server.convert import inner
from lift_server.convert.archive import Archive
from lift_server.convert.clean import HEADING
from lift_server.convert.refusal import Refused

MAX_FILES = 1000
MAX_PATH_CHARS = 255
UNUSUAL_PATH = re.compile(r"^[/~]|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)|[\x00-\x1f\x7f\ufdd0-\ufdef]")
LEFT_BEHIND = re.compile(r"(?:^|/)(?:\.[^./]|__MACOSX/|Thumbs\.db$|desktop\.ini$)")  # by systems and tools, unseen
MOST_NAMED = 10  # of what is not read for one reason: a site's hundred pictures are nothing to learn


def text_of(archive: Archive) -> str:
    members = [one for one in archive.members if not one.is_dir() and not LEFT_BEHIND.search(one.filename)]
    if len(members) > MAX_FILES:
        raise Refused(f"The ZIP archive holds {len(members)} files; at most {MAX_FILES} are read.", code="too_large")
    if not members:
        raise Refused("The ZIP archive holds no files.", code="unsupported_format")
    for member in members:
        _check_path(member.filename)
    return _joined(archive, sorted(members, key=_order))


def _check_path(name: str) -> None:
    if len(name) > MAX_PATH_CHARS or UNUSUAL_PATH.search(name):
        raise _refused(name, "its path is not one below the archive")


def _order(member: zipfile.ZipInfo) -> list[tuple[int, str]]:
    """Chapter 2 before chapter 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", member.filename)]


def _joined(archive: Archive, members: Sequence[zipfile.ZipInfo]) -> str:
    texts: list[str] = []
    unread: list[tuple[str, Refused]] = []
    for member in members:
        content = _content(archive, member)
        try:
            text = inner.text_of(content, member.filename)
        except Refused as refused:
            if refused.code != "unsupported_format":
                raise _refused(member.filename, refused.message, refused.code) from refused
            unread.append((member.filename, refused))
        else:
            texts += [f"{HEADING}{member.filename}\n\n{text}"] if text.strip() else []
    if unread and not texts:
        name, why = unread[0]
        raise _refused(name, why.message) from why
    return "\n\n".join([*texts, *_named(unread)])


def _content(archive: Archive, member: zipfile.ZipInfo) -> bytes:
    try:
        return archive.content_of(member)
    except Exception as error:  # zipfile's, of a damaged archive: say which one
        raise _refused(member.filename, "it is damaged.", "conversion_failed") from error


def _named(unread: Sequence[tuple[str, Refused]]) -> Iterator[str]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, refused in unread:
        names[inner.reason(refused)].append(name)
    for reason, found in names.items():
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        yield f"Not read: {', '.join(found[:MOST_NAMED])}{more} ({reason})"


def _refused(name: str, why: str, code: str = "unsupported_format") -> Refused:
    shown = name if len(name) <= MAX_PATH_CHARS else f"{name[:MAX_PATH_CHARS]}…"
    return Refused(f"{shown!r} in the ZIP archive: {why}", code=code)
