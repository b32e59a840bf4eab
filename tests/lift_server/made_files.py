"""Small files of the formats that uploads may have, made of bytes: what writers of these formats write, and no more."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

import pypdfium2

OFFICE = "application/vnd.openxmlformats-officedocument"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
A = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" xmlns:r="' + RELATIONS + '" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
)
C = 'xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"'
D = 'xmlns:d="http://schemas.openxmlformats.org/drawingml/2006/diagram"'
S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="' + RELATIONS + '"'

NAV = ' properties="nav"'

Text = tuple[float, float, float, str]  # x, y, size, text


def archive(members: Mapping[str, str | bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return written.getvalue()


def tar(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """Members by their names; what is no file as its TarInfo."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as file:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if isinstance(content, bytes) else 0
            file.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return written.getvalue()


def office(kind: str, main: str, members: Mapping[str, str | bytes]) -> bytes:
    """`main` is the part that the package begins with."""
    types = f'<Types><Override PartName="/{main}" ContentType="{OFFICE}.{kind}.main+xml"/></Types>'
    types = types.replace("<Types", '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"')
    return archive(
        {"[Content_Types].xml": types, "_rels/.rels": relations({"main": ("officeDocument", main)})} | dict(members)
    )


def relations(targets: Mapping[str, tuple[str, str]]) -> str:
    found = "".join(
        f'<Relationship Id="{key}" Type="{RELATIONS}/{kind}" Target="{target}"/>'
        for key, (kind, target) in targets.items()
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{found}</Relationships>'
    )


def docx(body: str, graphics: Mapping[str, str] | None = None) -> bytes:
    """`body` in WordprocessingML; headings are of the style `Heading1`. `graphics`: parts by their key there."""
    style = '<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style>'
    members = {
        "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": f"<w:styles {W}>{style}</w:styles>",
        "word/_rels/document.xml.rels": relations({"styles": ("styles", "styles.xml"), **_graphics(graphics)}),
        **{f"word/{key}.xml": part for key, part in (graphics or {}).items()},
    }
    return office("wordprocessingml.document", "word/document.xml", members)


def paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{escape(text)}</w:t></w:r></w:p>"


def _graphics(parts: Mapping[str, str] | None) -> dict[str, tuple[str, str]]:
    return {key: ("graphic", f"{key}.xml") for key in parts or {}}


def pptx(slides: Sequence[str], notes: Mapping[int, str], graphics: Mapping[str, str] | None = None) -> bytes:
    """Slides and notes by number are shapes in PresentationML; the order of the files is not that of the slides.
    `graphics`: parts by the key that every slide has for them."""
    numbers = range(1, len(slides) + 1)
    members: dict[str, str | bytes] = {
        "ppt/presentation.xml": f"<p:presentation {A}><p:sldIdLst>"
        + "".join(f'<p:sldId id="{255 + number}" r:id="rId{number}"/>' for number in numbers)
        + "</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(
            {f"rId{number}": ("slide", f"slides/slide{len(slides) - number}.xml") for number in numbers}
        ),
    }
    for number, slide in zip(numbers, slides, strict=True):
        name = f"slide{len(slides) - number}.xml"
        members[f"ppt/slides/{name}"] = f"<p:sld {A}><p:cSld><p:spTree>{slide}</p:spTree></p:cSld></p:sld>"
        targets = _graphics(graphics)
        if number in notes:
            targets["rId1"] = ("notesSlide", f"../notesSlides/{name}")
            members[f"ppt/notesSlides/{name}"] = f"<p:notes {A}>{notes[number]}</p:notes>"
        members[f"ppt/slides/_rels/{name}.rels"] = relations(targets)
    members |= {f"ppt/slides/{key}.xml": part for key, part in (graphics or {}).items()}
    return office("presentationml.presentation", "ppt/presentation.xml", members)


