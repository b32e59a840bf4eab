"""A PDF's form → what was filled in: a line a field, by the name that readers are shown.

In: a document whose form was initialised before its pages were loaded. Out: lines for a page, whose own text is without
them: PDFium draws them on top.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pypdfium2 import PdfDocument, PdfPage, raw

CHOSEN = (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON)
WRITTEN = (raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX)
PASSWORD = 1 << 13  # of a text field's flags (PDF 1.7, table 228)
INDEX = re.compile(r"\[\d+\]")
ENDING_BYTES = 2  # of UTF-16: a string that is empty has nothing else


def lines(document: PdfDocument, page: PdfPage) -> Iterator[str]:
    """None where the document has no form."""
    if document.formenv is None:
        return
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        with _annotation(page, index) as field:
            if value := _value(document.formenv, field):
                yield f"{_name(document.formenv, field)}: {value}"


@contextmanager
def _annotation(page: PdfPage, index: int) -> Iterator[Any]:
    found = raw.FPDFPage_GetAnnot(page, index)
    try:
        yield found
    finally:
        raw.FPDFPage_CloseAnnot(found)


def _value(form: Any, field: Any) -> str:
    """Empty for what is no field, is not filled in, or is a secret."""
    kind = raw.FPDFAnnot_GetFormFieldType(form, field)
    if kind in CHOSEN and raw.FPDFAnnot_IsChecked(form, field):
        chosen = _string(raw.FPDFAnnot_GetFormFieldExportValue, form, field)
        return "yes" if kind == raw.FPDF_FORMFIELD_CHECKBOX else chosen
    if kind in WRITTEN and not raw.FPDFAnnot_GetFormFieldFlags(form, field) & PASSWORD:
        return _string(raw.FPDFAnnot_GetFormFieldValue, form, field)
    return ""


def _name(form: Any, field: Any) -> str:
    """The one for people, else the last part of the one for programs."""
    shown = _string(raw.FPDFAnnot_GetFormFieldAlternateName, form, field)
    return shown or INDEX.sub("", _string(raw.FPDFAnnot_GetFormFieldName, form, field)).rpartition(".")[2]


def _string(ask: Callable[..., int], form: Any, field: Any) -> str:
    """On one line."""
    size = ask(form, field, None, 0)
    if size <= ENDING_BYTES:
        return ""
    buffer = ctypes.create_string_buffer(size)
    ask(form, field, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return " ".join(buffer.raw[: size - ENDING_BYTES].decode("utf-16-le", "replace").split())
