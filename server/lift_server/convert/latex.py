"""LaTeX → what a reader sees: paragraphs, headings, lists and tables; no commands, comments, labels or citations.

Formulas are written in a line ("a^2 + b^2 = c/2"). Commands that the file defines without arguments are put in; other
files are not. What cannot be read so is kept as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from pylatexenc import latex2text, latexwalker
from pylatexenc.latex2text import EnvironmentTextSpec, LatexNodes2Text, MacroTextSpec
from pylatexenc.latexwalker import LatexCharsNode, LatexGroupNode, LatexMacroNode, LatexSpecialsNode, LatexWalkerError
from pylatexenc.macrospec import std_macro

from lift_server.convert import formula, legacy, rows
from lift_server.convert.clean import HEADING

HEADINGS = ("title", "part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph")
OWN_LINES = ("author", "date", "caption")
ASIDES = ("footnote", "thanks")
FRACTIONS = ("frac", "dfrac", "tfrac", "cfrac")
SCRIPTS = ("^", "_")
TABLES = ("tabular", "tabular*", "tabularx", "longtable")
# By their arguments, which the library does not know of.
UNREAD = {
    1: (
        "bibliography", "bibliographystyle", "hypersetup", "autoref", "cref", "Cref", "pagestyle", "thispagestyle",
        "lstset", "captionsetup", "geometry", "addbibresource", "newtheorem",
    ),
    2: ("setlength", "definecolor", "newcolumntype", "lstdefinestyle"),
}  # fmt: skip
UNREAD_KNOWN = (
    "maketitle", "label", "ref", "eqref", "pageref", "cite", "citep", "citet", "nocite", "includegraphics", "vspace",
    "hspace", "input", "include", "usepackage", "documentclass", "tableofcontents",
)  # fmt: skip
VERBATIM = re.compile(
    r"\\begin\{(verbatim|lstlisting|minted)\*?\}(?:\[[^\]]*\])?(?:\{[^}]*\})?\n?(.*?)\\end\{\1\*?\}", re.DOTALL
)
LISTING = "\ufdd5{}\ufdd5"  # stands for one, until all is read
LISTED = re.compile("\ufdd5(\\d+)\ufdd5")
DEFINITION = re.compile(
    r"\\(?:(?:re)?newcommand\*?|providecommand\*?|def)\s*(?:\{\\([A-Za-z]+)\}|\\([A-Za-z]+))\s*\{([^{}]*)\}"
)
SPACE = re.compile(r"[ \t\xa0]+")
LINE_EDGE = re.compile(r"^ | $", re.MULTILINE)
BEFORE_STOP = re.compile(r" ([.,;:)])")  # where a citation stood


def read(content: bytes) -> str:
    source = legacy.read(content)
    try:
        text = _text(source)
    except (LatexWalkerError, RecursionError):
        return source
    return text if text.strip() else source


class _InLine(LatexNodes2Text):  # type: ignore[misc]  # pylatexenc has no types
    """What stands high or low is in brackets where it is more than one thing: e^(-x)."""

    def nodelist_to_text(self, nodelist: Sequence[Any]) -> str:
        for before, node in pairwise(nodelist):
            if isinstance(before, LatexCharsNode) and isinstance(node, LatexGroupNode):
                node.is_script = before.parsing_state.in_math_mode and before.chars.endswith(SCRIPTS)
        return str(super().nodelist_to_text(nodelist))

    def group_node_to_text(self, node: Any) -> str:
        text = str(super().group_node_to_text(node))
        return formula.grouped(text) if getattr(node, "is_script", False) else text

    def math_node_to_text(self, node: Any) -> str:
        return "\n".join(formula.line(line) for line in str(super().math_node_to_text(node)).split("\n"))


def _text(source: str) -> str:
    listings: list[str] = []

    def put_aside(found: re.Match[str]) -> str:
        listings.append(found[2].rstrip())
        return f"\n\n{LISTING.format(len(listings) - 1)}\n\n"

    source = _expanded(VERBATIM.sub(put_aside, source))
    reader = _InLine(latex_context=_shown(), math_mode="text", keep_comments=False)
    text: str = reader.latex_to_text(source, latex_context=_known())
    text = BEFORE_STOP.sub(r"\1", LINE_EDGE.sub("", SPACE.sub(" ", text)))
    return LISTED.sub(lambda found: listings[int(found[1])], text)


def _expanded(source: str) -> str:
    """With the file's own abbreviations written out, once; one with arguments is passed over like any unknown one."""
    values = {found[1] or found[2]: found[3] for found in DEFINITION.finditer(source)}
    source = DEFINITION.sub("", source)
    if not values:
        return source
    used = re.compile(rf"\\({'|'.join(values)})(?![A-Za-z])(?:\{{\}})?")
    return used.sub(lambda found: values[found[1]], source)