def shape(*paragraphs: str, kind: str = "body") -> str:
    text = "".join(f"<a:p><a:r><a:t>{escape(one)}</a:t></a:r></a:p>" for one in paragraphs)
    return f'<p:sp><p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr><p:txBody>{text}</p:txBody></p:sp>'


def chart(title: str, series: Mapping[str, Mapping[str, str]], form: str = "General") -> str:
    """A chart's part: numbers as they are kept, by series and category."""
    titled = f"<c:title><a:t>{escape(title)}</a:t></c:title>" if title else ""
    drawn = "".join(
        f"<c:ser><c:tx><c:strRef><c:strCache>{_points([name])}</c:strCache></c:strRef></c:tx>"
        f"<c:cat><c:strRef><c:strCache>{_points(values)}</c:strCache></c:strRef></c:cat>"
        f"<c:val><c:numRef><c:numCache><c:formatCode>{escape(form)}</c:formatCode>{_points(values.values())}"
        "</c:numCache></c:numRef></c:val></c:ser>"
        for name, values in series.items()
    )
    axis = "<c:valAx><c:title><a:t>An axis</a:t></c:title></c:valAx>"
    plot = f"<c:plotArea><c:barChart>{drawn}</c:barChart>{axis}</c:plotArea>"
    return f"<c:chartSpace {C} {A}><c:chart>{titled}{plot}</c:chart></c:chartSpace>"


def _points(values: Iterable[str]) -> str:
    return "".join(f'<c:pt idx="{index}"><c:v>{escape(value)}</c:v></c:pt>' for index, value in enumerate(values))


def diagram(*words: str) -> str:
    """A diagram's data: points, and one between them."""
    points = "".join(f"<d:pt><d:t><a:p><a:r><a:t>{escape(one)}</a:t></a:r></a:p></d:t></d:pt>" for one in words)
    between = '<d:pt type="parTrans"><d:t><a:t>unseen</a:t></d:t></d:pt>'
    return f"<d:dataModel {D} {A}><d:ptLst>{points}{between}</d:ptLst></d:dataModel>"


def graphic(key: str, kind: str = "chart") -> str:
    """What stands for a chart or a diagram (`relIds`) in its slide or page."""
    one = f"<c:chart {C} r:id='{key}'/>" if kind == "chart" else f"<d:relIds {D} r:dm='{key}'/>"
    return f"<a:graphic {A}><a:graphicData>{one}</a:graphicData></a:graphic>"


def xlsx(sheets: Mapping[str, Sequence[Sequence[str | float | None]]]) -> bytes:
    numbers = range(1, len(sheets) + 1)
    named = zip(numbers, sheets, strict=True)
    members: dict[str, str | bytes] = {
        "xl/workbook.xml": f"<workbook {S}><sheets>"
        + "".join(f'<sheet name="{name}" sheetId="{number}" r:id="rId{number}"/>' for number, name in named)
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": relations(
            {f"rId{number}": ("worksheet", f"worksheets/sheet{number}.xml") for number in numbers}
        ),
    }
    for number, rows in zip(numbers, sheets.values(), strict=True):
        data = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
        members[f"xl/worksheets/sheet{number}.xml"] = f"<worksheet {S}><sheetData>{data}</sheetData></worksheet>"
    return office("spreadsheetml.sheet", "xl/workbook.xml", members)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f"<c><v>{value}</v></c>"


def epub(chapters: Mapping[str, str], more: Mapping[str, str] | None = None, spine: Sequence[str] = ()) -> bytes:
    """`chapters`: bodies in HTML by file name, in reading order; a table of contents comes before them.
    `spine`: another order."""
    pages = {"nav.xhtml": "<nav><a href='one.xhtml'>Contents</a></nav>Contents", **chapters}
    items = "".join(
        f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"{NAV if name == "nav.xhtml" else ""}/>'
        for name in reversed(pages)
    )
    order = "".join(f'<itemref idref="{name}"/>' for name in spine or pages)
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{order}</spine></package>'
    )
    container = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    container += '<rootfiles><rootfile full-path="OEBPS/a.opf"/>'
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": f"{container}</rootfiles></container>",
        "OEBPS/a.opf": package,
    }
    for name, body in pages.items():
        page = f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>T</title></head><body>{body}</body></html>'
        members[f"OEBPS/{name}"] = f'<?xml version="1.0" encoding="utf-8"?>\n{page}'
    return archive(members | dict(more or {}))


