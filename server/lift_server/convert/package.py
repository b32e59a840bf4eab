"""The parts of an Office package: which a part refers to, and what for.

In: an archive, a member's name. Out: names of members.
"""

from __future__ import annotations

import posixpath
from xml.etree.ElementTree import Element

from lift_server.convert.archive import Archive, attribute


def main_part(archive: Archive, usual: str) -> str:
    """The one that the package begins with; `usual` where it does not say."""
    return next((name for kind, name in related(archive, "") if kind == "officeDocument"), usual)


def targets(archive: Archive, name: str) -> dict[str, str]:
    """Members that a member refers to, by the reference's id."""
    return {attribute(one, "Id"): _resolved(name, one) for one in _references(archive, name)}


def related(archive: Archive, name: str) -> list[tuple[str, str]]:
    """The same, with what each is for."""
    found = _references(archive, name)
    return [(attribute(one, "Type").rpartition("/")[2], _resolved(name, one)) for one in found]


def _references(archive: Archive, name: str) -> list[Element]:
    folder, _, file = name.rpartition("/")
    return list(archive.xml(posixpath.join(folder, "_rels", f"{file}.rels")))


def _resolved(name: str, reference: Element) -> str:
    target = attribute(reference, "Target")
    return (
        target.lstrip("/")
        if target.startswith("/")
        else posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    )
