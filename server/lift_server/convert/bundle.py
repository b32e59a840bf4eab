"""A ZIP's or a tar's files → the text of each under its path, in the order of their paths; one document.

Nothing is unpacked to a disk. Members of a kind without text for us (pictures, programs, archives) are passed over and
named at the end. One that should have text and gives none refuses the whole by name: half a document, silently, would
be worse.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from lift_server.convert import inner
from lift_server.convert.clean import HEADING
from lift_server.convert.refusal import Refused

MAX_FILES = 1000
MAX_PATH_CHARS = 255
UNUSUAL_PATH = re.compile(r"^[/~]|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)|[\x00-\x1f\x7f\ufdd0-\ufdef]")
LEFT_BEHIND = re.compile(r"(?:^|/)(?:\.[^./]|__MACOSX/|Thumbs\.db$|desktop\.ini$)")  # by systems and tools, unseen
MOST_NAMED = 10  # of what is not read for one reason: a site's hundred pictures are nothing to learn


Read = Callable[[], bytes]


class Member(NamedTuple):
    """`content` raises Refused for what is no file, as a link in a tar."""

    name: str
    content: Read


def text_of(members: Sequence[Member], what: str) -> str:
    """`what` the archive is, for refusals."""
    files = [one for one in members if not LEFT_BEHIND.search(one.name)]
    if len(files) > MAX_FILES:
        raise Refused(f"The {what} holds {len(files)} files; at most {MAX_FILES} are read.", code="too_large")
    if not files:
        raise Refused(f"The {what} holds no files.", code="unsupported_format")
    for member in files:
        if len(member.name) > MAX_PATH_CHARS or UNUSUAL_PATH.search(member.name):
            raise _refused(member.name, what, "its path is not one below the archive")
    return _joined(sorted(files, key=_order), what)


def _order(member: Member) -> list[tuple[int, str]]:
    """Chapter 2 before chapter 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", member.name)]


def _joined(members: Sequence[Member], what: str) -> str:
    texts: list[str] = []
    unread: list[tuple[str, Refused]] = []
    for member in members:
        try:
            text = _text(member)
        except Refused as refused:
            if refused.code != "unsupported_format":
                raise _refused(member.name, what, refused.message, refused.code) from refused
            unread.append((member.name, refused))
        else:
            texts += [f"{HEADING}{member.name}\n\n{text}"] if text.strip() else []
    if unread and not texts:
        name, why = unread[0]
        raise _refused(name, what, why.message) from why
    return "\n\n".join([*texts, *_named(unread)])


def _text(member: Member) -> str:
    try:
        content = member.content()
    except Refused:
        raise
    except Exception as error:  # zipfile's or tarfile's, of a damaged archive: say which one
        raise Refused("it is damaged.", code="conversion_failed") from error
    return inner.text_of(content, member.name)


def _named(unread: Sequence[tuple[str, Refused]]) -> Iterator[str]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, refused in unread:
        names[inner.reason(refused)].append(name)
    for reason, found in names.items():
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        yield f"Not read: {', '.join(found[:MOST_NAMED])}{more} ({reason})"


def _refused(name: str, what: str, why: str, code: str = "unsupported_format") -> Refused:
    shown = name if len(name) <= MAX_PATH_CHARS else f"{name[:MAX_PATH_CHARS]}…"
    return Refused(f"{shown!r} in the {what}: {why}", code=code)
