"""PDF → its pages' text, by columns (columns.py) in paragraphs (paragraphs.py), then what was filled into its form.
Encrypted: `Refused`; scans, also with a stamp on them: as ocr.py can read them.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from statistics import median

import pypdfium2
from pypdfium2 import raw

from lift_server.convert import columns, form, ocr
from lift_server.convert.clean import PAGE, cleaned
from lift_server.convert.paragraphs import HYPHEN, Line, joined, whole
from lift_server.convert.refusal import Refused

END_OF_LINE = (10, 13)
HYPHENS = (2, 0xFFFE)  # what PDFium makes of a hyphen that ends a line, in place of the line's end
NUMBER = re.compile(r"\d+")
STAMP_LETTERS = 30  # on a scan by the program that made it, if no other page has the same
PICTURED = 0.6  # of a page's area
OCR_S = 60.0  # half of the converter's time: the pages of text are worth more than a scan between them
MAX_OBJECTS = 1000  # on a page that may be a scan, which can be many strips; drawings have more
WIDE_GAP = 0.7  # of a line's height: more than a space, also in justified text
SAMPLES = 7  # letters of a line by which its height is told: a bullet or a footnote's mark has another


def read(content: bytes) -> str:
    document = _opened(content)
    pages, filled_in = [], []
    for number, page in enumerate(_pages(document), start=1):
        pages.append(_lines(page))
        if fields := "\n".join(form.lines(document, page)):
            filled_in.append(PAGE.format(number) + fields)
    scans = _scans(document, pages)
    if any(_has_words(line.text) for index, page in enumerate(pages) if index not in scans for line in page):
        recognized = _recognized(document, scans)
        text = joined([[] if index in recognized else page for index, page in enumerate(pages)], recognized)
        return "\n\n".join([text, *filled_in])
    if not ocr.is_installed():
        message = f"The PDF has no text layer: its pages are pictures. {ocr.ADVICE}"
        raise Refused(message, code="no_text_layer")
    text = ocr.text_of(document)
    if not _has_words(text):
        raise Refused("The PDF has no text layer, and no text was recognized on its pages.", code="no_text_layer")
    return "\n\n".join([text, *filled_in])


def _scans(document: pypdfium2.PdfDocument, pages: Sequence[Sequence[Line]]) -> set[int]:
    """Indexes of pages that are a picture with hardly a letter of their own: "Scanned with …" stands on each. Without
    OCR none, where all of them together say something: they may be slides."""
    counts = Counter(words for page in pages for words in {NUMBER.sub("", line.text) for line in page})
    scans, letters = set(), 0
    for index, page in enumerate(pages):
        own = "".join(line.text for line in page if counts[NUMBER.sub("", line.text)] == 1)
        said = sum(letter.isalnum() for letter in own)
        if said < STAMP_LETTERS and _is_pictured(document, index):
            scans.add(index)
            letters += said
    return scans if letters < STAMP_LETTERS or ocr.is_installed() else set()


def _is_pictured(document: pypdfium2.PdfDocument, index: int) -> bool:
    """Pictures, or what holds them, cover most of the page."""
    page = document[index]  # closed with this object
    if raw.FPDFPage_CountObjects(page) > MAX_OBJECTS:
        return False
    left, bottom, right, top = page.get_bbox()
    covered = 0.0
    for one in page.get_objects([raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_FORM], max_depth=1):
        if one.type == raw.FPDF_PAGEOBJ_IMAGE or any(page.get_objects([raw.FPDF_PAGEOBJ_IMAGE], form=one)):
            x, y, end, upper = one.get_bounds()
            covered += max(min(end, right) - max(x, left), 0) * max(min(upper, top) - max(y, bottom), 0)
    return bool(covered >= PICTURED * (right - left) * (top - bottom))


def _recognized(document: pypdfium2.PdfDocument, scans: set[int]) -> dict[int, str]:
    """Of scans between pages of text; without OCR, where they are too many or it fails, they are left as they are."""
    if not scans or not ocr.is_installed() or len(scans) > ocr.MAX_PAGES:
        return {}
    recognized = {}
    with suppress(subprocess.CalledProcessError):
        for index, text in ocr.of_pages(document, sorted(scans), OCR_S):
            if _has_words(text):
                recognized[index] = text
    return recognized


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
    rows = []
    start = 0
    for index, code in enumerate([*codes, END_OF_LINE[0]]):
        if code in END_OF_LINE or code in HYPHENS:
            if row := _row(textpage, codes, range(start, index), code in HYPHENS):
                rows.append(row)
            start = index + 1
    return whole(columns.ordered(rows))


def _row(textpage: pypdfium2.PdfTextPage, codes: list[int], span: range, is_hyphenated: bool) -> columns.Row | None:
    line = _line(textpage, codes, span, is_hyphenated)
    if line is None:
        return None
    spaces = [index for index in span[1:-1] if chr(codes[index]).isspace() and not chr(codes[index - 1]).isspace()]
    gaps = [index for index in spaces if _is_wide(textpage, codes, index, span, line.size)]
    if len(gaps) != 1:
        return columns.Row(line, None)
    first, second = range(span.start, gaps[0]), range(gaps[0], span.stop)
    left = _line(textpage, codes, first, is_hyphenated=False)
    right = _line(textpage, codes, second, is_hyphenated)
    return columns.Row(line, (left, right) if left and right else None)


def _is_wide(textpage: pypdfium2.PdfTextPage, codes: list[int], index: int, span: range, size: float) -> bool:
    """The gap that begins at a space."""
    after = next((one for one in span[index - span.start :] if not chr(codes[one]).isspace()), None)
    if after is None:
        return False
    return _box(textpage, after)[0] - _box(textpage, index - 1)[2] > WIDE_GAP * size


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
