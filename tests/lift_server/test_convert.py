"""What is read from files of each format: the text that a person reads, in the order and the paragraphs of the page."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable
from email.message import EmailMessage

import pytest
from tests.lift_server import made_files
from tests.lift_server.made_files import chart, diagram, docx, epub, graphic, lines, paragraph, pdf, pptx, shape, xlsx

from lift_server.convert import archive, legacy, mail, notebook, rows, rtf, sheet, subtitles, webpage
from lift_server.convert import pdf as pdf_reader
from lift_server.convert.clean import cleaned, with_places
from lift_server.convert.kinds import Kind, kind_of, media_of
from lift_server.convert.refusal import Refused

# ---- PDF ----------------------------------------------------------------------------------------------------------

LOG = [
    "The lighthouse at Varn Point was built in 1874 by Edda Holm, who had come from",
    "the mainland with two masons and a boat full of stones; its lamp burns rape-",
    "seed oil, and ships are warned by three long blasts of a horn.",
]
LOG_TEXT = (
    "The lighthouse at Varn Point was built in 1874 by Edda Holm, who had come from the mainland with two masons and "
    "a boat full of stones; its lamp burns rapeseed oil, and ships are warned by three long blasts of a horn."
)


def read_pdf(*pages: list[made_files.Text]) -> str:
    return cleaned(pdf_reader.read(pdf(pages)))


def test_a_pdfs_lines_become_paragraphs() -> None:
    """Wrapped lines are joined, a hyphen at a line's end is taken out; a heading and a gap part paragraphs."""
    heading = [(72.0, 800.0, 18.0, "Station log")]
    second = ["The keeper's dog is called Brisket."]
    assert (
        read_pdf(heading + lines(LOG, top=770) + lines(second, top=720)) == f"Station log\n\n{LOG_TEXT}\n\n{second[0]}"
    )


def test_an_indented_first_line_begins_a_paragraph() -> None:
    first = [*lines(LOG)[:-1], (72.0, 780 - 2 * 13.2, 11.0, "seed oil.")]
    second = [(90.0, 780 - 3 * 13.2, 11.0, "The horn is sounded three times when there is fog on the sea, and")]
    second += [(72.0, 780 - 4 * 13.2, 11.0, "twice in snow.")]
    assert read_pdf(first + second).split("\n\n")[1] == (
        "The horn is sounded three times when there is fog on the sea, and twice in snow."
    )


def test_short_lines_of_a_pdf_stay_lines() -> None:
    code = ["def horn(times):", "for _ in range(times):", "sound the horn for a while now", "rest()"]
    assert read_pdf(lines(code)) == "\n".join(code)


def test_a_hyphen_stays_where_the_word_has_it() -> None:
    first = ["A well-known horn that is heard far out at sea by all the ships there are, a well-", "known one."]
    assert read_pdf(lines(first)).endswith("a well-known one.")


WORDS = ("No", "Two", "Seven", "Some")


def test_running_heads_and_page_numbers_are_left_out() -> None:
    """The first head stays: it may be a title."""
    pages = []
    for number in range(4):
        running = [(72.0, 810.0, 9.0, "Varn Point Report"), (280.0, 30.0, 9.0, f"Page {number + 7} of 10")]
        title = (72.0, 790.0, 20.0, f"Lesson {number}")  # a number that counts, but nothing that runs
        pages.append([running[0], title, *lines([f"{WORDS[number]} ships passed."], top=740), running[1]])
    said = "\n\n".join(f"Lesson {number}\n\n{WORDS[number]} ships passed." for number in range(4))
    assert read_pdf(*pages) == f"Varn Point Report\n\n{said}"


