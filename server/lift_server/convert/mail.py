"""An e-mail → who wrote what to whom when, and its text: its plain part, else the HTML one; no attachments."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

from lift_server.convert import legacy, webpage

SHOWN = ("Subject", "From", "To", "Cc", "Date")


def read(content: bytes) -> str:
    message = message_from_bytes(content, _class=EmailMessage, policy=policy.default)
    head = [f"{name}: {' '.join(str(message[name]).split())}" for name in SHOWN if message[name]]
    return "\n".join(head) + "\n\n" + _body(message)


def _body(message: EmailMessage) -> str:
    part = message.get_body(("plain", "html"))
    if part is None:
        return ""
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes):
        return ""
    try:
        text = raw.decode(part.get_content_charset("utf-8"))
    except (LookupError, UnicodeDecodeError):  # the charset it names is unknown, or wrong
        text = legacy.read(raw)
    return webpage.text_of(text) if part.get_content_subtype() == "html" else text
