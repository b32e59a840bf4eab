"""A ZIP of several files: each read by its own kind under its path, and a refusal that names the member."""

from __future__ import annotations

import io
import zipfile

import pytest
from tests.lift_server.made_files import ENCRYPTED, archive, docx, epub, lines, opendocument, paragraph, pdf, xlsx

from lift_server.convert import archive as reader
from lift_server.convert import bundle
from lift_server.convert.clean import cleaned, with_places
from lift_server.convert.refusal import Refused


def test_each_member_by_its_kind_in_the_order_of_their_paths() -> None:
    files: dict[str, str | bytes] = {
        "log/10.txt": "Der Fluß ist lang.".encode("latin-1"),
        "log/2.pdf": pdf([lines(["The horn is heard."])]),
        "ships.csv": "Ship,Cargo\nArvenna,salt\n",
        "keepers.docx": docx(paragraph("Keepers", "Heading1") + paragraph("Edda Holm.")),
        "empty.txt": "",
        "log/": "",
        "__MACOSX/._2.pdf": b"\x00\x05",
        ".DS_Store": b"\x00",
    }
    text, places = with_places(reader.read(archive(files)))
    assert text == (
        "keepers.docx\n\nKeepers\n\nEdda Holm.\n\nlog/2.pdf\n\nThe horn is heard.\n\nlog/10.txt\n\n"
        "Der Fluß ist lang.\n\nships.csv\n\nShip: Arvenna; Cargo: salt"
    )
    said = [text[at:].partition("\n")[0] for at in places["headings"]]
    assert said == ["keepers.docx", "Keepers", "log/2.pdf", "log/10.txt", "ships.csv"]


@pytest.mark.parametrize(
    "content",
    [
        docx(paragraph("The horn.")),
        epub({"one.xhtml": "<h1>The horn.</h1>"}),
        opendocument("text", "<text:p>The horn.</text:p>"),
        xlsx({"A": [["The horn."]]}),
    ],
)
def test_what_is_a_zip_itself_stays_what_it_is(content: bytes) -> None:
    assert cleaned(reader.read(content)) == "The horn."
    assert cleaned(reader.read(archive({"a": content}))) == "a\n\nThe horn."


def locked(name: str) -> bytes:
    """An archive whose member says that it is encrypted."""
    content = bytearray(archive({name: "The horn."}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


REFUSED: dict[str, tuple[bytes, str, str]] = {
    "an archive in it": (archive({"b.zip": archive({"a.txt": "The horn."})}), "unsupported_format", "'b.zip'"),
    "pictures only": (archive({"a.txt": " ", "b/c.png": b"\x89PNG\r\n"}), "unsupported_format", "'b/c.png'"),
    "a damaged PDF beside text": (archive({"a.pdf": pdf([])[:100], "b.txt": "x"}), "conversion_failed", "'a.pdf'"),
    "a program": (archive({"a.md": b"\x7fELF\x00"}), "unsupported_format", "'a.md'"),
    "a protected PDF": (archive({"a.pdf": pdf([], ENCRYPTED)}), "encrypted_document", "'a.pdf'"),
    "a damaged PDF": (archive({"a.pdf": pdf([])[:100]}), "conversion_failed", "'a.pdf'"),
    "a damaged document": (archive({"a.docx": docx("")[:-30]}), "conversion_failed", "'a.docx'"),
    "an encrypted member": (locked("a.txt"), "encrypted_document", "'a.txt'"),
    "a path upwards": (archive({"a/../../b.txt": "x"}), "unsupported_format", "'a/../../b.txt'"),
    "an absolute path": (archive({"/etc/passwd": "x"}), "unsupported_format", "'/etc/passwd'"),
    "a drive": (archive({"C:/a.txt": "x"}), "unsupported_format", "'C:/a.txt'"),
    "a line end in a path": (archive({"a\nb.txt": "x"}), "unsupported_format", "'a\\nb.txt'"),
    "a long path": (archive({"a" * 300: "x"}), "unsupported_format", "…"),
    "too many": (archive({f"{n}.txt": "x" for n in range(bundle.MAX_FILES + 1)}), "too_large", "1001 files"),
    "what packs too well": (archive({"a.txt": b"a" * (reader.LARGE_BYTES + 1)}), "too_large", "200 times"),
    "nothing": (archive({"a/": ""}), "unsupported_format", "no files"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_member(name: str) -> None:
    content, code, told = REFUSED[name]
    with pytest.raises(Refused) as refused:
        reader.read(content)
    assert refused.value.code == code, refused.value.message
    assert told in refused.value.message


def test_headings_that_markup_makes() -> None:
    files = {
        "v1.2/a.md": b"# The lamp\r\n\r\nIt burns.\r\n",
        "v1.2/b.py": b"# no heading\n",
        "v1.2/c.rst": b"Horn\n====",
    }
    text, places = with_places(reader.read(archive(files)))
    assert "a.md\n\n# The lamp\n\nIt burns.\n\n" in text
    said = [text[at:].partition("\n")[0] for at in places["headings"]]
    assert said == ["v1.2/a.md", "# The lamp", "v1.2/b.py", "v1.2/c.rst", "Horn"]


def test_what_has_no_text_is_named_at_the_end() -> None:
    pictures = {f"{number}.png": b"\x89PNG" for number in range(1, 13)}
    files = {"lamp.txt": b"The lamp.", "b.zip": archive({"a.txt": "x"}), "horn.wav": b"RIFF\x00\x00WAVE", **pictures}
    assert cleaned(reader.read(archive(files))) == (
        "lamp.txt\n\nThe lamp.\n\n"
        "Not read: 1.png, 2.png, 3.png, 4.png, 5.png, 6.png, 7.png, 8.png, 9.png, 10.png and 2 more "
        "(The file is an image)\n\n"
        "Not read: b.zip (it is an archive in an archive; pack its files themselves)\n\n"
        "Not read: horn.wav (The file holds NUL bytes, so it is not text)"
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_both_read() -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr("a.txt", "One.")
        file.writestr("a.txt", "Two.")
    assert cleaned(reader.read(written.getvalue())) == "a.txt\n\nOne.\n\na.txt\n\nTwo."