def test_a_paragraph_goes_on_over_the_page() -> None:
    assert (
        read_pdf(lines(LOG[:1]), lines(["the mainland with two masons."])) == f"{LOG[0]} the mainland with two masons."
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (pdf([[], []]), "no_text_layer"),
        (pdf([[]], fields=["/FT/Tx/T(signed)/V(yes)"]), "no_text_layer"),  # a scan that was signed
        (pdf([lines(LOG)], made_files.ENCRYPTED), "encrypted_document"),
    ],
)
def test_pdfs_without_text(content: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        pdf_reader.read(content)
    assert refused.value.code == code


STAMP = (200.0, 20.0, 9.0, "Scanned with CamScanner")
BEE = lines(["The keeper has eleven bees, and each has a name of her own."])


@pytest.mark.parametrize(
    ("pages", "pictured"),
    [
        ([[STAMP]], [0]),
        (
            [[(72.0, 20.0, 9.0, f"Lent to Edda Holm by the library of Varn Point, page {one}")] for one in "123"],
            [0, 1, 2],
        ),
    ],
)
def test_a_stamp_on_scans_is_no_text(
    pages: list[list[made_files.Text]], pictured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Refused) as refused:
        pdf_reader.read(pdf(pages, pictured=pictured))
    assert refused.value.code == "no_text_layer"


@pytest.mark.parametrize(
    ("pages", "pictured"),
    [
        ([BEE], [0]),  # a page of a picture book
        ([[STAMP]], []),
        ([[STAMP], BEE], [0]),  # as it always was, where nothing can recognize the first
        (
            [[(90.0, 700.0, 30.0, word)] for word in ("The light", "The horn", "The bees", "The dog", "The end")],
            range(5),
        ),
    ],
)
def test_letters_that_are_text(
    pages: list[list[made_files.Text]], pictured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    text = "\n\n".join(page[0][3] for page in pages)
    assert cleaned(pdf_reader.read(pdf(pages, pictured=pictured))) == text


def test_what_was_filled_into_a_form() -> None:
    """By the name that people see; not what is empty, is not chosen, or is a secret."""
    fields = [
        "/FT/Tx/T(a.first_name[0])/V(Edda\\rHolm)",
        "/FT/Tx/T(a.place[0])/TU(Place of birth)/V(Varn Point)",
        "/FT/Tx/T(empty)",
        "/FT/Tx/T(pin)/Ff 8192/V(1874)",
        "/FT/Ch/T(trade)/V(mason)/Opt[(mason)(keeper)]",
        "/FT/Btn/T(insured)/V/Yes/AS/Yes/AP<</N<</Yes 1 0 R/Off 1 0 R>>>>",
        "/FT/Btn/T(married)/V/Off/AS/Off/AP<</N<</Yes 1 0 R/Off 1 0 R>>>>",
        "/Subtype/Link",
    ]
    text = cleaned(pdf_reader.read(pdf([lines(["Register of keepers"]), lines(["Second page."])], fields=fields)))
    assert text == (
        "Register of keepers\n\nSecond page.\n\n"
        "first_name: Edda Holm\nPlace of birth: Varn Point\ntrade: mason\ninsured: yes"
    )


# ---- Office, EPUB -------------------------------------------------------------------------------------------------


def test_docx() -> None:
    """With what was inserted under tracking, without what was deleted; tables row by row."""
    cells = [["Year", "1874"], ["Builder", "Edda Holm"]]
    rows = "".join(f"<w:tr>{''.join(f'<w:tc>{paragraph(one)}</w:tc>' for one in row)}</w:tr>" for row in cells)
    body = (
        paragraph("Station log", "Heading1")
        + "<w:p><w:r><w:t xml:space='preserve'>The lamp burns </w:t></w:r>"
        + "<w:ins><w:r><w:t>rapeseed oil</w:t></w:r></w:ins><w:del><w:r><w:delText>gas</w:delText></w:r></w:del>"
        + "<w:r><w:t>.</w:t></w:r></w:p>"
        + paragraph("Ships < boats.")
        + f"<w:tbl>{rows}</w:tbl>"
    )
    text = cleaned(archive.read(docx(body)))
    assert text == "Station log\n\nThe lamp burns rapeseed oil.\n\nShips < boats.\n\nYear | 1874\nBuilder | Edda Holm"


KEEPERS = [["Year", "Keeper"], ["1874", "Holm"]]


def test_pptx() -> None:
    """Slides in the show's order, titles first, then notes; no slide numbers; of alternatives one."""
    first = shape("Three blasts.", "Two in snow.") + shape("The horn", kind="title") + shape("7", kind="sldNum")
    cells = [[f"<a:tc><a:p><a:r><a:t>{one}</a:t></a:r></a:p></a:tc>" for one in row] for row in KEEPERS]
    rows = "".join(f"<a:tr>{''.join(row)}</a:tr>" for row in cells)
    tables = [f"<a:tbl>{look}{rows}</a:tbl>" for look in ('<a:tblPr firstRow="1"/>', "<a:tblPr/>")]
    table = f"<p:graphicFrame><a:graphic>{''.join(tables)}</a:graphic></p:graphicFrame>"
    choice = f"<x><Choice>{shape('New.')}</Choice><Fallback>{shape('Old.')}</Fallback></x>"
    second = f"<p:grpSp>{shape('In a group.')}</p:grpSp>{table}{choice}"
    notes = {1: shape("Say it loudly.") + shape("8", kind="sldNum")}
    assert cleaned(archive.read(pptx([first, second], notes))) == (
        "The horn\n\nThree blasts.\nTwo in snow.\n\nSay it loudly.\n\nIn a group.\n\n"
        "Year: 1874; Keeper: Holm\n\nYear | Keeper\n1874 | Holm\n\nNew."
    )


SHIPS = {"Ships": {"1874": "112.00000000000001", "1875": "96"}, "Wrecks": {"1874": "3"}}
SHIPS_TEXT = "Ships a year\n1874; Ships: 112; Wrecks: 3\n1875; Ships: 96"


def test_charts_and_diagrams() -> None:
    """In a presentation where they stand, in a text at its end; numbers as they are shown, without the axes' titles."""
    parts = {
        "g1": chart("Ships a year", SHIPS),
        "g2": diagram("Lamp", "Horn"),
        "g3": chart("", {"Share": {"Oil": "0.25"}}, form="0.0%"),
        "g4": chart("", {"Opened": {"Horn": "27400.5"}}, form='d" of "mmmm" "yyyy'),
        "g5": chart("", {"2024.10": {"1.10": "12345678901", "01067": "deep"}}, form="[Red]0"),
        "g6": chart("", {"Opened": {"Horn": "366"}}, form="yyyy").replace("<c:chart>", "<c:date1904/><c:chart>"),
    }
    kinds = {key: "relIds" if key == "g2" else "chart" for key in parts}
    slide = shape("Before.") + "".join(graphic(key, kind) for key, kind in kinds.items()) + graphic("gone")
    assert cleaned(archive.read(pptx([slide], {}, parts))) == (
        f"Before.\n\n{SHIPS_TEXT}\n\nLamp\nHorn\n\nOil; Share: 25%\n\nHorn; Opened: 1975-01-06\n\n"
        "1.10; 2024.10: 12345678901\n01067; 2024.10: deep\n\nHorn; Opened: 1905-01-01"
    )
    drawn = "".join(f"<w:p><w:r><w:drawing>{graphic(key, kinds[key])}</w:drawing></w:r></w:p>" for key in ("g1", "g2"))
    found = cleaned(archive.read(docx(paragraph("Before.") + drawn + paragraph("After."), parts)))
    assert found == f"Before.\n\nAfter.\n\n{SHIPS_TEXT}\n\nLamp\nHorn"


def test_xlsx() -> None:
    keepers = [["Keepers since 1874"], ["Name", "Ships", "Share"], ["Holm", 112.0, 0.25], ["Brandt", None, 1e-5]]
    ships = [["Ship", "Cargo"], ["Arvenna", "salt"]]
    assert cleaned(archive.read(xlsx({"Keepers": keepers, "Ships": ships, "Empty": []}))) == (
        "Keepers\n\nKeepers since 1874\nName: Holm; Ships: 112; Share: 0.25\nName: Brandt; Share: 1e-05\n\n"
        "Ships\n\nShip: Arvenna; Cargo: salt"
    )
    assert cleaned(archive.read(xlsx({"Ships": ships}))) == "Ship: Arvenna; Cargo: salt"


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    [
        (docx(paragraph("The horn.")), "ms-word.document", "The horn."),
        (xlsx({"Keepers": KEEPERS}), "ms-excel.sheet", "Year: 1874; Keeper: Holm"),
        (pptx([shape("The horn.")], {}), "ms-powerpoint.presentation", "The horn."),
    ],
)
def test_macros_are_not_read(content: bytes, kind: str, text: str) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    types = members["[Content_Types].xml"].decode()
    types = re.sub(r'ContentType="[^"]*', f'ContentType="application/vnd.{kind}.macroEnabled.main+xml', types)
    members |= {"[Content_Types].xml": types.encode(), "word/vbaProject.bin": b"\xd0\xcf\x11\xe0 Shell"}
    assert cleaned(archive.read(made_files.archive(members))) == text


def test_epub() -> None:
    """In reading order, without the table of contents."""
    chapters = {"two.xhtml": "<h1>The horn</h1><p>Three blasts.</p>", "one.xhtml": "<h1>The lamp</h1><p>It burns.</p>"}
    assert cleaned(archive.read(epub(chapters))) == "The horn\n\nThree blasts.\n\nThe lamp\n\nIt burns."


def test_a_chapters_title_is_not_read() -> None:
    """Readers of books show none; what converters write there is the book's name, or "Unknown"."""
    chapters = {"one.xhtml": "<h2>The horn</h2><p>Three blasts.</p>", "two.xhtml": "<p>It burns.</p>"}
    text, places = with_places(archive.read(epub(chapters)))
    assert text == "The horn\n\nThree blasts.\n\nIt burns."
    assert places["headings"] == [0]


def test_an_epub_that_goes_round_in_circles() -> None:
    content = epub({"one.xhtml": "<p>It burns.</p>"}, spine=["one.xhtml"] * 20_000)
    assert cleaned(archive.read(content)) == "It burns."


def test_a_protected_epub() -> None:
    locked = '<encryption><CipherReference URI="OEBPS/one.xhtml"/></encryption>'
    with pytest.raises(Refused) as refused:
        archive.read(epub({"one.xhtml": "x"}, {"META-INF/encryption.xml": locked}))
    assert refused.value.code == "encrypted_document"


# ---- text with markup ---------------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html><head><title>Varn Point</title><style>p {color: red}</style></head><body>
<nav><ul><li>Home</li></ul></nav><header><h2>The <em>light</em>house</h2></header>
<p>Built in&nbsp;1874
 by Edda&#32;Holm.<br>It burns H<sub>2</sub>O.</p><script>alert(1)</script><p hidden>Not this.</p>
<div style="display: none">Nor this.</div><noscript>Nor that.</noscript>
<ol start=3><li><p>One</p><li>Two<ul><li>In it</ul></ol>
<table><tr><th>Year<th>Keeper</tr><tr><td>1874<td>Edda <b>Holm</b></tr></table>
<table><tr><td><h3>Layout</h3><p>In a cell.</p></td></tr></table>
<table><tr><th>Born</th><td>1840</td></tr></table>
<pre>def horn():
    blast()</pre>
<footer>Imprint</footer></body></html>"""
PAGE_TEXT = """Varn Point

The lighthouse

Built in 1874 by Edda Holm.
It burns H2O.

3. One
4. Two
- In it

Year: 1874; Keeper: Edda Holm

Layout

In a cell.

Born: 1840

def horn():
    blast()"""


def test_html() -> None:
    assert cleaned(webpage.read(PAGE.encode())) == PAGE_TEXT
    assert cleaned(webpage.read(b"<html><title>Page</title><h1>Head</h1>A &amp; b")) == "Head\n\nA & b"
    assert cleaned(webpage.read(b"<html><title>A  b</title><h2>A <i>b</i></h2><p>C")) == "A b\n\nC"
    assert cleaned(webpage.read(b"<html><body><svg><title>Icon</title></svg><p>A")) == "A"


def test_what_generators_of_manuals_add_to_a_page() -> None:
    """Signs that link a heading to itself, ways to the pages beside."""
    page = (
        "<div class=navheader><table><tr><td>Prev</table></div><p>Next: <a rel=next accesskey=n href=b>The lamp</a></p>"
        "<h1>The horn<a class=headerlink href='#horn'>¶</a></h1><h2><a href='#two'>§</a>In <a href='#fog'>fog</a></h2>"
        "<p>Three blasts<a href='#note'>*</a>; see <a accesskey=s href=b>there</a>."
        "<dl><dt>loud<a href='#l'>#</a><dd>It is."
    )
    assert cleaned(webpage.read(f"<html>{page}".encode())) == (
        "The horn\n\nIn fog\n\nThree blasts*; see there.\n\nloud\nIt is."
    )


@pytest.mark.parametrize(
    "content",
    [
        b"<html><meta charset=iso-8859-1><p>Der Flu\xdf ist lang.",
        b"<html><meta charset=utf-8><p>Der Flu\xdf ist lang, und \xfcber ihm steht ein Turm.",
        "<html><p>Der Fluß ist lang.".encode("utf-16"),
        "\ufeff<html><p>Der Fluß ist lang.".encode(),
    ],
)
def test_htmls_encodings(content: bytes) -> None:
    assert "Der Fluß ist lang" in webpage.read(content)


RTF = rb"""{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}{\*\generator x;}\pard Der Flu\'df ist \b lang\b0.\par
\u1044?\u1086?\u1084? it is.\par \trowd\cellx1\cellx2 Year\cell Keeper\cell\row\trowd 1874\cell Holm\cell\row}"""


def test_rtf() -> None:
    picture = rb"{\pict\jpegblip \bin ffd8ffe0}"
    assert cleaned(rtf.read(rb"{\rtf1\binfsxn7 C:\\bin\\tools}")) == "C:\\bin\\tools"
    assert rtf.read(RTF) == rtf.read(RTF.replace(rb"Der", picture + rb"Der"))
    assert cleaned(rtf.read(RTF)) == "Der Fluß ist lang.\n\n\u0414\u043e\u043c it is.\n\nYear | Keeper\n1874 | Holm"


MAIL = b"""Return-Path: <a@example.com>
From: =?utf-8?q?Edda_J=C3=B8rgen?= <edda@example.com>
To: Anna <anna@example.com>
Subject: The
 horn
