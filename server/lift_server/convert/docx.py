"""DOCX → its text, by way of mammoth's HTML: headings, lists, tables, footnotes; insertions, without deletions. Of what
mammoth passes over, formulas are written as text before, charts and diagrams come at the end.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import mammoth

from lift_server.convert import graphics, omml, webpage
from lift_server.convert.archive import Archive, local
from lift_server.convert.package import main_part

STYLES = "p.Title => h1:fresh\np[style-name='Title'] => h1:fresh"  # beside mammoth's own, which have headings only
BACK_LINK = re.compile(r'<a href="#(?:foot|end)note-ref-[^"<>]*">↑</a>')  # from a note to its place


def text_of(archive: Archive, content: bytes) -> str:
    main = main_part(archive, "word/document.xml")
    return "\n\n".join(
        [_text(_with_formulas(archive, content, posixpath.dirname(main))), *graphics.of_part(archive, main)]
    )


def _text(content: bytes) -> str:
    no_pictures = mammoth.images.img_element(_no_picture)
    html = mammoth.convert_to_html(io.BytesIO(content), convert_image=no_pictures, style_map=STYLES).value
    return webpage.text_of(f"<body>{BACK_LINK.sub('', html)}</body>")


def _with_formulas(archive: Archive, content: bytes, folder: str) -> bytes:
    """The file with each formula as a run of text; without pictures, where it has a formula."""
    parts = {name for name in archive.names if name.endswith((".xml", ".rels"))}
    changed = {
        name: _rewritten(archive.xml(name))
        for name in parts
        if posixpath.dirname(name) == folder and b"oMath" in archive.bytes_of(name)
    }
    if not changed:
        return content
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name in parts:
            file.writestr(name, changed[name] if name in changed else archive.bytes_of(name))
    return written.getvalue()


def _rewritten(root: Element) -> bytes:
    for parent in [one for one in root.iter() if one.tag not in omml.NAMES]:
        for place, child in enumerate(list(parent)):
            if child.tag in omml.NAMES or local(child) == "oMathPara":
                parent[place] = _run(child, root.tag.rpartition("}")[0] + "}")
    return tostring(root)


def _run(element: Element, space: str) -> Element:
    """In Word's namespace; a line a formula where several are set apart as one."""
    run = Element(f"{space}r")
    for number, line in enumerate(_lines(element)):
        if number:
            SubElement(run, f"{space}br")
        SubElement(run, f"{space}t").text = line
    return run


def _lines(element: Element) -> Iterator[str]:
    return (omml.line(one) for one in element.iter() if one.tag in omml.NAMES)


def _no_picture(_: Any) -> dict[str, str]:
    return {}