PICTURE = "q 595 0 0 842 0 0 cm BI /W 1 /H 1 /CS /G /BPC 8 /F /AHx ID 80> EI Q\n"


def pdf(
    pages: Sequence[Sequence[Text]], trailer: str = "", fields: Sequence[str] = (), pictured: Collection[int] = ()
) -> bytes:
    """Each page draws its texts; letters are those of Latin-1. `fields`: dictionaries of the form on the first page.
    `pictured`: indexes of pages with a picture behind their text."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    widgets = " ".join(f"{4 + 2 * len(pages) + number} 0 R" for number in range(len(fields)))
    objects = [
        f"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[{widgets}]>>>>".encode(),
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for number, page in enumerate(pages):
        drawn = "\n".join(f"BT /F {size} Tf {x} {y} Td ({_escaped(text)}) Tj ET" for x, y, size, text in page)
        content = (PICTURE * (number in pictured) + drawn).encode("cp1252")
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R"
            b"/Annots[%s]>>" % (5 + 2 * number, b"" if number else widgets.encode())
        )
        objects.append(b"<</Length %d>>\nstream\n%s\nendstream" % (len(content), content))
    objects += [f"<</Subtype/Widget/Rect[0 0 99 9]{field}>>".encode("latin-1") for field in fields]
    written = b"%PDF-1.4\n"
    offsets = []
    for number, one in enumerate(objects, start=1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    written_table = b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    end = f"trailer\n<</Size {size}/Root 1 0 R{trailer}>>\nstartxref\n{len(written)}\n%%EOF".encode("latin-1")
    return written + written_table + end


ENCRYPTED = f"/ID[<{'ab' * 16}><{'ab' * 16}>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<{'01' * 32}>/U<{'02' * 32}>>>"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def lines(texts: Sequence[str], *, top: float = 780, left: float = 72, size: float = 11) -> list[Text]:
    """A paragraph as a writer sets it."""
    return [(left, top - 1.2 * size * number, size, text) for number, text in enumerate(texts)]


ODF = "urn:oasis:names:tc:opendocument:xmlns"
ODF_NAMES = " ".join(
    f'xmlns:{name}="{ODF}:{uri}:1.0"'
    for name, uri in {
        "office": "office",
        "text": "text",
        "table": "table",
        "draw": "drawing",
        "presentation": "presentation",
        "style": "style",
        "svg": "svg-compatible",
        "manifest": "manifest",
    }.items()
)


def opendocument(
    kind: str, body: str, styles: str = "", manifest: str = "", more: Mapping[str, str] | None = None
) -> bytes:
    """`kind`: text, spreadsheet or presentation. `more`: members that it refers to."""
    content = (
        f"<office:document-content {ODF_NAMES}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    members = {"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content}
    manifested = f"<manifest:manifest {ODF_NAMES}>{manifest}</manifest:manifest>"
    return archive({**members, "META-INF/manifest.xml": manifested, **(more or {})})


def scan(pages: Sequence[Sequence[Text]]) -> bytes:
    """The same pages as `pdf`, as pictures."""
    drawn = pypdfium2.PdfDocument(pdf(pages))
    scanned = pypdfium2.PdfDocument.new()
    for page in drawn:
        picture = pypdfium2.PdfImage.new(scanned)
        picture.set_bitmap(page.render(scale=2.5))
        picture.set_matrix(pypdfium2.PdfMatrix().scale(595, 842))
        added = scanned.new_page(595, 842)
        added.insert_obj(picture)
        added.gen_content()
    written = io.BytesIO()
    scanned.save(written)
    return written.getvalue()