Date: Mon, 2 Nov 2026 10:00:00 +0100
Message-ID: <1@example.com>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: multipart/alternative; boundary=y

--y
Content-Type: text/html

<p>Not <b>this</b> one.</p>
--y
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Die T=FCr ist offen.
--y--
--x
Content-Type: application/pdf
Content-Disposition: attachment; filename=a.pdf
Content-Transfer-Encoding: base64

JVBERi0xLjc=
--x--
"""


def test_mail() -> None:
    assert cleaned(mail.read(MAIL)) == (
        "Subject: The horn\nFrom: Edda Jørgen <edda@example.com>\nTo: Anna <anna@example.com>\n"
        "Date: Mon, 02 Nov 2026 10:00:00 +0100\n\nDie Tür ist offen.\n\n"
        "Attached, but not read: a.pdf (it is damaged, or far too large inside)"
    )
    only_html = b"From: a@b.example\nDate: x\nContent-Type: text/html\n\n<p>One.</p><p>Two.</p>"
    assert cleaned(mail.read(only_html)).endswith("\n\nOne.\n\nTwo.")
    assert cleaned(mail.read(MAIL.replace(b"Die T=FCr ist offen.", b"=A0"))).split("\n\n")[1] == "Not this one."


def test_what_a_mail_carries_is_read_too() -> None:
    inside = EmailMessage()
    inside["Subject"], inside["From"] = "Oil", "otto@example.com"
    inside.set_content("The oil is in barrel nine.")
    letter = EmailMessage()
    letter["Subject"], letter["From"] = "Papers", "edda@example.com"
    letter.set_content("See the papers.")
    letter.add_alternative('<p>See the papers.</p><img src="cid:logo">', subtype="html")
    html = letter.get_payload()[1]  # type: ignore[index,union-attr]
    html.add_related(b"\x89PNG...", "image", "png", cid="<logo>")  # type: ignore[union-attr]
    letter.add_attachment(docx(paragraph("Clause one.")), "application", "msword", filename="c.docx")
    letter.add_attachment("room,floor\nLamp,7\n", subtype="csv", filename="rooms.csv")
    letter.add_attachment(inside)
    letter.add_attachment(b"\x89PNG...", "image", "png", filename="lamp.png")
    letter.add_attachment(b"-----BEGIN PGP", "application", "pgp-signature", filename="signature.asc")
    letter.add_attachment(made_files.archive({"a.txt": b"a"}), "application", "zip", filename="more.zip")
    text = cleaned(mail.read(letter.as_bytes()))
    assert text == (
        "Subject: Papers\nFrom: edda@example.com\n\nSee the papers.\n\nc.docx\n\nClause one.\n\n"
        "rooms.csv\n\nroom: Lamp; floor: 7\n\n"
        "Oil\n\nSubject: Oil\nFrom: otto@example.com\n\nThe oil is in barrel nine.\n\n"
        "Attached, but not read: lamp.png (The file is an image)\n\n"
        "Attached, but not read: more.zip (it is an archive in an archive; pack its files themselves)"
    )


@pytest.mark.parametrize(
    "field",
    [
        b'To: "\xff <',
        b"From: [",
        b"Cc: a: b@c.example, d: e@f.example;;",
        b'Content-Type: multipart/mixed; boundary=x; name*0*="',
        b"Content-Disposition: attachment; filename*0*",
    ],
)
def test_malformed_fields_of_a_mail_cost_nothing_else(field: bytes) -> None:
    name = field.partition(b":")[0]
    given = next((line for line in MAIL.split(b"\n") if line.startswith(name)), b"MIME-Version: 1.0")
    assert "Die T\u00fcr ist offen." in cleaned(mail.read(MAIL.replace(given, field, 1)))


@pytest.mark.parametrize("charset", ["undefined", "none-such", "idna", "a\x00b", "hex"])
def test_a_charset_that_is_none(charset: str) -> None:
    letter = MAIL.replace(b"text/html\n", f'text/html; charset="{charset}"\n'.encode()).replace(
        b"Die T=FCr ist offen.", b""
    )
    assert cleaned(mail.read(letter)).split("\n\n")[1] == "Not this one."
    page = f'<meta charset="{charset}"><p>The horn is loud.</p>'.encode()
    assert webpage.read(page) == "The horn is loud.\n"


def test_no_part_of_a_mail_is_passed_over_unsaid() -> None:
    """Parts within parts, as mailing lists wrap them; files beside the version that nobody reads; a report's fields; a
    mail that is one file."""
    wrapped = b"""Subject: Minutes
