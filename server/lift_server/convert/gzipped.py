"""What was packed by gzip → its text: a tar's files (tarball.py), else the one file's, by the name that gzip keeps."""

from __future__ import annotations

import gzip
import io
import posixpath

from lift_server.convert import inner, tarball
from lift_server.convert.archive import LARGE_BYTES, MAX_RATIO, MAX_UNPACKED_BYTES, check_sizes
from lift_server.convert.kinds import is_tar
from lift_server.convert.refusal import Refused

FLAGS_AT, HEADER_BYTES = 3, 10  # RFC 1952
HAS_EXTRA, HAS_NAME = 4, 8


def read(content: bytes) -> str:
    unpacked = _unpacked(content)
    if is_tar(unpacked):
        return tarball.read(unpacked)
    try:
        return inner.text_of(unpacked, _name(content))
    except Refused as refused:
        raise Refused(f"In the gzip archive: {refused.message}", code=refused.code) from refused


def _unpacked(content: bytes) -> bytes:
    most = min(MAX_UNPACKED_BYTES, max(LARGE_BYTES, MAX_RATIO * len(content)))
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(most + 1)  # at once: parts that are joined would take twice the memory
    check_sizes(1, len(unpacked), len(content))
    return unpacked


def _name(content: bytes) -> str:
    """Empty where gzip read from a pipe."""
    flags = content[FLAGS_AT]
    start = HEADER_BYTES
    if flags & HAS_EXTRA:
        start += 2 + int.from_bytes(content[start : start + 2], "little")
    name = content[start : content.index(b"\x00", start)] if flags & HAS_NAME else b""
    return posixpath.basename(name.decode("latin-1"))
