"""Office's formulas (OMML, `m:oMath`) → a line (formula.py). In: the element. Out: text, with tracked changes."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from lift_server.convert import formula
from lift_server.convert.archive import attribute, local

SPACE = "http://schemas.openxmlformats.org/officeDocument/2006/math"
STRICT_SPACE = "http://purl.oclc.org/ooxml/officeDocument/math"
NAMES = frozenset(f"{{{space}}}oMath" for space in (SPACE, STRICT_SPACE))
UNREAD = frozenset({"del", "moveFrom"})
HAT, BAR, LOW_LINE = "\u0302", "\u0304", "\u0332"  # what Word draws where a formula does not say
INTEGRAL = "∫"


def line(element: Element) -> str:
    try:
        return formula.line(_of(element))
    except RecursionError:
        return " ".join("".join(element.itertext()).split())


def _of(element: Element) -> str:
    """Of its children, one after the other."""
    return "".join(_one(child) for child in element)


def _one(element: Element) -> str:
    name = local(element)
    if name in UNREAD or name.endswith("Pr"):
        return ""
    if name == "r":
        return _run(element)
    read = READERS.get(name)
    return read(element) if read else _of(element)


def _run(run: Element) -> str:
    text = "".join((one.text or "") if local(one) == "t" else " " for one in run if local(one) in ("t", "tab", "br"))
    is_words = any(local(one) == "nor" for properties in run if local(properties) == "rPr" for one in properties)
    return text if is_words else text.replace("-", formula.MINUS)


def _part(element: Element, name: str) -> str:
    return "".join(_of(child) for child in element if local(child) == name)


def _setting(element: Element, name: str, default: str = "") -> str:
    """A property's value; without a value, which stands for "on", its name."""
    properties = (one for child in element if local(child).endswith("Pr") for one in child)
    found = next((one for one in properties if local(one) == name), None)
    if found is None:
        return default
    return attribute(found, "val") if any(key.rpartition("}")[2] == "val" for key in found.attrib) else name


def _fraction(element: Element) -> str:
    above, below = _part(element, "num"), _part(element, "den")
    if _setting(element, "type") == "noBar":  # binomial coefficients are written so
        return formula.matrix([[above], [below]])
    return formula.fraction(above, below)


def _root(element: Element) -> str:
    return formula.root(_part(element, "e"), _part(element, "deg"))


def _scripts(element: Element) -> str:
    return formula.scripts(_part(element, "e"), _part(element, "sub"), _part(element, "sup"))


def _before(element: Element) -> str:
    return f" {formula.scripts('', _part(element, 'sub'), _part(element, 'sup'))}{_part(element, 'e')}"


def _limit(element: Element) -> str:
    is_low = local(element) == "limLow"
    limit = _part(element, "lim")
    return formula.scripts(_part(element, "e"), limit if is_low else "", "" if is_low else limit)


def _over_all(element: Element) -> str:
    sign = _setting(element, "chr", INTEGRAL)
    return formula.over_all(sign, _part(element, "sub"), _part(element, "sup"), _part(element, "e"))


def _delimited(element: Element) -> str:
    separator = _setting(element, "sepChr", "|")
    parts = [_of(child) for child in element if local(child) == "e"]
    return _setting(element, "begChr", "(") + separator.join(parts) + _setting(element, "endChr", ")")


def _applied(element: Element) -> str:
    return formula.applied(_part(element, "fName"), _part(element, "e"))


def _accented(element: Element) -> str:
    return formula.accented(_part(element, "e"), _setting(element, "chr", HAT))


def _barred(element: Element) -> str:
    return formula.accented(_part(element, "e"), BAR if _setting(element, "pos") == "top" else LOW_LINE)


def _matrix(element: Element) -> str:
    return formula.matrix([[_of(cell) for cell in row] for row in element if local(row) == "mr"])


def _equations(element: Element) -> str:
    return formula.matrix([[_of(child).replace("&", "")] for child in element if local(child) == "e"])


def _phantom(element: Element) -> str:
    return "" if _setting(element, "show") in ("0", "off", "false") else _of(element)


READERS = {
    "f": _fraction,
    "rad": _root,
    "sSup": _scripts,
    "sSub": _scripts,
    "sSubSup": _scripts,
    "sPre": _before,
    "limLow": _limit,
    "limUpp": _limit,
    "nary": _over_all,
    "d": _delimited,
    "func": _applied,
    "acc": _accented,
    "bar": _barred,
    "m": _matrix,
    "eqArr": _equations,
    "phant": _phantom,
}
