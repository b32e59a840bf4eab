"""A ZIP → the text of the Office document or EPUB it is. Other archives are refused, bombs by their announced size."""

from __future__ import annotations

import io
import re
import zipfile
from xml.etree.ElementTree import Element, fromstring

from lift_server.convert.kinds import SUPPORTED
from lift_server.convert.refusal import Refused, too_large

MAX_UNPACKED_BYTES = 512 * 2**20  # pictures count, though nobody unpacks them
MAX_MEMBERS = 20_000
MAIN_PART = re.compile(
    rb"(wordprocessingml|ms-word|presentationml|ms-powerpoint|spreadsheetml|ms-excel)\.[\w.]{1,60}\.main\b",
    re.IGNORECASE,
)


class Archive:
    """A ZIP whose members are read by name, XML without entities from elsewhere (expat fetches none)."""

    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        members = self._zip.infolist()
        self.names = frozenset(member.filename for member in members)
        # zipfile gives no more of a member than it announces, so what is announced can be relied on.
        if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
            raise too_large("The unpacked file", MAX_UNPACKED_BYTES)
        if any(member.flag_bits & 1 for member in members):
            raise Refused("The file is encrypted. Save it without a password.", code="encrypted_document")

    def bytes_of(self, name: str) -> bytes:
        """Empty where there is no such member."""
        return self._zip.read(name) if name in self.names else b""

    def xml(self, name: str) -> Element:
        """An empty element where there is no such member."""
        return fromstring(self.bytes_of(name) or b"<none/>")


def read(content: bytes) -> str:
    archive = Archive(content)
    if found := MAIN_PART.search(archive.bytes_of("[Content_Types].xml")):
        return _office(found[1].decode().lower(), content, archive)
    if "META-INF/container.xml" in archive.names:
        from lift_server.convert import epub

        return epub.text_of(archive)
    if archive.bytes_of("mimetype").startswith(b"application/vnd.oasis.opendocument"):
        raise _unsupported("an OpenDocument file; save it as DOCX, PPTX or XLSX")
    raise _unsupported("a ZIP archive; upload its documents one by one")


def local(element: Element) -> str:
    """An element's name without its namespace: Office writes two sets of them."""
    return element.tag.rpartition("}")[2]


def attribute(element: Element, name: str) -> str:
    """By its name without namespace; one with a namespace wins, as r:id does over id."""
    found = [value for key, value in element.attrib.items() if key.rpartition("}")[2] == name]
    qualified = [value for key, value in element.attrib.items() if key.endswith(f"}}{name}")]
    return (qualified or found or [""])[0]


def _office(family: str, content: bytes, archive: Archive) -> str:
    if family in ("wordprocessingml", "ms-word"):
        from lift_server.convert import docx

        return docx.read(content)
    if family in ("presentationml", "ms-powerpoint"):
        from lift_server.convert import pptx

        return pptx.text_of(archive)
    from lift_server.convert import sheet

    return sheet.read_xlsx(content)


def _unsupported(kind: str) -> Refused:
    return Refused(f"The file is {kind}. {SUPPORTED}", code="unsupported_format")