Content-Type: multipart/mixed; boundary=a

--a
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: text/plain

See below.
--b
Content-Type: multipart/mixed; boundary=c

--c
Content-Type: text/html

<p>See below.</p>
--c
Content-Type: text/csv; name=rooms.csv

room,floor
Lamp,7
--c--
--b--
--a
Content-Type: multipart/mixed; boundary=d

--d
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example

Final-Recipient: rfc822; edda@example.com
--d
Content-Type: application/pdf; name=a.pdf

--d--
--a
Content-Type: text/plain

Sent by a list.
--a--
"""
    assert cleaned(mail.read(wrapped)) == (
        "Subject: Minutes\n\nSee below.\n\nrooms.csv\n\nroom: Lamp; floor: 7\n\nReporting-MTA: dns; mail.example\n\n"
        "Final-Recipient: rfc822; edda@example.com\n\nAttached, but not read: a.pdf (it has no text)\n\nSent by a list."
    )
    alone = b"Subject: Rooms\nContent-Type: text/csv; name=r.csv\n\nroom,floor\nLamp,7\n"
    assert cleaned(mail.read(alone)) == "Subject: Rooms\n\nr.csv\n\nroom: Lamp; floor: 7"


def test_a_mailbox_is_its_mails() -> None:
    """A line of a mail that begins as the next one would is quoted."""
    line = b"From edda@example.com Mon Nov  2 10:00:00 2026\n"
    second = b"From: otto@example.com\nSubject: Oil\n\n>From nine barrels one is left.\nFrom now on: none.\n"
    text, places = with_places(mail.read(line + MAIL + b"\n" + line + second + b"\n" + line + second))
    assert [text[at:].partition("\n")[0] for at in places["headings"]] == ["The horn", "Oil", "Oil"]
    oil = "Oil\n\nSubject: Oil\nFrom: otto@example.com\n\nFrom nine barrels one is left.\nFrom now on: none."
    assert text.startswith("The horn\n\nSubject: The horn\n")
    assert text.endswith(f"\n\n{oil}\n\n{oil}")


def test_a_web_page_saved_in_one_file() -> None:
    page = b"""From: <Saved by Blink>
