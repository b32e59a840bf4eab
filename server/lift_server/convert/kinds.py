"""What an upload's bytes are: told by themselves; by the file's name where bytes cannot tell (CSV, …).

In: bytes and the file's name. Out: a Kind; `Refused` for what is known and not read here.
"""

from __future__ import annotations

import codecs
import re
from enum import StrEnum

from lift_server.convert.refusal import Refused

SUPPORTED = (
    "Supported are PDF, DOCX, PPTX, XLSX, ODT, ODS, ODP, EPUB, HTML, RTF, LaTeX, e-mail (.eml, .mbox), subtitles "
    "(.srt, .vtt), CSV, Jupyter notebooks, text of any kind (Markdown, source code, …), and ZIP, tar and gzip archives "
    "of these."
)


class Kind(StrEnum):
    """Each but TEXT, which needs no conversion, is the name of the module here that reads it."""

    TEXT = "text"  # UTF-8, or UTF-16 with a byte order mark: taken as it is
    LEGACY = "legacy"  # text in another encoding, or UTF-16 without that mark
    PDF = "pdf"
    ARCHIVE = "archive"  # a ZIP: Office documents, OpenDocument, EPUB, or several files
    TAR = "tarball"
    GZIP = "gzipped"  # a tar, or a single file
    HTML = "webpage"
    RTF = "rtf"
    LATEX = "latex"
    MAIL = "mail"
    SUBTITLES = "subtitles"
    NOTEBOOK = "notebook"
    CSV = "sheet"


OLE = b"\xd0\xcf\x11\xe0"
KNOWN = {
    b"PK\x05\x06": "an empty ZIP archive",
    OLE: "an old Office document (.doc, .ppt, .xls); save it as .docx, .pptx or .xlsx",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    **{b"BZh%d1AY&SY" % level: "a bzip2 archive" for level in range(1, 10)},
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"II*\x00": "an image",
    b"MM\x00*": "an image",
    b"\x7fELF": "a program",
}
OUTLOOK = "__properties_version1.0".encode("utf-16-le")  # a stream that every message has
ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")  # the stream that holds an Office document with a password
UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
TELLING_BYTES = 16  # fewer may be anything
HEAD_BYTES = 16384
TAR_MARK, TAR_MARK_AT = b"ustar", 257
PDF_WITHIN_BYTES = 1024  # readers accept that much before %PDF-

