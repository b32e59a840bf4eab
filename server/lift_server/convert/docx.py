"""DOCX → its text, by way of mammoth's HTML: headings, lists, tables, footnotes; insertions, without deletions."""

from __future__ import annotations

import io
import re
from typing import Any

import mammoth

from lift_server.convert import webpage

BACK_LINK = re.compile(r'<a href="#(?:foot|end)note-ref-[^"<>]*">↑</a>')  # from a note to its place


def read(content: bytes) -> str:
    html = mammoth.convert_to_html(io.BytesIO(content), convert_image=mammoth.images.img_element(_no_picture)).value
    return webpage.text_of(f"<body>{BACK_LINK.sub('', html)}</body>")


def _no_picture(_: Any) -> dict[str, str]:
    return {}
