"""A ZIP → the text of the Office document, OpenDocument file or EPUB it is, else of the files in it (bundle.py)."""

from __future__ import annotations

import functools
import io
import re
import zipfile
from xml.etree.ElementTree import Element, fromstring

from lift_server.convert.refusal import Refused, too_large

MAX_UNPACKED_BYTES = 512 * 2**20  # pictures count, though nobody unpacks them
MAX_MEMBERS = 20_000
MAX_RATIO = 200  # unpacked to packed, of a file above LARGE_BYTES: text packs to a tenth, a log to a fiftieth
LARGE_BYTES = 16 * 2**20
OPEN_DOCUMENT = b"application/vnd.oasis.opendocument."
MAIN_PART = re.compile(
    rb"(wordprocessingml|ms-word|presentationml|ms-powerpoint|spreadsheetml|ms-excel)\.[\w.]{1,60}\.main\b",
    re.IGNORECASE,
)


class Archive:
    """A ZIP whose members are read by name, XML without entities from elsewhere (expat fetches none)."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        self.members = self._zip.infolist()
        self.names = frozenset(member.filename for member in self.members)
        check_sizes(len(self.members), sum(member.file_size for member in self.members), len(content))
        _refuse_encrypted(self.members)
        found = MAIN_PART.search(self.bytes_of("[Content_Types].xml"))
        self._office = found[1].decode().lower() if found else ""
        self._is_book = "META-INF/container.xml" in self.names
        self._is_open_document = self.bytes_of("mimetype").startswith(OPEN_DOCUMENT)
        self.is_bundle = not (self._office or self._is_book or self._is_open_document)

    def bytes_of(self, name: str) -> bytes:
        """Empty where there is no such member."""
        return self._zip.read(name) if name in self.names else b""

    def xml(self, name: str) -> Element:
        """An empty element where there is no such member."""
        return fromstring(self.bytes_of(name) or b"<none/>")

    def text(self) -> str:
        if self._office:
            return self._office_text()
        if self._is_book:
            from lift_server.convert import epub

            return epub.text_of(self)
        if self._is_open_document:
            from lift_server.convert import opendocument

            return opendocument.text_of(self)
        from lift_server.convert import bundle

        files = [member for member in self.members if not member.is_dir()]
        found = [bundle.Member(one.filename, functools.partial(self._zip.read, one)) for one in files]
        return bundle.text_of(found, "ZIP archive")

    def _office_text(self) -> str:
        if self._office in ("wordprocessingml", "ms-word"):
            from lift_server.convert import docx

            return docx.text_of(self, self._content)
        if self._office in ("presentationml", "ms-powerpoint"):
            from lift_server.convert import pptx

            return pptx.text_of(self)
        from lift_server.convert import sheet

        return sheet.read_xlsx(self._content)


def read(content: bytes) -> str:
    return Archive(content).text()


def local(element: Element) -> str:
    """An element's name without its namespace: Office writes two sets of them."""
    return element.tag.rpartition("}")[2]


def attribute(element: Element, name: str) -> str:
    """By its name without namespace; one with a namespace wins, as r:id does over id."""
    found = [value for key, value in element.attrib.items() if key.rpartition("}")[2] == name]
    qualified = [value for key, value in element.attrib.items() if key.endswith(f"}}{name}")]
    return (qualified or found or [""])[0]


def check_sizes(members: int, unpacked_bytes: int, size_bytes: int) -> None:
    """Before anything is unpacked: zipfile gives no more of a member than it announces, so that can be relied on."""
    if members > MAX_MEMBERS:
        raise Refused(f"The archive has {members} members; at most {MAX_MEMBERS} are read.", code="too_large")
    if unpacked_bytes > MAX_UNPACKED_BYTES:
        raise too_large("The unpacked file", MAX_UNPACKED_BYTES)
    if unpacked_bytes > max(LARGE_BYTES, MAX_RATIO * size_bytes):
        message = f"The archive unpacks to more than {MAX_RATIO} times its size, as bombs do and documents do not."
        raise Refused(message, code="too_large")


def _refuse_encrypted(members: list[zipfile.ZipInfo]) -> None:
    if locked := next((member.filename for member in members if member.flag_bits & 1), None):
        message = f"The file is encrypted ({locked[:255]!r} in it). Save it without a password."
        raise Refused(message, code="encrypted_document")
