"""Links in Markdown: every file and heading they name is there. No network: what is elsewhere is not asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.blocks import FENCE, PAGES, ROOT, name_of

MARKDOWN = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "docker/README.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SLUG = re.compile(r"[^\w\- ]")


def links(page: Path) -> list[tuple[str, str]]:
    """File and anchor, either may be empty."""
    found = LINK.findall(prose(page))
    return [(path, anchor) for path, _, anchor in (link.partition("#") for link in found if "://" not in link)]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them."""
    return {SLUG.sub("", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose(page))}


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert [path for path, _ in links(page) if not (page.parent / path).exists()] == []


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_anchors_are_headings(page: Path) -> None:
    named = [(page.parent / path if path else page, anchor) for path, anchor in links(page) if anchor]
    assert [(name_of(target.resolve()), anchor) for target, anchor in named if anchor not in anchors(target)] == []


def test_links_are_found() -> None:
    assert ("docs/index.md", "") in links(ROOT / "README.md")
    assert ("", "api-keys-and-limits") in links(ROOT / "README.md")
