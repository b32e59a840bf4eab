"""An e-mail → who wrote what to whom when, its text (the plain part, else the HTML one), and that of what is attached.

What has no text for us (a picture, a program) is named and passed over: the mail is what was uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from typing import cast

from lift_server.convert import inner, legacy, webpage
from lift_server.convert.clean import HEADING
from lift_server.convert.refusal import Refused

SHOWN = ("Subject", "From", "To", "Cc", "Date")
SIGNATURES = ("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature")
MOST_NESTED = 8  # mails in a mail


def read(content: bytes) -> str:
    return _read(message_from_bytes(content, _class=EmailMessage, policy=policy.default), 0)


def _read(message: EmailMessage, depth: int) -> str:
    head = [f"{name}: {' '.join(str(message[name]).split())}" for name in SHOWN if message[name]]
    parts = ["\n".join(head), _body(message), *_attached(message, depth)]
    return "\n\n".join(part for part in parts if part.strip())


def _body(message: EmailMessage) -> str:
    """Some programs write HTML beside a plain part that is empty."""
    parts = [part for kind in ("plain", "html") if (part := message.get_body((kind,)))]
    return next((text for part in parts if (text := _text(part)).strip()), "")


def _text(part: Message) -> str:
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes):
        return ""
    try:
        text = raw.decode(part.get_content_charset("utf-8"))
    except (LookupError, UnicodeDecodeError):  # the charset it names is unknown, or wrong
        text = legacy.read(raw)
    return webpage.text_of(text) if part.get_content_subtype() == "html" else text


def _attached(message: EmailMessage, depth: int) -> Iterator[str]:
    for part in message.iter_attachments():
        name = part.get_filename()
        if part.get_content_type() in SIGNATURES:
            continue
        if part.get_content_type() == "message/rfc822":
            yield _forwarded(part, depth)
        elif name is None and part.get_content_maintype() == "text":  # programs write on behind an attachment
            yield _text(part)
        elif part.is_attachment() or part.get_content_maintype() != "image":  # a letter's pictures are no attachments
            yield _file(part, " ".join((name or part.get_content_type()).split()))


def _forwarded(part: Message, depth: int) -> str:
    """A mail that another one carries, whole."""
    if depth == MOST_NESTED:
        return f"Attached, but not read: a mail in {MOST_NESTED + 1} others"
    (message,) = cast(list[EmailMessage], part.get_payload())
    title = " ".join(str(message["Subject"] or "Forwarded message").split())
    return f"{HEADING}{title}\n\n{_read(message, depth + 1)}"


def _file(part: Message, name: str) -> str:
    content = part.get_payload(decode=True)
    try:
        text = inner.text_of(content if isinstance(content, bytes) else b"", name)
    except Refused as refused:
        return f"Attached, but not read: {name} ({inner.reason(refused)})"
    return f"{HEADING}{name}\n\n{text}" if text.strip() else ""