Snapshot-Content-Location: https://example.com/lamp
Subject: The lamp
Date: Mon, 2 Nov 2026 10:00:00 -0000
MIME-Version: 1.0
Content-Type: multipart/related; type="text/html"; boundary=x

--x
Content-Type: text/html
Content-Transfer-Encoding: quoted-printable

<link rel=3Dstylesheet href=3D"cid:css"><p>Its lamp burns <b>rapeseed</b> oil.
--x
Content-Type: text/css
Content-Location: cid:css

p { color: red }
--x
Content-Type: font/woff2

x
--x--
"""
    assert kind_of(page, "lamp.mhtml") is Kind.MAIL
    assert cleaned(mail.read(page)).endswith("-0000\n\nIts lamp burns rapeseed oil.")


def test_a_table_of_one_row_is_read() -> None:
    assert list(rows.lines([["Room", "Floor"]])) == ["Room | Floor"]
    assert list(rows.lines([["Rooms"], ["Room", "Floor"], ["", ""]])) == ["Rooms", "Room | Floor"]
    assert list(rows.lines([["Room", "Floor"], ["Lamp", "7"]])) == ["Room: Lamp; Floor: 7"]


def test_mails_in_mails_have_an_end() -> None:
    letter = EmailMessage()
    letter.set_content("The innermost.")
    for number in range(40):
        outer = EmailMessage()
        outer["Subject"] = f"Mail {number}"
        outer.set_content("See inside.")
        outer.add_attachment(letter)
        letter = outer
    text = mail.read(letter.as_bytes())
    assert text.count("See inside.") == mail.MOST_NESTED + 1
    assert text.endswith("Attached, but not read: a mail in 9 others")


SRT = """1
00:00:01,000 --> 00:00:03,000
<i>The lighthouse was</i>
built in 1874.

