"""Files that other programs wrote (corpus/README.md), against what a person reads in them; alone and in a ZIP."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.lift_server.made_files import archive

from lift_server import places
from lift_server.convert.converter import Converted, Converter
from lift_server.convert.kinds import Kind, kind_of

CORPUS = Path(__file__).parent / "corpus"
GUIDE = """Varn Point

The lighthouse at Varn Point was built in 1874 by Edda Holm, who had come from the mainland with two masons and a boat \
full of stones. [1]

The horn

Ships are warned by three long blasts:

1. in fog,
2. in snow.

The lamp

It burns rapeseed oil."""
KEEPERS = "\n\nYear: 1874; Keeper: Holm\nYear: 1902; Keeper: Brandt"
NOTE = "\n\n[1] Varn stone is grey."
PLAIN = GUIDE.replace(" [1]", "")
SLIDES = """Varn Point

The lighthouse at Varn Point was built in 1874 by Edda Holm, who had come from the mainland with two masons and a boat \
full of stones.

The horn

Ships are warned by three long blasts:
in fog,
in snow.

Say it loudly.

The lamp

What it burns
1874; Rapeseed oil: 100%; Gas: 0%
1902; Rapeseed oil: 25%; Gas: 75%"""
TEXTS = {
    "guide.odt": GUIDE + KEEPERS + NOTE,
    "guide.html": GUIDE + KEEPERS + "\n\n[1]\n\nVarn stone is grey.",
    "guide.docx": PLAIN + "\n\nYear | Keeper\n1874 | Holm\n1902 | Brandt",
    "guide.epub": PLAIN + KEEPERS,
    "guide.pptx": SLIDES + KEEPERS,
    "guide.pdf": GUIDE + "\nYear Keeper\n1874 Holm\n1902 Brandt\n[1] Varn stone is grey.",  # its gaps are small there
}
TITLES = ["Varn Point", "The horn", "The lamp"]
PAGES = {"guide.pdf": [1], "guide.pptx": [1, 2, 3]}


async def read(name: str, content: bytes) -> Converted:
    return await Converter().read(content, kind_of(content, name), owner="a", limit_bytes=2**20)


def titles(converted: Converted) -> list[str]:
    return [converted.text[at:].partition("\n")[0] for at in converted.places["headings"]]


@pytest.mark.parametrize("name", TEXTS)
async def test_the_guide(name: str) -> None:
    converted = await read(name, (CORPUS / name).read_bytes())
    assert converted.text == TEXTS[name]
    assert titles(converted) == TITLES
    assert [number for _, number in converted.places["pages"]] == PAGES.get(name, [])


def test_the_guides_source() -> None:
    """reStructuredText stays as it is; its titles are headings."""
    text = (CORPUS / "guide.rst").read_text("utf-8")
    assert kind_of(text.encode(), "guide.rst") is Kind.TEXT
    assert titles(Converted(text, places.of_text(text, "guide.rst"))) == TITLES


async def test_its_keepers_in_a_workbook() -> None:
    converted = await read("guide.xlsx", (CORPUS / "guide.xlsx").read_bytes())
    assert converted.text == (
        "Keepers\n\nYear: 1874; Keeper: Holm; Since: 1902-05-01; Share: 0.25\n"
        "Year: 1902; Keeper: Brandt; Since: 1902-06-02; Share: 0.75\n\n"
        "Ships\n\nShip: Arvenna; Cargo: salt; Tons: 112\nShip: Total"  # its sum was never calculated
    )
    assert titles(converted) == ["Keepers", "Ships"]


async def test_a_mail_about_it() -> None:
    """Its plain part, not the same in HTML; the picture is named."""
    converted = await read("guide.eml", (CORPUS / "guide.eml").read_bytes())
    said = GUIDE.split("\n\n")
    assert converted.text.split("\n\n") == [
        "Subject: \u0412\u0430\u0440\u043d: the lamp\nFrom: Edda Holm <edda@varn.example>\nTo: keeper@varn.example\n"
        "Date: Fri, 01 May 1874 08:00:00 +0000",
        said[1].removesuffix(" [1]"),
        said[-1],
        "Attached, but not read: lamp.png (The file is an image)",
    ]


async def test_a_page_of_a_manual() -> None:
    converted = await read("libffi.html", (CORPUS / "libffi.html").read_bytes())
    assert titles(converted)[-1] == "1 What is libffi?"
    said = converted.text.split("1 What is libffi?\n\n")[1].split("\n\n")
    assert len(said) == 4
    assert said[2] == (
        "The libffi library provides a portable, high level programming interface to various calling conventions. This "
        "allows a programmer to call any function specified by a call interface description at run time."
    )


async def test_a_page_of_the_nineties() -> None:
    """No closed paragraph in it, in ISO-8859-1, code between them."""
    converted = await read("zlib.html", (CORPUS / "zlib.html").read_bytes())
    assert titles(converted) == ["zlib Usage Example"]
    said = converted.text.split("\n\n")
    assert said[1].endswith("We hope this helps explain some of the intricacies of zlib.")
    assert said[2:4] == [
        "Without further adieu, here is the program zpipe.c:",
        "/* zpipe.c: example of proper use of zlib's inflate() and deflate()\n"
        "   Not copyrighted -- provided to the public domain\n   Version 1.4  11 December 2005  Mark Adler */",
    ]
    assert said[-1] == "Copyright (c) 2004, 2005 by Mark Adler\nLast modified 11 December 2005"


async def test_a_manual_by_tex() -> None:
    """Sections as headings, wrapped lines whole, over a page's end too; an example's lines stay lines."""
    converted = await read("fontconfig.pdf", (CORPUS / "fontconfig.pdf").read_bytes())
    assert titles(converted)[:5] == ["fonts-conf", "Name", "Synopsis", "Description", "Functional Overview"]
    said = converted.text.split("\n\n")
    assert said[said.index("Description") + 1] == (
        "Fontconfig is a library designed to provide system-wide font configuration, customization and application "
        "access."
    )
    assert said[said.index("Lang Tags") + 1].endswith("The hyphen and country code may be elided.")
    assert '<match target="pattern">\n<test qual="any" name="family"><string>mono</string></test>' in converted.text
    assert [number for _, number in converted.places["pages"]][:4] == [1, 2, 3, 4]


async def test_all_of_it_in_a_zip() -> None:
    files: dict[str, str | bytes] = {f"varn/{name}": (CORPUS / name).read_bytes() for name in TEXTS}
    converted = await read("varn.zip", archive(files))
    assert converted.text == "\n\n".join(f"varn/{name}\n\n{TEXTS[name]}" for name in sorted(TEXTS))
    assert titles(converted) == [one for name in sorted(TEXTS) for one in (f"varn/{name}", *TITLES)]
