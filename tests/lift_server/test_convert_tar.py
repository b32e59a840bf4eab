"""tar and gzip: read as a ZIP is, within the same bounds; what is refused is said in words."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from tests.lift_server.made_files import archive, docx, paragraph, tar

from lift_server.convert import archive as zip_reader
from lift_server.convert import bundle, gzipped, tarball
from lift_server.convert.clean import cleaned, with_places
from lift_server.convert.converter import Converter
from lift_server.convert.kinds import Kind, kind_of
from lift_server.convert.refusal import Refused


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def packed(content: bytes, name: str = "") -> bytes:
    written = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=written) as file:
        file.write(content)
    return written.getvalue()


FILES: dict[str, bytes | tarfile.TarInfo] = {
    "./log": folder("./log"),
    "./log/10.txt": "Der Fluß ist lang.".encode("latin-1"),
    "./log/2.docx": docx(paragraph("The horn.", "Heading1")),
    "./ships.csv": b"Ship,Cargo\nArvenna,salt\n",
    "./.hidden": b"x",
    "./passwd": link("./passwd", "/etc/passwd"),
    "./twice": link("./twice", "./ships.csv", tarfile.LNKTYPE),
    "./pipe": link("./pipe", "", tarfile.FIFOTYPE),
    "./more.tgz": packed(tar({"a.txt": b"x"})),
    "./more.tar": tar({"a.txt": b"x"}),
}
TEXT = (
    "log/2.docx\n\nThe horn.\n\nlog/10.txt\n\nDer Fluß ist lang.\n\nships.csv\n\nShip: Arvenna; Cargo: salt\n\n"
    "Not read: more.tar, more.tgz (it is an archive in an archive; pack its files themselves)\n\n"
    "Not read: passwd, pipe, twice (it is a link or a device)"
)


async def test_each_file_by_its_kind_in_the_order_of_their_paths() -> None:
    """As a ZIP's, whether gzip packed them or not; by the child, too."""
    content = tar(FILES)
    text, places = with_places(tarball.read(content))
    assert text == TEXT
    assert [text[at:].partition("\n")[0] for at in places["headings"]][:2] == ["log/2.docx", "The horn."]
    assert cleaned(gzipped.read(packed(content, "log.tar"))) == TEXT
    for read in (content, packed(content)):
        converted = await Converter().read(read, kind_of(read, "a"), owner="a", limit_bytes=2**20)
        assert converted.text == TEXT


@pytest.mark.parametrize(
    ("content", "name", "text"),
    [
        (b"The horn.", "", "The horn."),
        ("Der Fluß ist lang.".encode("latin-1"), "log.txt", "Der Fluß ist lang."),
        (b"Ship,Cargo\nArvenna,salt\n", "logs/ships.csv", "Ship: Arvenna; Cargo: salt"),
        (docx(paragraph("The horn.")), "a", "The horn."),
    ],
)
def test_one_file_that_was_packed(content: bytes, name: str, text: str) -> None:
    """By the name that gzip keeps, also behind a field of another program's."""
    found = packed(content, name)
    assert cleaned(gzipped.read(found)) == text
    extra = found[:3] + bytes([found[3] | 4]) + found[4:10] + b"\x03\x00a\x00b" + found[10:]
    assert cleaned(gzipped.read(extra)) == text
    assert cleaned(gzipped.read(found + packed(b""))) == text  # gzip's files may be put one behind the other


def sparse() -> bytes:
    """A file of 600 MiB that is nothing but a hole, as GNU tar writes it."""
    info = tarfile.TarInfo("hole.txt")
    info.size = 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[386:483] = bytes(97)
    block[483:495] = b"%011o\x00" % (600 * 2**20)  # its real size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\x00 " % sum(block[:512])
    return bytes(block) + bytes(1024)


def backwards() -> bytes:
    """A member whose size is negative, so that the next one is itself."""
    info = tarfile.TarInfo("a.txt")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 10 + (2**16 - 512).to_bytes(2, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\x00 " % sum(block[:512])
    return bytes(block) + bytes(1024)


MANY = tar({f"{number}.txt": b"x" for number in range(bundle.MAX_FILES + 1)})
TWO = tar({"a.txt": b"a" * 600, "b.txt": b"b"})
MANY_MEMBERS = tarfile.TarInfo("a").tobuf() * (zip_reader.MAX_MEMBERS + 9)
REFUSED = {
    "a path upwards": (tar({"a/../../b.txt": b"x"}), "unsupported_format", "'a/../../b.txt' in the tar archive"),
    "an absolute path": (tar({"/etc/passwd": b"x"}), "unsupported_format", "'/etc/passwd'"),
    "a link with a path upwards": (tar({"a": link("../a", "b")}), "unsupported_format", "'../a'"),
    "links only": (tar({"a": link("a", "/etc/passwd")}), "unsupported_format", "'a' in the tar archive: it is a link"),
    "nothing": (tar({"a": folder("a")}), "unsupported_format", "The tar archive holds no files."),
    "too many": (MANY, "too_large", "1001 files"),
    "far too many, or no end": (MANY_MEMBERS, "too_large", "20001 members; at most 20000"),
    "a hole": (sparse(), "too_large", "larger than the limit"),
    "a member that leads back": (backwards(), "conversion_failed", "damaged"),
    "no header after the first": (TWO[:1536] + b"x" * 512, "conversion_failed", "damaged or cut off"),
    "cut between two files": (TWO[:1536], "conversion_failed", "damaged or cut off"),
    "half a header": (TWO[:1700], "conversion_failed", "damaged or cut off"),
    "a picture": (tar({"a.png": b"\x89PNG"}), "unsupported_format", "'a.png' in the tar archive: The file is an image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_of_a_tar(name: str) -> None:
    content, code, told = REFUSED[name]
    for read, written in ((tarball.read, content), (gzipped.read, packed(content))):
        with pytest.raises(Refused) as refused:
            read(written)
        assert refused.value.code == code, refused.value.message
        assert told in refused.value.message


BOMB = packed(bytes(zip_reader.LARGE_BYTES + 1))


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (BOMB, "too_large", "200 times"),
        (packed(BOMB), "unsupported_format", "In the gzip archive: it is an archive in an archive"),
        (packed(archive({"a.txt": "x"})), "unsupported_format", "it is an archive in an archive"),
        (packed(b"\x89PNG"), "unsupported_format", "In the gzip archive: The file is an image"),
    ],
)
def test_refusals_of_gzip(content: bytes, code: str, told: str) -> None:
    with pytest.raises(Refused) as refused:
        gzipped.read(content)
    assert refused.value.code == code
    assert told in refused.value.message


@pytest.mark.parametrize("content", [packed(b"The horn. " * 99)[:-9], TWO[:700], b"\x1f\x8b\x08"])
async def test_what_is_cut_off(content: bytes) -> None:
    kind = Kind.GZIP if content.startswith(b"\x1f\x8b") else Kind.TAR
    with pytest.raises(Refused, match="damaged, cut off") as refused:
        await Converter().read(content, kind, owner="a", limit_bytes=2**20)
    assert refused.value.code == "conversion_failed"