2
00:00:03,500 --> 00:00:05,000
{\\an8}Ships are &amp; were warned

3
00:00:05,500 --> 00:00:06,000
by a horn.
"""
VTT = """WEBVTT - A title

STYLE
::cue {color: red}

NOTE not this

intro
00:01.000 --> 00:03.000 align:start
<v Edda>The lighthouse was

00:03.000 --> 00:04.000
The lighthouse was

00:04.000 --> 00:05.000
built <00:04.500><c>in</c> 1874.
"""


def test_subtitles() -> None:
    assert (
        cleaned(subtitles.read(SRT.encode())) == "The lighthouse was built in 1874.\nShips are & were warned by a horn."
    )
    rolled = VTT.replace("<v Edda>", "")
    assert cleaned(subtitles.read(rolled.replace("\n", "\r\n").encode())) == "The lighthouse was built in 1874."
    assert cleaned(subtitles.read(VTT.encode())).startswith("Edda: The lighthouse was")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'Name,Year\nHolm,1874\n"Brandt, A.",\n', "Name: Holm; Year: 1874\nName: Brandt, A."),
        ("\ufeffName;Größe\r\nHolm;1,74\r\n".encode(), "Name: Holm; Größe: 1,74"),
        ("Name\tYear\nHolm\t1874\n".encode("utf-16"), "Name: Holm; Year: 1874"),
        (b"1874,112\n1902,98\n", "1874 | 112\n1902 | 98"),
        (b"One column\nHolm\n", "One column\nHolm"),
        (b'7,"She said ""yes, now""",x\n', '7 | She said "yes, now" | x'),
        (b"Holm,1874,'so, so'\nBrandt,1902,'no, no'\n", "Holm | 1874 | 'so | so'\nBrandt | 1902 | 'no | no'"),
        (b'Name, Oil\nHolm, "rape, seed"\n', "Name: Holm; Oil: rape, seed"),
    ],
)
def test_csv(content: bytes, text: str) -> None:
    assert cleaned(sheet.read(content)) == text