def _known() -> Any:
    """How many arguments a command takes."""
    context = latexwalker.get_default_latex_context_db()
    unread = [std_macro(name, "{" * count) for count, names in UNREAD.items() for name in names]
    fractions = [std_macro(name, "{{") for name in FRACTIONS]
    context.add_context_category("more commands", prepend=True, macros=[*unread, *fractions, std_macro("thanks", "{")])
    return context


def _shown() -> Any:
    """What is written for it."""
    context = latex2text.get_default_latex_context_db()
    argument = {
        **dict.fromkeys(HEADINGS, _last_argument(f"\n\n{HEADING}", "\n\n")),
        **dict.fromkeys(OWN_LINES, _last_argument("\n\n", "\n\n")),
        **dict.fromkeys(ASIDES, _last_argument(" (", ")")),
        **dict.fromkeys(FRACTIONS, _fraction),
        "sqrt": _root,
        **dict.fromkeys((*UNREAD_KNOWN, *UNREAD[1], *UNREAD[2]), ""),
        "and": ", ",
    }
    context.add_context_category(
        "what a reader sees",
        prepend=True,
        macros=[MacroTextSpec(name, simplify_repl=shown) for name, shown in argument.items()],
        environments=[EnvironmentTextSpec(name, simplify_repl=_table) for name in TABLES],
    )
    return context


def _last_argument(before: str, after: str) -> Callable[..., str]:
    def shown(node: Any, l2tobj: Any) -> str:
        arguments = node.nodeargd.argnlist if node.nodeargd else []
        text = _inline([arguments[-1]], l2tobj) if arguments and arguments[-1] else ""
        return f"{before}{text}{after}" if text else ""

    return shown


def _fraction(node: Any, l2tobj: Any) -> str:
    """As it stands where an argument is missing."""
    parts = _arguments(node, l2tobj)
    return formula.fraction(*parts) if len(parts) == 2 else " ".join(parts)


def _root(node: Any, l2tobj: Any) -> str:
    *degree, inside = _arguments(node, l2tobj) or [""]
    return formula.root(inside, "".join(degree))


def _arguments(node: Any, l2tobj: Any) -> list[str]:
    return [_inline([one], l2tobj) for one in (node.nodeargd.argnlist if node.nodeargd else []) if one]


def _table(node: Any, l2tobj: Any) -> str:
    return "\n\n{}\n\n".format("\n".join(rows.lines(list(_rows(node.nodelist, l2tobj)))))


def _rows(nodes: Sequence[Any], l2tobj: Any) -> Iterator[list[str]]:
    row: list[list[Any]] = [[]]
    for node in nodes:
        if isinstance(node, LatexMacroNode) and node.macroname == "\\":
            yield [_inline(cell, l2tobj) for cell in row]
            row = [[]]
        elif isinstance(node, LatexSpecialsNode) and node.specials_chars == "&":
            row.append([])
        else:
            row[-1].append(node)
    yield [_inline(cell, l2tobj) for cell in row]


def _inline(nodes: Sequence[Any], l2tobj: Any) -> str:
    return " ".join(str(l2tobj.nodelist_to_text(list(nodes))).split())
