"""EPUB → its chapters in reading order; without the table of contents, which repeats them."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from lift_server.convert import webpage
from lift_server.convert.archive import Archive, attribute, local
from lift_server.convert.refusal import Refused


def text_of(archive: Archive) -> str:
    package = next((attribute(one, "full-path") for one in _all(archive.xml("META-INF/container.xml"), "rootfile")), "")
    content = archive.xml(package)
    encrypted = {
        unquote(attribute(one, "URI")) for one in _all(archive.xml("META-INF/encryption.xml"), "CipherReference")
    }
    items = {attribute(item, "id"): item for item in _all(content, "item")}
    chapters: dict[str, str] = {}
    for reference in _all(content, "itemref"):
        item = items.get(attribute(reference, "idref"))
        if item is None or "nav" in attribute(item, "properties").split():
            continue
        name = posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(attribute(item, "href"))))
        if name in encrypted:
            raise Refused("The book is protected (DRM), so it cannot be read.", code="encrypted_document")
        if name not in chapters:  # a book may go round in circles
            chapters[name] = webpage.read_chapter(archive.bytes_of(name))
    return "\n\n".join(chapters.values())


def _all(root: Element, name: str) -> list[Element]:
    return [one for one in root.iter() if local(one) == name]