# ---- text in older encodings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Der Fluß ist lang und breit.", "latin-1"),
        ("It cost £5 in the café at 20° outside.", "latin-1"),
        ("Le gardien du phare élève onze abeilles. L’été dernier, la tempête a détruit le toit.", "cp1252"),
        ("Latarnik hoduje jedenaście pszczół. Dom stoi na wzgórzu, a ścieżka prowadzi do źródła.", "cp1250"),
        ("Смотритель маяка держит одиннадцать пчёл. Дом стоит на холме над морем.", "cp1251"),
        ("灯台守は十一匹の蜂を飼っている。家は丘の上にある。毎朝、彼は海を見る。", "shift_jis"),
        ("灯塔守护人养了十一只蜜蜂。房子在山上。每天早晨他看海。", "gb18030"),
        ("등대지기는 벌 열한 마리를 기른다. 집은 언덕 위에 있다.", "euc_kr"),
    ],
)
def test_older_encodings(text: str, encoding: str) -> None:
    content = text.encode(encoding)
    assert kind_of(content, "notes.txt") is Kind.LEGACY
    assert legacy.read(content) == text
    assert legacy.read(content + b"\n" + b"plain words\n" * 50_000).startswith(text)


@pytest.mark.parametrize("encoding", ["utf-32", "utf-16-le", "utf-16-be"])
def test_wide_letters(encoding: str) -> None:
    """UTF-16 without a mark too, where its beginning is Latin."""
    text = "The lamp burns rapeseed oil. " * 600 + "Смотритель держит пчёл."
    content = text.encode(encoding)
    assert kind_of(content, "notes.txt") is Kind.LEGACY
    assert legacy.read(content) == text
    assert kind_of(PAGE.encode(encoding), None) is Kind.HTML
    assert cleaned(webpage.read(PAGE.encode(encoding))) == PAGE_TEXT
    assert media_of(content, "notes.txt") == f"text/plain; charset={encoding}"


@pytest.mark.parametrize("content", [b"a\x00b\x00", b"The horn.\x00 " * 9, b"a\x00\x00\x00" * 9, bytes(40)])
def test_what_has_nul_bytes_otherwise(content: bytes) -> None:
    with pytest.raises(Refused, match="NUL bytes"):
        kind_of(content, "notes.txt")


def test_utf8_that_is_a_little_damaged_is_utf8() -> None:
    """As by a line cut within a letter; an encoding that fits all the bytes would make other letters of all others."""
    text = "Смотритель маяка держит одиннадцать пчёл. "
    assert legacy.read(text.encode() + b"\xd1f.") == text + "\ufffdf."


def test_cleaned() -> None:
    assert cleaned("a\x00b\u00adc \r\n\r\n\r\n\x0cﬁre\u2028end\ufffe\n") == "abc\n\nfire\nend"


NOTEBOOK = {
    "cells": [
        {
            "cell_type": "markdown",
            "source": ["# Varn Point\n", "\n", "Built in 1874.\n", "```\n", "# no heading\n", "```"],
        },
        {"cell_type": "markdown", "source": "The lamp\n--------"},
        {
            "cell_type": "code",
            "source": "print(lamp)\nships",
            "outputs": [
                {"output_type": "stream", "text": ["rapeseed ", "oil\n"]},
                {"output_type": "execute_result", "data": {"image/png": "iVBORw0", "text/plain": ["112"]}},
                {"output_type": "display_data", "data": {"image/png": "iVBORw0"}},
                {"output_type": "error", "ename": "KeyError", "evalue": "'horn'", "traceback": ["\x1b[31m"]},
            ],
        },
        {"cell_type": "raw", "source": []},
    ],
    "metadata": {},
    "nbformat": 4,
}


def test_notebooks() -> None:
    content = json.dumps(NOTEBOOK).encode()
    assert kind_of(content, "a.txt") is Kind.NOTEBOOK
    text, places = with_places(notebook.read(content))
    assert text == (
        "# Varn Point\n\nBuilt in 1874.\n```\n# no heading\n```\n\nThe lamp\n--------\n\nprint(lamp)\nships\n\n"
        "rapeseed oil\n\n112\n\nKeyError: 'horn'"
    )
    assert [text[at:].partition("\n")[0] for at in places["headings"]] == ["# Varn Point", "The lamp"]
    older = {
        "metadata": {},
        "nbformat": 3,
        "worksheets": [{"cells": [{"cell_type": "heading", "source": "Varn Point"}]}],
    }
    assert cleaned(notebook.read(json.dumps(older).encode())) == "Varn Point"


