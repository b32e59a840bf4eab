"""MathML (of web pages, EPUB, OpenDocument) → a line (formula.py). In: the element `math`. Out: text.

What is shown is read, not the TeX that may be annotated: that knows macros which we do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from lift_server.convert import formula
from lift_server.convert.archive import attribute, local

UNREAD = frozenset({"annotation", "annotation-xml", "mphantom", "maligngroup", "malignmark", "none", "mprescripts"})
WORDS = frozenset({"mtext", "ms"})
LETTERS = frozenset({"mi", "mn", "mo"})
OVER_ALL = frozenset("∑∏∐∫∬∭∮⋂⨁⨂\u22c3")
ACCENTS = {
    **dict.fromkeys("^\u02c6", "\u0302"),
    **dict.fromkeys("\u00af\u203e", "\u0304"),
    **dict.fromkeys("~\u02dc", "\u0303"),
    "\u02d9": "\u0307",
    "\u00a8": "\u0308",
    "→": "\u20d7",
}
STRETCHED = frozenset("⏞⏟⏠⏡⎴⎵_")  # braces over a part, of which the words above them are told
TEX = "application/x-tex"


def line(element: Element) -> str:
    """Its TeX where nothing is shown."""
    try:
        text = formula.line(_of(element))
    except RecursionError:
        text = " ".join("".join(element.itertext()).split())
    return text or next((_words(one) for one in element.iter() if attribute(one, "encoding") == TEX), "")


def _of(element: Element) -> str:
    return "".join(_one(child) for child in element)


def _one(element: Element) -> str:
    name = local(element)
    if name in UNREAD:
        return ""
    if name in LETTERS | WORDS:
        return _token(element, name)
    if name == "mspace":
        return " "
    if name == "mtable":
        return _table(element)
    read = READERS.get(name)
    if read is None:
        return _of(element)
    parts = [_one(child) for child in element if local(child) not in UNREAD]
    try:
        return read(element, parts)
    except IndexError:  # a part is missing
        return "".join(parts)


def _token(element: Element, name: str) -> str:
    text = _words(element)
    if name in WORDS:
        return f" {text} "
    if name == "mi" and len(text) > 1:  # "sin x"
        return f" {text} "
    if text in OVER_ALL:
        return f" {text} "
    return formula.operator(text)


def _words(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _fraction(element: Element, parts: Sequence[str]) -> str:
    if attribute(element, "linethickness") in ("0", "0px", "0pt"):
        return formula.matrix([[parts[0]], [parts[1]]])
    return formula.fraction(parts[0], parts[1])


def _square_root(_: Element, parts: Sequence[str]) -> str:
    return formula.root("".join(parts))


def _root(_: Element, parts: Sequence[str]) -> str:
    return formula.root(parts[0], parts[1])


def _low(element: Element, parts: Sequence[str]) -> str:
    return _scripts(element, [parts[0], parts[1], ""])


def _high(element: Element, parts: Sequence[str]) -> str:
    return _scripts(element, [parts[0], "", parts[1]])


def _scripts(_: Element, parts: Sequence[str]) -> str:
    base = parts[0]
    space = " " if base.strip() in OVER_ALL else ""
    return space + formula.scripts(base, parts[1], parts[2])


def _over(_: Element, parts: Sequence[str]) -> str:
    """An accent, or a limit."""
    above = parts[1].strip()
    if above in ACCENTS or above in STRETCHED:
        return formula.accented(parts[0], ACCENTS.get(above, ""))
    return _scripts(_, [parts[0], "", above])


def _under(_: Element, parts: Sequence[str]) -> str:
    below = parts[1].strip()
    return parts[0] if below in STRETCHED or below in ACCENTS else _scripts(_, [parts[0], below, ""])


def _table(element: Element) -> str:
    rows = [one for one in element if local(one) in ("mtr", "mlabeledtr")]
    return formula.matrix([[_of(cell) for cell in row if local(cell) == "mtd"] for row in rows])


def _fenced(element: Element, parts: Sequence[str]) -> str:
    opening, closing = element.get("open", "("), element.get("close", ")")
    return f"{opening}{', '.join(part.strip() for part in parts)}{closing}"


READERS = {
    "mfrac": _fraction,
    "msqrt": _square_root,
    "mroot": _root,
    "msub": _low,
    "msup": _high,
    "msubsup": _scripts,
    "munderover": _scripts,
    "mover": _over,
    "munder": _under,
    "mfenced": _fenced,
}
