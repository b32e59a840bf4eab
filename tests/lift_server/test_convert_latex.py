"""LaTeX as a reader sees it."""

from __future__ import annotations

import pytest

from lift_server.convert import latex
from lift_server.convert.clean import cleaned, with_places
from lift_server.convert.kinds import Kind, kind_of

PAPER = r"""% nobody reads this
\documentclass[11pt]{article}
\usepackage[utf8]{inputenc}
\lstset{language=C, basicstyle=\small}
\newcommand{\ship}{Greta Lund}
\title{The Light at Karsund}
\author{Ilse Brandt\thanks{Harbour office} \and P. Moe}
\begin{document}
\maketitle
\section{History}\label{sec:history}
It was built in 1874 by Edda Holm~\cite{holm1874}.
The \emph{supply ship} \ship{} comes on Thursdays.\footnote{Weather permitting.}
``Three blasts'', said Br\"uning \& Sons; 5\% of ships miss it: $E = \frac{1}{2} mc^2$.
\begin{itemize}
  \item fish oil
  \item rope (12\,m)
\end{itemize}
\begin{tabular}{l|r}
\hline
Ship & Barrels \\ \hline
Arvenna & 12 \\
\ship & 40 \\
\end{tabular}
\begin{figure}\includegraphics[width=3cm]{a.png}\caption{The tower}\end{figure}
\subsection*{Stores}
\begin{verbatim}
x = 1  % kept
\end{verbatim}
\bibliographystyle{plain}
\bibliography{refs}
\end{document}
"""


def test_a_reader_sees_text_and_no_commands() -> None:
    text, places = with_places(latex.read(PAPER.encode()))
    lines = [line for line in text.splitlines() if line]
    assert lines == [
        "The Light at Karsund",
        "Ilse Brandt (Harbour office), P. Moe",
        "History",
        "It was built in 1874 by Edda Holm.",
        "The supply ship Greta Lund comes on Thursdays. (Weather permitting.)",
        "“Three blasts”, said Brüning & Sons; 5% of ships miss it: E = 1/2 mc^2.",
        "* fish oil",
        "* rope (12 m)",
        "Ship: Arvenna; Barrels: 12",
        "Ship: Greta Lund; Barrels: 40",
        "The tower",
        "Stores",
        "x = 1  % kept",
    ]
    assert [text[at:].partition("\n")[0] for at in places["headings"]] == ["The Light at Karsund", "History", "Stores"]


FORMULAS = {
    r"\frac{a+b}{2c}": "(a + b)/(2c)",
    r"\left(\dfrac{a}{b}\right)^2": "(a/b)^2",
    r"\sqrt{x+1} = \sqrt[3]{y}": "sqrt(x + 1) = sqrt[3](y)",
    r"\sum_{i=1}^{n} i^2": "∑_(i = 1)^n i^2",
    r"\int_0^\infty e^{-x^{2n}}\,dx": "∫_0^∞ e^(-x^(2n)) dx",
    r"\frac12 mc^{2}": "1/2 mc^2",
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_keep_what_belongs_together(formula: str) -> None:
    """(a + b)/c is not a + b/c."""
    for before, after in ("$$", (r"\[", r"\]"), (r"\begin{equation}", r"\end{equation}")):
        source = rf"\documentclass{{a}}\begin{{document}}{before}{formula}{after}\end{{document}}"
        assert cleaned(latex.read(source.encode())) == FORMULAS[formula]


@pytest.mark.parametrize(
    "source",
    [
        r"\documentclass{a}\begin{document}The horn \begin{quote} is heard} far \frac{1} out \end{document}",
        r"\documentclass{a}\begin{document}The horn" + "{" * 50_000,
        r"\documentclass{a}\begin{document}The horn" + r"\begin{itemize}\item " * 5_000,
        r"\documentclass{a} The horn \def\a{\a\a}\a\a \newcommand{\b}[2]{#1}\b{x}{y}",
    ],
)
def test_what_is_no_good_latex_keeps_its_words(source: str) -> None:
    assert "The horn" in latex.read(source.encode())


def test_a_file_that_shows_nothing_is_kept_as_it_is() -> None:
    source = r"\newcommand{\ship}{Greta Lund} % the supply ship"
    assert latex.read(source.encode()) == source


@pytest.mark.parametrize(
    ("content", "filename", "kind"),
    [
        (PAPER.encode(), None, Kind.LATEX),
        (rb"\section{Stores} Fish oil.", "stores.TEX", Kind.LATEX),
        (b"No commands at all.", "stores.tex", Kind.TEXT),
        (b"A paper begins with \\documentclass{article} in LaTeX.", "latex.md", Kind.TEXT),
    ],
)
def test_latex_is_known_by_its_first_command_or_its_name(content: bytes, filename: str | None, kind: Kind) -> None:
    assert kind_of(content, filename) is kind
