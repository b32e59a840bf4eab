"""Bytes of an upload → its normalised text, or the reason why there is none.

Normalised: decoded, BOM off, line ends LF, NFC; so the same text trains once however it was saved.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from itertools import islice

from lift_server.errors import InvalidRequest, UnsupportedFormat

SUPPORTED = "Plain text and Markdown are supported, as UTF-8, or as UTF-16 with a byte order mark."
MAGIC = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive or an Office document",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"\x7fELF": "a program",
    b"{\\rtf": "an RTF document",
}
UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

MIN_WORDS = 3
MIN_UNSPACED_LETTERS = 10
WORD = re.compile(r"\w+")
# Scripts written without spaces, where a whole sentence is one "word": Thai to Khmer, kana, Han.
UNSPACED = re.compile(
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def document_text(content: bytes, param: str) -> str:
    """The normalised text. ApiError naming `param` for what is no text, or less than a sentence of it."""
    for magic, kind in MAGIC.items():
        if content.startswith(magic):
            raise UnsupportedFormat(f"The file is {kind}. {SUPPORTED}", param=param)
    text = normalize(_decode(content, param))
    if not text.strip():
        raise InvalidRequest("The document is empty.", param=param, code="empty_document")
    if not _has_a_sentence(text):
        raise InvalidRequest(
            f"The document is shorter than one sentence: it needs {MIN_WORDS} words, "
            f"or {MIN_UNSPACED_LETTERS} letters of a script without spaces.",
            param=param,
            code="document_too_short",
        )
    return text


def normalize(text: str) -> str:
    return unicodedata.normalize("NFC", text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))


def is_utf16(content: bytes) -> bool:
    """By its byte order mark; without one UTF-16 is not accepted."""
    return content.startswith(UTF_16) and not content.startswith(UTF_32)


def _decode(content: bytes, param: str) -> str:
    if content.startswith(UTF_32):
        raise InvalidRequest(f"The file is UTF-32. {SUPPORTED}", param=param, code="invalid_encoding")
    encoding = "utf-16" if is_utf16(content) else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\x00" in content:
            raise _binary(param) from error
        message = f"The file is not valid {encoding.upper()} (byte {error.start}: {error.reason}). {SUPPORTED}"
        raise InvalidRequest(message, param=param, code="invalid_encoding") from error
    if "\x00" in text:
        raise _binary(param)
    return text


def _binary(param: str) -> UnsupportedFormat:
    return UnsupportedFormat(f"The file holds NUL bytes, so it is not text. {SUPPORTED}", param=param)


def _has_a_sentence(text: str) -> bool:
    """Counts no further than it must: a document may have a million words."""
    words = 0
    for word in WORD.finditer(text):
        words += any(character.isalnum() for character in word[0][:64])
        if words >= MIN_WORDS:
            return any(character.isalpha() for character in text)
    return len(list(islice(UNSPACED.finditer(text), MIN_UNSPACED_LETTERS))) == MIN_UNSPACED_LETTERS
