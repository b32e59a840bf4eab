"""Formulas of Office, web pages, books and OpenDocument: in a line, as a person would type them."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest
from tests.lift_server.made_files import docx, epub, opendocument, paragraph, pptx, shape

from lift_server.convert import archive as reader
from lift_server.convert import mathml, omml, webpage
from lift_server.convert.clean import cleaned

M = f'xmlns:m="{omml.SPACE}"'
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def run(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


def part(name: str, *inside: str, **settings: str) -> str:
    """An element of OMML: plain text in it as a run."""
    told = "".join(f'<m:{key} m:val="{value}"/>' for key, value in settings.items())
    found = "".join(one if one.startswith("<") else run(one) for one in inside)
    return f"<m:{name}>{f'<m:{name}Pr>{told}</m:{name}Pr>' if told else ''}{found}</m:{name}>"


def fraction(above: str, below: str, **settings: str) -> str:
    return part("f", part("num", above), part("den", below), **settings)


def power(base: str, above: str) -> str:
    return part("sSup", part("e", base), part("sup", above))


def over_all(below: str, above: str, of: str, **settings: str) -> str:
    return part("nary", part("sub", below), part("sup", above), part("e", of), **settings)


ROOT = part("rad", part("deg"), part("e", power("b", "2"), "-4ac"), degHide="1")
QUADRATIC = run("x=") + fraction(run("-b±") + ROOT, "2a")
CELLS = part("m", part("mr", part("e", "a"), part("e", "b")), part("mr", part("e", "c"), part("e", "d")))
LIMIT = part("fName", part("limLow", part("e", "lim"), part("lim", "x→0")))
SINE = part("func", part("fName", "sin"), part("e", "x"))
LOW = part("sSub", part("e", "x"), part("sub", "i"))
OFFICE = {
    QUADRATIC: "x = (-b ± sqrt(b^2 - 4ac))/(2a)",
    over_all("i=1", "n", power("i", "2"), chr="∑"): "∑_(i = 1)^n i^2",
    over_all("0", "∞", power("e", "-x") + run("dx")): "∫_0^∞ e^(-x) dx",
    run("A=") + part("d", part("e", CELLS), begChr="[", endChr="]"): "A = [a, b; c, d]",
    part("d", part("e", fraction("n", "k", type="noBar"))): "(n; k)",
    part("d", part("e", part("eqArr", part("e", "x&amp;=1"), part("e", "y&amp;=2"))), begChr="{", endChr=""): (
        "{x = 1; y = 2"
    ),
    part("func", LIMIT, part("e", fraction(SINE, "x"))): "lim_(x → 0) (sin x)/x",
    part("func", part("fName", "f"), part("e", part("d", part("e", "x+1")))): "f(x + 1)",
    part("rad", part("deg", "3"), part("e", "x")): "sqrt[3](x)",
    run("2") + fraction("a", "b") + run("c"): "2 a/b c",
    LOW + LOW: "x_i x_i",
    part("sSubSup", part("e", "x"), part("sub", "i"), part("sup", "2")): "x_i^2",
    part("sPre", part("sub", "6"), part("sup", "14"), part("e", "C")): "_6^14 C",
    part("acc", part("e", "x")) + run("=") + part("bar", part("e", "y"), pos="top"): "x̂ = ȳ",
    part("phant", part("e", "x"), show="0") + run("y"): "y",
    "<m:r><m:rPr><m:nor/></m:rPr><m:t>well-known</m:t></m:r>": "well-known",
    run("a-b") + f"<w:del {W}>{run('c')}</w:del><w:ins {W}>{run('=d')}</w:ins>": "a - b = d",
    part("d", part("e", fraction("a", "b"))): "(a/b)",
    part("unheard", "x"): "x",
}


@pytest.mark.parametrize("written", OFFICE)
def test_offices_formulas(written: str) -> None:
    assert omml.line(fromstring(f"<m:oMath {M}>{written}</m:oMath>")) == OFFICE[written]


def test_a_formula_in_a_text() -> None:
    """In its place; several that are set apart have a line each."""
    inline = (
        f"<w:p><w:r><w:t>Where </w:t></w:r><m:oMath {M}>{power('c', '2')}</m:oMath><w:r><w:t> is.</w:t></w:r></w:p>"
    )
    apart = f"<w:p><m:oMathPara {M}><m:oMath>{run('a=1')}</m:oMath><m:oMath>{run('b=2')}</m:oMath></m:oMathPara></w:p>"
    assert cleaned(reader.read(docx(paragraph("The horn.") + inline + apart + paragraph("After.")))) == (
        "The horn.\n\nWhere c^2 is.\n\na = 1\nb = 2\n\nAfter."
    )


def test_a_formula_on_a_slide() -> None:
    """Not the picture beside it, for programs that know no formulas."""
    a14 = 'xmlns:a14="http://schemas.microsoft.com/office/drawing/2010/main"'
    drawn = f"<a14:m {a14}><m:oMathPara {M}><m:oMath>{fraction('a', 'b')}</m:oMath></m:oMathPara></a14:m>"
    choice = f"<x><Choice>{drawn}</Choice><Fallback><a:r><a:t>picture</a:t></a:r></Fallback></x>"
    slide = shape("Loud").replace("<a:r>", f"{choice}<a:r>")
    assert cleaned(reader.read(pptx([slide], {}))) == "a/bLoud"


WEB = {
    "<mrow><mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup></mrow>": "E = mc^2",
    "<mfrac><mrow><mi>a</mi><mo>\u2212</mo><mi>b</mi></mrow><mrow><mn>2</mn></mrow></mfrac>": "(a - b)/2",
    "<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover><msub><mi>x</mi><mi>i</mi>"
    "</msub>": "∑_(i = 1)^n x_i",
    "<msqrt><mi>x</mi><mo>+</mo><mn>1</mn></msqrt>": "sqrt(x + 1)",
    "<mroot><mi>x</mi><mn>3</mn></mroot>": "sqrt[3](x)",
    "<mi>sin</mi><mo>\u2061</mo><mi>x</mi><mo>&lt;</mo><mi>f</mi><mo>\u2061</mo><mo>(</mo><mi>y</mi><mo>)</mo>": (
        "sin x < f(y)"
    ),
    "<mo>(</mo><mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>0</mn></mtd></mtr><mtr><mtd><mn>0</mn></mtd><mtd><mover>"
    "<mi>x</mi><mo>^</mo></mover></mtd></mtr></mtable><mo>)</mo>": "(1, 0; 0, x̂)",
    '<mfenced open="[" close="]"><mi>a</mi><mi>b</mi></mfenced>': "[a, b]",
    "<munder><mi>lim</mi><mrow><mi>x</mi><mo>→</mo><mn>0</mn></mrow></munder><mi>x</mi>": "lim_(x → 0) x",
    "<mover><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mo>⏞</mo></mover>": "a + b",
    '<mo>(</mo><mfrac linethickness="0"><mi>n</mi><mi>k</mi></mfrac><mo>)</mo>': "(n; k)",
    "<mi>x</mi><mtext>if well-known</mtext><mphantom><mi>y</mi></mphantom>": "x if well-known",
    "<semantics><mi>x</mi><annotation encoding='application/x-tex'>\\hat x</annotation></semantics>": "x",
    "<semantics><mrow></mrow><annotation encoding='application/x-tex'>\\hat x</annotation></semantics>": "\\hat x",
    "<msup><mi>x</mi></msup>": "x",
}


@pytest.mark.parametrize("written", WEB)
def test_formulas_of_the_web(written: str) -> None:
    assert mathml.line(fromstring(f"<math>{written}</math>")) == WEB[written]
    assert cleaned(webpage.text_of(f"<p>So <math>{written}</math>.")) == f"So {WEB[written]}."


HALF = "<math xmlns='http://www.w3.org/1998/Math/MathML'><mfrac><mn>1</mn><mn>2</mn></mfrac></math>"


def test_a_formula_that_a_page_hides_behind_its_picture() -> None:
    hidden = f"<p>Half is <span><span style='display: none;'>{HALF}</span><img src='half.svg'></span>."
    assert cleaned(webpage.text_of(hidden)) == "Half is 1/2."
    assert cleaned(webpage.text_of(f"<table><tr><td>Half<td>{HALF}</table>")) == "Half | 1/2"


def test_a_formula_in_a_book_and_in_opendocument() -> None:
    assert cleaned(reader.read(epub({"one.xhtml": f"<p>Half is {HALF}.</p>"}))) == "Half is 1/2."
    kept = '<draw:frame><draw:object href="./Object 1"/><draw:image/></draw:frame>'
    content = opendocument("text", f"<text:p>Half is {kept}.</text:p>", more={"Object 1/content.xml": HALF})
    assert cleaned(reader.read(content)) == "Half is 1/2."


def test_a_formula_nested_too_deep() -> None:
    depth = 5000
    assert cleaned(webpage.text_of(f"<math>{'<mrow>' * depth}<mi>x</mi>{'</mrow>' * depth}</math>")) == "x"
