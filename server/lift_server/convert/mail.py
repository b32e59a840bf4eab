"""An e-mail → who wrote what to whom when, its text (the plain part, else the HTML one), and that of what is attached.

A mailbox is its mails one after the other; a web page saved in one file (MHTML) is built like a mail. What has no
text for us (a picture, a program) is named and passed over: the mail is what was uploaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Any, NamedTuple, cast

from lift_server.convert import inner, legacy, webpage
from lift_server.convert.clean import HEADING
from lift_server.convert.refusal import Refused

SHOWN = ("Subject", "From", "To", "Cc", "Date")
SIGNATURES = ("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature")
MOST_NESTED = 8  # mails in a mail
BEGINNING = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\n(?=[!-9;-~]+:)")  # of a mail in a mailbox (RFC 4155)
QUOTED = re.compile(rb"^>(?=>*From )", re.MULTILINE)


class Part(NamedTuple):
    text: str
    is_body: bool  # of the letter; else of what is attached to it


class _Lenient(EmailPolicy):
    def header_fetch_parse(self, name: str, value: str) -> Any:
        """As it stands where Python's parser stumbles over it; one that says what a part is, as if it said nothing."""
        try:
            return super().header_fetch_parse(name, value)
        except (AttributeError, LookupError, TypeError, ValueError, MessageError):  # from within
            says_what_it_is = name.lower().startswith("content-")
            return self.header_factory(name, "") if says_what_it_is else self.header_factory("Unreadable", value)


def read(content: bytes) -> str:
    starts = list(BEGINNING.finditer(content))
    if len(starts) < 2:
        return _read(_letter(content), 0)
    ends = [*(start.start() for start in starts[1:]), len(content)]
    letters = (content[start.end() : end] for start, end in zip(starts, ends, strict=True))
    return "\n\n".join(_titled(_letter(QUOTED.sub(b"", letter)), 0) for letter in letters)


def _letter(content: bytes) -> EmailMessage:
    policy: Any = _Lenient()  # typeshed has it generic, Python not
    return message_from_bytes(content, _class=EmailMessage, policy=policy)


def _read(message: EmailMessage, depth: int) -> str:
    head = [f"{name}: {' '.join(str(message[name]).split())}" for name in SHOWN if message[name]]
    parts = ["\n".join(head), *(part.text for part in _parts(message, depth))]
    return "\n\n".join(part for part in parts if part.strip())


def _parts(part: EmailMessage, depth: int) -> Iterator[Part]:
    inside = cast(list[EmailMessage], part.get_payload()) if part.is_multipart() else []
    kind = part.get_content_type()
    if not inside:
        yield from _leaf(part)
    elif kind == "message/rfc822":
        yield Part(_forwarded(inside[0], depth), is_body=False)
    elif kind == "multipart/alternative":
        yield from _best(inside, depth)
    elif kind == "multipart/related":  # a page, and what it is drawn with
        yield from _parts(inside[0], depth)
        for one in inside[1:]:
            yield from _parts(one, depth) if one.get_filename() else ()
    elif part.get_content_maintype() == "multipart":
        for one in inside:
            yield from _parts(one, depth)
    else:  # fields in blocks, as a report about a mail that did not arrive has them
        yield Part("\n\n".join(str(one) for one in inside), is_body=True)


def _leaf(part: EmailMessage) -> Iterator[Part]:
    main = part.get_content_maintype()
    if part.get_content_type() in SIGNATURES:
        return
    if main in ("text", "multipart") and not part.is_attachment() and part.get_filename() is None:
        yield Part(_text(part), is_body=True)
    elif main != "image" or part.is_attachment():  # a letter's pictures are no attachments
        yield Part(_file(part), is_body=False)


def _best(versions: list[EmailMessage], depth: int) -> Iterator[Part]:
    """Of a letter written twice the plain version, else the next that has words; and what hangs on any of them."""
    found = [list(_parts(one, depth)) for one in versions]
    order = sorted(range(len(versions)), key=lambda at: versions[at].get_content_type() != "text/plain")
    with_words = [at for at in order if any(part.is_body and part.text.strip() for part in found[at])]
    for at, parts in enumerate(found):
        yield from (part for part in parts if at in with_words[:1] or not part.is_body)


def _text(part: EmailMessage) -> str:
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes):
        return ""
    try:
        text = raw.decode(part.get_content_charset("utf-8"))
    except (LookupError, ValueError):  # the charset it names is unknown, or wrong
        text = legacy.read(raw)
    return webpage.text_of(text) if part.get_content_subtype() == "html" else text


def _forwarded(message: EmailMessage, depth: int) -> str:
    """A mail that another one carries, whole."""
    if depth == MOST_NESTED:
        return f"Attached, but not read: a mail in {MOST_NESTED + 1} others"
    return _titled(message, depth + 1)


def _titled(message: EmailMessage, depth: int) -> str:
    title = " ".join(str(message["Subject"] or "Message").split())
    return f"{HEADING}{title}\n\n{_read(message, depth)}"


def _file(part: EmailMessage) -> str:
    name = " ".join((part.get_filename() or part.get_content_type()).split())
    content = part.get_payload(decode=True)
    try:
        text = inner.text_of(content if isinstance(content, bytes) else b"", name)
    except Refused as refused:
        return f"Attached, but not read: {name} ({inner.reason(refused)})"
    return f"{HEADING}{name}\n\n{text}" if text.strip() else f"Attached, but not read: {name} (it has no text)"
