"""Bytes of text → str: UTF-8, also a little damaged, UTF-16 and UTF-32, else what charset-normalizer finds."""

from __future__ import annotations

from lift_server.convert.kinds import wide_codec
from lift_server.convert.refusal import Refused

REPLACED, ASCII_END = "\ufffd", "\x7f"
WHOLE_TO_DAMAGED = 20  # letters of several bytes, which by chance hardly occur in another encoding
SAMPLE_BYTES = 256 * 1024  # what the encoding is found by
# These share most letters with cp1252, by far the likeliest, and are told from it by their languages only.
LIKE_CP1252 = frozenset(["cp1250", "cp1254", "cp1257", *(f"iso8859_{part}" for part in (2, 3, 4, 9, 10, 13, 14, 16))])
NOT_IN_CP1252 = frozenset(
    ["Polish", "Czech", "Slovak", "Hungarian", "Slovene", "Croatian", "Romanian", "Turkish", "Lithuanian", "Latvian"]
)


def read(content: bytes) -> str:
    if wide := wide_codec(content):
        return content.decode(wide, "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("utf-8-sig", "replace")
    damaged = text.count(REPLACED)
    whole = sum(letter > ASCII_END for letter in text) - damaged
    return text if damaged * WHOLE_TO_DAMAGED <= whole else _detected(content)


def _detected(content: bytes) -> str:
    from charset_normalizer import from_bytes

    telling = b"\n".join(line for line in content.splitlines() if not line.isascii())
    sample = telling[:SAMPLE_BYTES]
    if len(telling) > SAMPLE_BYTES:  # not cut within a letter
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    found = from_bytes(sample).best()
    encodings = [] if found is None else [found.encoding]
    if found and found.encoding in LIKE_CP1252 and found.language not in NOT_IN_CP1252:
        encodings.insert(0, "cp1252")
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    message = "The file is text in an encoding that could not be told. Save it as UTF-8."
    raise Refused(message, code="invalid_encoding")
