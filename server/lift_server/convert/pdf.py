"""PDF → the text of its pages, in paragraphs (paragraphs.py), then what was filled into its form. Encrypted: `Refused`;
scans: as ocr.py can read them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from statistics import median

import pypdfium2
from pypdfium2 import raw

from lift_server.convert import form, ocr
from lift_server.convert.clean import PAGE, cleaned
from lift_server.convert.paragraphs import HYPHEN, Line, joined
from lift_server.convert.refusal import Refused

END_OF_LINE = (10, 13)
HYPHENS = (2, 0xFFFE)  # what PDFium makes of a hyphen that ends a line, in place of the line's end
SAMPLES = 7  # letters of a line by which its height is told: a bullet or a footnote's mark has another


def read(content: bytes) -> str:
    document = _opened(content)
    pages, filled_in = [], []
    for number, page in enumerate(_pages(document), start=1):
        pages.append(_lines(page))
        if fields := "\n".join(form.lines(document, page)):
            filled_in.append(PAGE.format(number) + fields)
    text = joined(pages)
    if _has_words(text):
        return "\n\n".join([text, *filled_in])
    if not ocr.is_installed():
        message = f"The PDF has no text layer: its pages are pictures. {ocr.ADVICE}"
        raise Refused(message, code="no_text_layer")
    text = ocr.text_of(document)
    if not _has_words(text):
        raise Refused("The PDF has no text layer, and no text was recognized on its pages.", code="no_text_layer")
    return "\n\n".join([text, *filled_in])


def _has_words(text: str) -> bool:
    return any(letter.isalnum() for letter in cleaned(text))


def _opened(content: bytes) -> pypdfium2.PdfDocument:
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
            message = "The PDF is encrypted. Save it without a password."
            raise Refused(message, code="encrypted_document") from error
        raise
    document.init_forms()  # before a page is loaded
    return document


def _pages(document: pypdfium2.PdfDocument) -> Iterator[pypdfium2.PdfPage]:
    for number in range(len(document)):
        page = document[number]
        yield page
        page.close()


def _lines(page: pypdfium2.PdfPage) -> list[Line]:
    """PDFium ends lines by characters of its own, and puts spaces between words."""
    textpage = page.get_textpage()  # closed with this object
    codes = [raw.FPDFText_GetUnicode(textpage, index) for index in range(textpage.count_chars())]
    lines = []
    start = 0
    for index, code in enumerate([*codes, END_OF_LINE[0]]):
        if code in END_OF_LINE or code in HYPHENS:
            if line := _line(textpage, codes, range(start, index), code in HYPHENS):
                lines.append(line)
            start = index + 1
    return lines


def _line(textpage: pypdfium2.PdfTextPage, codes: list[int], span: range, is_hyphenated: bool) -> Line | None:
    letters = [index for index in span if not chr(codes[index]).isspace()]
    if not letters:
        return None
    units = "".join(chr(codes[index]) for index in span)
    text = units.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    first, last = letters[0], letters[-1]
    blank = next((index for index in range(first, last) if chr(codes[index]).isspace()), last + 1)
    boxes = [_box(textpage, index) for index in letters[:: -(-len(letters) // SAMPLES)]]
    return Line(
        text=text + HYPHEN if is_hyphenated else text,
        left=boxes[0][0],
        right=_box(textpage, last)[2],
        bottom=median(box[1] for box in boxes),
        top=median(box[3] for box in boxes),
        first_word_width=_box(textpage, blank - 1)[2] - boxes[0][0],
    )


def _box(textpage: pypdfium2.PdfTextPage, index: int) -> tuple[float, float, float, float]:
    """Left, bottom, right, top, in points from the page's lower left corner; by the font, not the letter's shape."""
    found = raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(textpage, index, ctypes.byref(found))
    return found.left, found.bottom, found.right, found.top