HTML_START = re.compile(r"(?:\s|<\?xml[^>]*>|<!--.*?-->)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"<(?:p|div|body|head|h[1-6]|table|ul|ol|span|a|br)\b", re.IGNORECASE)
LATEX_START = re.compile(r"(?:\s|%[^\n]*\n)*+\\document(?:class|style)\b")
SRT_START = re.compile(r"\s*\d+[ \t]*\r?\n\d+:\d\d:\d\d[,.]\d+ --> ")
NOTEBOOK_START = re.compile(r'\s*\{\s*"(?:cells|metadata|nbformat|worksheets)"')
VTT_START = re.compile(r"WEBVTT(?:[ \t\r\n]|$)")
FIELD = re.compile(r"([!-9;-~]+):(?:[ \t]|$)")  # of a mail's header
MBOX_LINE = re.compile(r"\AFrom [^\n]*\n")
MAIL_NAMES = (".eml", ".mbox", ".mht", ".mhtml")
FOLDED = re.compile(r"[ \t]")
MAIL_FIELDS = frozenset({"from", "date"})
MAIL_MARKS = frozenset({"message-id", "mime-version", "received", "return-path", "delivered-to"})


def kind_of(content: bytes, filename: str | None) -> Kind:
    """Refused for images, archives and programs, and for bytes that are no text."""
    if content[:PDF_WITHIN_BYTES].lstrip().startswith(b"%PDF-"):
        return Kind.PDF
    if content.startswith(b"PK\x03\x04"):
        return Kind.ARCHIVE
    if content.startswith(b"{\\rtf"):
        return Kind.RTF
    if content.startswith(b"\x1f\x8b"):
        return Kind.GZIP
    if is_tar(content):
        return Kind.TAR
    _refuse_known(content)
    return _kind_of_text(content, (filename or "").lower())


def media_of(content: bytes, filename: str | None) -> str:
    """A media type for an accepted upload that is given back. HTML is text here, so that no browser runs it."""
    kind = kind_of(content, filename)
    if kind is Kind.PDF:
        return "application/pdf"
    if kind in (Kind.ARCHIVE, Kind.TAR, Kind.GZIP, Kind.RTF):
        return "application/octet-stream"
    media = "text/markdown" if (filename or "").lower().endswith((".md", ".markdown")) else "text/plain"
    if wide := wide_codec(content):
        return f"{media}; charset={wide}"
    return f"{media}; charset=utf-8" if _is_utf8(content) else media


def is_tar(content: bytes) -> bool:
    """As POSIX and GNU have written them since 1988. A text may have the mark, but no NUL before it."""
    return content.startswith(TAR_MARK, TAR_MARK_AT) and b"\x00" in content[:TAR_MARK_AT]


def is_utf16(content: bytes) -> bool:
    """By its byte order mark."""
    return content.startswith(UTF_16) and not content.startswith(UTF_32)


def wide_codec(content: bytes) -> str | None:
    """Of UTF-32 and UTF-16 by their byte order marks; without one, of UTF-16 in which each letter of the head has one
    NUL byte, at the same side."""
    if content.startswith(UTF_32):
        return "utf-32"
    if content.startswith(UTF_16):
        return "utf-16"
    head = content[:HEAD_BYTES]
    for codec, letters, nuls in (("utf-16-le", head[::2], head[1::2]), ("utf-16-be", head[1::2], head[::2])):
        if len(head) >= TELLING_BYTES and b"\x00" not in letters and not nuls.strip(b"\x00"):
            return codec
    return None


def _refuse_known(content: bytes) -> None:
    if content.startswith(OLE) and OUTLOOK in content:
        message = f"The file is an Outlook message (.msg); save it as .eml. {SUPPORTED}"
        raise Refused(message, code="unsupported_format")
    if content.startswith(OLE) and ENCRYPTED_OFFICE in content:
        raise Refused("The document is encrypted. Save it without a password.", code="encrypted_document")
    for magic, kind in KNOWN.items():
        if content.startswith(magic):
            raise Refused(f"The file is {kind}. {SUPPORTED}", code="unsupported_format")


def _kind_of_text(content: bytes, name: str) -> Kind:
    wide = wide_codec(content)
    if b"%PDF-" in content[:PDF_WITHIN_BYTES] and not wide and not _is_utf8(content):
        return Kind.PDF
    if not wide and b"\x00" in content:
        raise Refused(f"The file holds NUL bytes, so it is not text. {SUPPORTED}", code="unsupported_format")
    head = content[:HEAD_BYTES].decode(wide or "latin-1", "replace").removeprefix("\xef\xbb\xbf")
    if kind := _kind_by_head(head, name):
        return kind
    if NOTEBOOK_START.match(head) and b'"nbformat"' in content and b'"cells"' in content:
        return Kind.NOTEBOOK
    if name.endswith((".csv", ".tsv")):
        return Kind.CSV
    return Kind.TEXT if (is_utf16(content) if wide else _is_utf8(content)) else Kind.LEGACY


def _kind_by_head(head: str, name: str) -> Kind | None:
    if HTML_START.match(head) or (name.endswith((".html", ".htm", ".xhtml")) and TAG.search(head)):
        return Kind.HTML
    if LATEX_START.match(head) or (name.endswith((".tex", ".latex", ".ltx")) and "\\" in head):
        return Kind.LATEX
    if VTT_START.match(head) or SRT_START.match(head):
        return Kind.SUBTITLES
    return Kind.MAIL if _is_mail(head, name) else None


def _is_mail(head: str, name: str) -> bool:
    """A block of header fields at the beginning; without such a name all that a mail has."""
    fields = set()
    is_named = name.endswith(MAIL_NAMES)
    head = MBOX_LINE.sub("", head)
    for line in head.splitlines():
        if found := FIELD.match(line):
            fields.add(found[1].lower())
        elif not FOLDED.match(line):
            break
    if is_named:
        return bool(fields & (MAIL_FIELDS | MAIL_MARKS))
    return fields >= MAIL_FIELDS and bool(fields & MAIL_MARKS)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
