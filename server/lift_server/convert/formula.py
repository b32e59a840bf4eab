"""How a formula is written in a line, as a person would type it: (a + b)/c, x^2, sqrt(x), ∑_(i = 1)^n i.

In: what stands in its parts, as omml.py and mathml.py find them. Out: text. Spaces are loose until `line` tidies them.
"""

from __future__ import annotations

import re
import unicodedata

from lift_server.convert.nfc import composed

MINUS = "\u2212"  # also for the hyphen of keyboards, until `line` writes that one: in words between formulas it is one
ATOM = re.compile(r"\d+(?:[.,]\d+)*|(?:[^\W\d_][\u0300-\u036f\u20d0-\u20ff]*)+['\u2032]*|[^\w\s]")
OPENING, CLOSING = "([{⟨⌊⌈", ")]}⟩⌋⌉"
RELATIONS = "=≠≈≡≤≥<>≪≫≲≳∈∉⊂⊆⊃→←↔⇒⇐⇔↦∝≅±∓+·÷∩∧∘⊗⊕\u00d7\u222a\u2228\u223c" + MINUS
OPERATOR = re.compile(
    rf"(?<=[^\s{re.escape(RELATIONS)}{re.escape(OPENING)}^_,;/])\s*([{re.escape(RELATIONS)}])\s*(?=\S)"
)
INVISIBLE = re.compile(r"\s*\u2061\s*(?=\()|[\u2061-\u2064]")  # "apply", "times", "and", "plus", unseen
AFTER_OPENING = re.compile(rf"(?<=[{re.escape(OPENING)}])\s+|\s+(?=[{re.escape(CLOSING)},;])")
SPACE = re.compile(r"\s+")


def line(text: str) -> str:
    """A whole formula."""
    text = SPACE.sub(" ", text)  # first: the others look back over it
    text = OPERATOR.sub(r" \1 ", INVISIBLE.sub("", text))
    text = AFTER_OPENING.sub("", SPACE.sub(" ", text)).strip()
    return composed(text.replace(MINUS, "-"))


def grouped(text: str) -> str:
    """In brackets, unless it is one thing already."""
    text = text.strip()
    return text if not text or ATOM.fullmatch(text) or _is_bracketed(text) else f"({text})"


def operator(text: str) -> str:
    """What stands between things: a hyphen is a minus there."""
    return MINUS if text.strip() == "-" else text


def fraction(above: str, below: str) -> str:
    return f" {grouped(above)}/{grouped(below)} "


def root(inside: str, degree: str = "") -> str:
    shown = f"[{degree.strip()}]" if degree.strip() not in ("", "2") else ""
    return f" sqrt{shown}({inside.strip()}) "


def scripts(base: str, below: str = "", above: str = "") -> str:
    """With what stands low and high at its right, or below and above it."""
    low = f"_{grouped(below)}" if below.strip() else ""
    high = f"^{grouped(above)}" if above.strip() else ""
    return f"{grouped(base) if low or high else base}{low}{high}" + (" " if low or high else "")


def over_all(operator: str, below: str, above: str, following: str) -> str:
    """A sum, a product, an integral, and what it is of."""
    return f" {scripts(operator, below, above)} {following.strip()} "


def accented(base: str, accent: str) -> str:
    """A hat over a letter; over more than one it would look like the last one's."""
    base = base.strip()
    return base + accent if len(base) == 1 and len(accent) == 1 and unicodedata.combining(accent) else base


def applied(function: str, argument: str) -> str:
    """sin x, but sin(x + 1)."""
    function, argument = function.strip(), argument.strip()
    return f" {function}{'' if argument and _is_bracketed(argument) else ' '}{argument} "


def matrix(rows: list[list[str]]) -> str:
    """Row by row, without the brackets that stand around it."""
    return "; ".join(", ".join(cell.strip() for cell in row) for row in rows)


def _is_bracketed(text: str) -> bool:
    """One pair around all of it."""
    if text[0] not in OPENING:
        return False
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter in OPENING) - (letter in CLOSING)
        if depth == 0:
            return at == len(text) - 1
    return False
