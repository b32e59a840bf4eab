"""An upload's bytes → its normalised text with the places in it, or the reason why there is none.

Normalised: decoded, BOM off, line ends LF, NFC; so the same text trains once however it was saved.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from itertools import islice

from lift_server import places
from lift_server.convert.converter import Converted
from lift_server.convert.kinds import Kind, is_utf16, kind_of
from lift_server.convert.nfc import composed
from lift_server.convert.refusal import Refused
from lift_server.errors import ApiError, InvalidRequest

Convert = Callable[[bytes, Kind], Awaitable[Converted]]

REFUSALS = {"unsupported_format": 415, "too_large": 413}  # status by code; any other is a 400

MIN_WORDS = 3
MIN_UNSPACED_LETTERS = 10
WORD = re.compile(r"\w+")
# Scripts written without spaces, where a whole sentence is one "word": Thai to Khmer, kana, Han.
UNSPACED = re.compile(
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


async def file_text(content: bytes, filename: str | None, param: str, convert: Convert) -> Converted:
    """The normalised text of a file of any kind; ApiError naming `param` for what has none."""
    try:
        kind = await asyncio.to_thread(kind_of, content, filename)
        if kind is Kind.TEXT:
            return await asyncio.to_thread(_checked_text, _decoded(content), filename, param)
        converted = await convert(content, kind)
    except Refused as refused:
        raise _told(refused, param) from refused
    return converted._replace(text=await asyncio.to_thread(_checked, converted.text, param))  # it is NFC: nothing moves


async def plain_text(content: bytes, param: str) -> Converted:
    """The same for UTF-8 that is said to be the text itself: nothing is converted."""
    try:
        if await asyncio.to_thread(kind_of, content, None) in (Kind.PDF, Kind.ARCHIVE, Kind.TAR, Kind.GZIP, Kind.RTF):
            raise Refused("These are a file's bytes, not its text. Upload the file.", code="unsupported_format")
    except Refused as refused:
        raise _told(refused, param) from refused
    return await asyncio.to_thread(_checked_text, content.decode(), None, param)


def normalize(text: str) -> str:
    """Refused where marks stand in a row as in no text (convert/nfc.py)."""
    return composed(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))


def _told(refused: Refused, param: str) -> ApiError:
    return ApiError(REFUSALS.get(refused.code, 400), refused.message, code=refused.code, param=param)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-16" if is_utf16(content) else "utf-8")
    except UnicodeDecodeError as error:
        message = f"The file is not valid UTF-16 (byte {error.start}: {error.reason})."
        raise Refused(message, code="invalid_encoding") from error


def _checked_text(given: str, filename: str | None, param: str) -> Converted:
    text = _checked(given, param)
    return Converted(text, places.of_text(text, filename))


def _checked(given: str, param: str) -> str:
    """Normalised; ApiError where it is less than a sentence."""
    try:
        text = normalize(given)
    except Refused as refused:
        raise _told(refused, param) from refused
    if "\x00" in text:
        raise ApiError(415, "The document holds NUL bytes, so it is not text.", code="unsupported_format", param=param)
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


def _has_a_sentence(text: str) -> bool:
    """Counts no further than it must: a document may have a million words."""
    words = 0
    for word in WORD.finditer(text):
        words += any(character.isalnum() for character in word[0][:64])
        if words >= MIN_WORDS:
            return any(character.isalpha() for character in text)
    return len(list(islice(UNSPACED.finditer(text), MIN_UNSPACED_LETTERS))) == MIN_UNSPACED_LETTERS
