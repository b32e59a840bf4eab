"""OpenDocument: what is read of ODT, ODS and ODP, and what is not."""

from __future__ import annotations

import pytest
from tests.lift_server.made_files import opendocument

from lift_server.convert import archive
from lift_server.convert import opendocument as reader
from lift_server.convert.clean import cleaned, with_places
from lift_server.convert.refusal import Refused

NUMBERED = (
    '<text:list-style style:name="N"><text:list-level-style-number text:level="1"/>'
    '<text:list-level-style-bullet text:level="2"/></text:list-style>'
)
NOTE = (
    "<text:note><text:note-citation>1</text:note-citation>"
    "<text:note-body><text:p>A plant.</text:p></text:note-body></text:note>"
)
KEEPERS = (
    "<table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>Year</text:p></table:table-cell>"
    "<table:table-cell><text:p>Keeper</text:p></table:table-cell></table:table-row></table:table-header-rows>"
    "<table:table-row><table:table-cell><text:p>1874</text:p></table:table-cell>"
    "<table:table-cell><text:p>Edda</text:p><text:p>Holm</text:p></table:table-cell></table:table-row></table:table>"
)


def test_odt() -> None:
    """Without what was deleted, comments, contents; notes at the end; boxes after their paragraph."""
    body = (
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>gas</text:p></text:deletion>"
        "</text:changed-region></text:tracked-changes>"
        "<text:table-of-content><text:index-body><text:p>Station log 1</text:p></text:index-body>"
        '</text:table-of-content><text:h text:outline-level="1">Station log</text:h>'
        f"<text:p>The lamp<text:change/> burns <text:span>rape\nseed</text:span><text:s text:c='3'/>oil{NOTE}."
        "<office:annotation><text:p>Really?</text:p></office:annotation><text:line-break/>It is old."
        "<draw:frame><svg:title>A picture</svg:title><draw:text-box><text:p>In a box.</text:p></draw:text-box>"
        "</draw:frame></text:p>"
        '<text:list text:style-name="N"><text:list-item><text:p>One</text:p></text:list-item><text:list-item>'
        "<text:p>Two</text:p><text:list><text:list-item><text:p>In it</text:p></text:list-item></text:list>"
        f"</text:list-item></text:list>{KEEPERS}<text:section><text:p>The end.</text:p></text:section>"
    )
    text, places = with_places(archive.read(opendocument("text", body, NUMBERED)))
    assert text == (
        "Station log\n\nThe lamp burns rape seed oil[1].\nIt is old.\n\nIn a box.\n\n1. One\n2. Two\n- In it\n\n"
        "Year: 1874; Keeper: Edda Holm\n\nThe end.\n\n[1] A plant."
    )
    assert places == {"headings": [0], "pages": []}


def row(*cells: str, times: int = 1) -> str:
    found = "".join(f"<table:table-cell><text:p>{cell}</text:p></table:table-cell>" for cell in cells)
    filler = '<table:table-cell table:number-columns-repeated="16000"/>'
    return f'<table:table-row table:number-rows-repeated="{times}">{found}{filler}</table:table-row>'


def test_ods() -> None:
    """As shown; alike rows as often as they stand there; no empty ones."""
    ships = f'<table:table table:name="Ships">{row("Ship", "Cargo")}{row("Arvenna", "1.5 t", times=2)}</table:table>'
    empty = '<table:table table:name="Empty"><table:table-row table:number-rows-repeated="1048576"/></table:table>'
    said = "Ship: Arvenna; Cargo: 1.5 t"
    assert cleaned(archive.read(opendocument("spreadsheet", ships + empty))) == f"{said}\n{said}"
    keepers = f'<table:table table:name="Keepers">{row("1874", "Holm")}</table:table>'
    assert cleaned(archive.read(opendocument("spreadsheet", ships + keepers))) == (
        f"Ships\n\n{said}\n{said}\n\nKeepers\n\n1874 | Holm"
    )


def frame(kind: str, *texts: str) -> str:
    paragraphs = "".join(f"<text:p>{text}</text:p>" for text in texts)
    return f'<draw:frame presentation:class="{kind}"><draw:text-box>{paragraphs}</draw:text-box></draw:frame>'


def test_odp() -> None:
    """Titles first, then notes; the slides are its pages."""
    notes = f"<presentation:notes><draw:page-thumbnail/>{frame('notes', 'Say it loudly.')}</presentation:notes>"
    first = frame("outline", "Three blasts.", "Two in snow.") + frame("title", "The horn") + frame("page-number", "1")
    second = f"<draw:g>{frame('', 'In a group.')}</draw:g>"
    slides = f"<draw:page>{notes}{first}</draw:page><draw:page/><draw:page>{second}</draw:page>"
    text, places = with_places(archive.read(opendocument("presentation", slides)))
    assert text == "The horn\n\nThree blasts.\nTwo in snow.\n\nSay it loudly.\n\nIn a group."
    assert places == {"headings": [0], "pages": [(0, 1), (text.index("In a"), 3)]}


def test_a_table_that_says_it_is_huge() -> None:
    body = f"<table:table>{row('x', times=reader.MAX_CELLS + 1)}</table:table>"
    with pytest.raises(Refused) as refused:
        archive.read(opendocument("spreadsheet", body))
    assert refused.value.code == "too_large"


def test_an_encrypted_one() -> None:
    with pytest.raises(Refused) as refused:
        archive.read(opendocument("text", "", manifest="<manifest:encryption-data/>"))
    assert refused.value.code == "encrypted_document"
