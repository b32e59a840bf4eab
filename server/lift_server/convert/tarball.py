"""A tar → the text of the files in it, as of a ZIP's (bundle.py). Links, devices and the like are named, not followed.

Nothing is unpacked to a disk; what the members announce is counted before any is read.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from itertools import islice

from lift_server.convert import bundle
from lift_server.convert.archive import MAX_MEMBERS, check_sizes
from lift_server.convert.refusal import Refused

BLOCK_BYTES = 512
END = bytes(BLOCK_BYTES)  # of an archive; two of them by POSIX, but some write one
DAMAGED = Refused("The tar archive is damaged or cut off.", code="conversion_failed")


def read(content: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:", encoding="utf-8", errors="replace") as file:
        members = list(_members(file))
        check_sizes(len(members), sum(one.size for one in members), len(content))
        if content[file.offset : file.offset + BLOCK_BYTES] != END:  # tarfile ends there as if all were read
            raise DAMAGED
        found = [bundle.Member(one.name.removeprefix("./"), _reader(file, one)) for one in members if not one.isdir()]
        return bundle.text_of(found, "tar archive")


def _members(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """At most one more than are allowed."""
    for member in islice(file, MAX_MEMBERS + 1):
        if member.size < 0:  # leads back, without end (CVE-2025-8194)
            raise DAMAGED
        yield member


def _reader(file: tarfile.TarFile, member: tarfile.TarInfo) -> bundle.Read:
    def content() -> bytes:
        if not member.isreg():
            raise Refused("it is a link or a device.", code="unsupported_format")
        read = file.extractfile(member)
        assert read is not None  # of a regular file
        return read.read()

    return content