@pytest.mark.parametrize("cells", ["3", "[3]", "[{}]", '[{"cell_type": "code", "outputs": [{}]}]'])
def test_what_is_no_notebook(cells: str) -> None:
    content = f'{{"cells": {cells}, "nbformat": 4}}'.encode()
    with pytest.raises(Refused, match="looks like a Jupyter notebook"):
        notebook.read(content)


# ---- what a file is -----------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[bytes, str | None, Kind]] = {
    "text": (b"The horn.", None, Kind.TEXT),
    "text of a PDF": (b"A PDF begins with %PDF-1.7.", "a.pdf", Kind.TEXT),
    "a wrong name": (pdf([]), "a.docx", Kind.PDF),
    "a PDF behind other bytes": (b"HTTP/1.1 200 OK\r\n\r\n%PDF-1.7\n%\xe2\xe3", None, Kind.PDF),
    "an archive": (docx(""), None, Kind.ARCHIVE),
    "tar": (made_files.tar({"a.txt": b"x"}), "a.txt", Kind.TAR),
    "text with a tar's mark": (b"x" * 257 + b"ustar", None, Kind.TEXT),
    "gzip": (gzip.compress(b"x"), "a.txt", Kind.GZIP),
    "rtf": (RTF, None, Kind.RTF),
    "html": (PAGE.encode(), None, Kind.HTML),
    "xhtml": (b'<?xml version="1.0"?>\n<!-- c -->\n<html xmlns="x"></html>', None, Kind.HTML),
    "part of a page": (b"<p>The horn.</p>", "a.HTML", Kind.HTML),
    "Markdown with HTML in it": (b"# Head\n\n<p>The horn.</p>", "a.md", Kind.TEXT),
    "XML": (b'<?xml version="1.0"?><log/>', "a.xml", Kind.TEXT),
    "mail": (MAIL, None, Kind.MAIL),
    "mail with an empty field": (
        b"Received: a\nFrom: a@b.example\nX-Empty:\n folded\nDate: today\n\nHello.",
        None,
        Kind.MAIL,
    ),
    "a part of a mail by its name": (b"Received: by a.example\n\nHello there.", "a.eml", Kind.MAIL),
    "mail by its name": (b"From: a@b.example\nDate: today\n\nHello there.", "a.eml", Kind.MAIL),
    "mail out of a mailbox": (b"From a@b.example Mon Nov  2 10:00:00 2026\n" + MAIL, "a.eml", Kind.MAIL),
    "a mailbox": (b"From a@b.example Mon Nov  2 10:00:00 2026\n" + MAIL, "a.mbox", Kind.MAIL),
    "a mailbox by its contents": (b"From a@b.example Mon Nov  2 10:00:00 2026\n" + MAIL, None, Kind.MAIL),
    "a letter of many": (b"From all of us\n\nFrom: here\nDate: today", None, Kind.TEXT),
    "a letter": (b"From: Edda\nDate: today\n\nDear Anna,", "a.txt", Kind.TEXT),
    "srt": (SRT.encode(), None, Kind.SUBTITLES),
    "vtt": (b"\xef\xbb\xbf" + VTT.encode(), None, Kind.SUBTITLES),
    "csv": (b"a,b\n1,2\n", "a.csv", Kind.CSV),
    "csv without its name": (b"a,b\n1,2\n", None, Kind.TEXT),
    "utf-16": ("The horn.".encode("utf-16"), None, Kind.TEXT),
    "html in utf-16": (PAGE.encode("utf-16"), None, Kind.HTML),
    "source code": (b"<?php echo '<html>';", "a.php", Kind.TEXT),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["<!---->", "<!-- a ", "<?xml ?>", "%\n", " "])
def test_what_a_file_is_takes_no_time(piece: str) -> None:
    """The server asks itself, not the child: a pattern that tries every way to part this would stop everybody."""
    assert kind_of(f"{piece * 100}x".encode(), None) is Kind.TEXT


def test_an_outlook_message_is_called_one() -> None:
    """Also where an Office document with a password is attached to it."""
    streams = "EncryptedPackage", "__properties_version1.0"
    content = b"\xd0\xcf\x11\xe0" + "".join(streams).encode("utf-16-le")
    with pytest.raises(Refused, match=r"an Outlook message \(\.msg\); save it as \.eml"):
        kind_of(content, "a.msg")


@pytest.mark.parametrize(("written", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_archives_that_are_not_read_are_called_by_their_names(written: Callable[[bytes], bytes], name: str) -> None:
    with pytest.raises(Refused, match=f"an? {name} archive. Supported are"):
        kind_of(written(b"The horn."), "a.txt")


@pytest.mark.parametrize("content", [made_files.tar({"a.txt": b"x"}), gzip.compress(b"x")])
def test_archives_are_given_back_as_bytes(content: bytes) -> None:
    assert media_of(content, "a.txt") == "application/octet-stream"


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name: str) -> None:
    content, filename, kind = KINDS[name]
    assert kind_of(content, filename) is kind
