"""DOCX → its text, by way of mammoth's HTML: headings, lists, tables, footnotes; insertions, without deletions. What
mammoth passes over, charts and diagrams, comes at the end.
"""

from __future__ import annotations

import io
import re
from typing import Any

import mammoth

from lift_server.convert import graphics, webpage
from lift_server.convert.archive import Archive
from lift_server.convert.package import main_part

STYLES = "p.Title => h1:fresh\np[style-name='Title'] => h1:fresh"  # beside mammoth's own, which have headings only
BACK_LINK = re.compile(r'<a href="#(?:foot|end)note-ref-[^"<>]*">↑</a>')  # from a note to its place


def text_of(archive: Archive, content: bytes) -> str:
    main = main_part(archive, "word/document.xml")
    return "\n\n".join([_text(content), *graphics.of_part(archive, main)])


def _text(content: bytes) -> str:
    no_pictures = mammoth.images.img_element(_no_picture)
    html = mammoth.convert_to_html(io.BytesIO(content), convert_image=no_pictures, style_map=STYLES).value
    return webpage.text_of(f"<body>{BACK_LINK.sub('', html)}</body>")


def _no_picture(_: Any) -> dict[str, str]:
    return {}
