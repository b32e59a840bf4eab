"""docs/ as a site: built by the command that people use, warnings being errors; its links; the figures in its prose."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import pytest
from selectolax.lexbor import LexborHTMLParser
from tests.docs.blocks import ROOT
from tests.docs.test_readme import CODE as ERROR_CODE

import docs_errors
from docs_reference import CHAPTERS
from lift_config.prompts import document_line

DOCS = ROOT / "docs"
BUILD_S = 120
FETCHED = ("script[src]", "link[rel=stylesheet]", "img[src]", "iframe", "link[rel=preload]")
FIGURE = re.compile(r"\d+\.\d+|\d+(?= %| of )|(?<= of )\d+")
CODE = re.compile(r"```.*?```|`[^`]*`|\([^)]*\)", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the last line of scripts/docs, but into a folder of the test's own."""
    folder = tmp_path_factory.mktemp("site")
    command = shlex.split((ROOT / "scripts/docs").read_text("utf-8").splitlines()[-1])[2:-1]
    assert command[:2] == ["-m", "sphinx"]
    assert "--fail-on-warning" in command
    done = subprocess.run(
        [sys.executable, *command, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, LexborHTMLParser]:
    return {path: LexborHTMLParser(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_every_page_is_in_it(pages: dict[Path, LexborHTMLParser], site: Path) -> None:
    built = {str(path.relative_to(site).with_suffix("")) for path in pages}
    sources = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]
    assert {str(path.relative_to(DOCS).with_suffix("")) for path in sources} - built == set()


def test_its_links_lead_somewhere(pages: dict[Path, LexborHTMLParser]) -> None:
    ids = {path: {node.attributes["id"] for node in page.css("[id]")} for path, page in pages.items()}
    for path, link in named(pages, "a[href]", "href"):
        target = (path.parent / unquote(link.path)).resolve() if link.path else path
        assert target.is_file(), f"{path.name}: {link.geturl()}"
        if link.fragment and target in ids:
            assert unquote(link.fragment) in ids[target], f"{path.name}: {link.geturl()}"


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, LexborHTMLParser], site: Path) -> None:
    for selector in FETCHED:
        for page in pages.values():
            for node in page.css(selector):
                address = node.attributes.get("src") or node.attributes.get("href") or ""
                assert not urlsplit(address).netloc, address
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"url\(['\"]?(https?:)?//|@import", styles)


def named(pages: dict[Path, LexborHTMLParser], selector: str, attribute: str) -> Iterator[tuple[Path, SplitResult]]:
    """Addresses within the site."""
    for path, page in pages.items():
        for node in page.css(selector):
            link = urlsplit(node.attributes[attribute] or "")
            if not link.scheme and not link.netloc:
                yield path, link


def test_the_reference_has_every_chapter(pages: dict[Path, LexborHTMLParser], site: Path) -> None:
    used = "".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))
    assert {name for name in CHAPTERS if f"{{generated}} {name}\n" not in used} == set()
    shown = {name: pages[site / f"reference/{name}.html"].text() for name in ("settings", "errors", "metrics", "api")}
    assert "engine.max_loras" in shown["settings"]
    assert "lift_time_to_first_token_seconds" in shown["metrics"]
    assert "POST /v1/documents" in shown["api"]


def test_every_error_code_is_in_the_reference() -> None:
    told = {row.code: row.message for row in docs_errors.answers()} | dict(docs_errors.failures())
    folders = (docs_errors.SERVER, docs_errors.WORKERS)
    sources = [path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py")]
    written = {code for source in sources for code in ERROR_CODE.findall(source)}
    assert {"document_not_found", "trainer_died", "no_tasks"} <= written
    assert written - told.keys() == set()
    assert [code for code, message in told.items() if not message] == []


def test_the_framing_for_plain_vllm_is_the_one_of_training(pages: dict[Path, LexborHTMLParser], site: Path) -> None:
    shown = pages[site / "how-to/plain-vllm.html"].text()
    assert document_line("TITLE") in shown
    assert f"{document_line(None)}\n" in shown


def test_every_figure_in_the_explanation_was_measured() -> None:
    """Each number with a decimal point, percentage or count in its prose stands in a table of docs/benchmarks."""
    prose = CODE.sub("", (DOCS / "explanation.md").read_text("utf-8").partition("## What we measured")[2])
    figures = set(FIGURE.findall(prose))
    assert {"1.77", "37.5", "0.211"} <= figures
    tables = "".join(path.read_text("utf-8") for path in (DOCS / "benchmarks").glob("*.md"))
    measured = set(re.findall(r"\d+(?:\.\d+)?", tables))
    assert figures - measured == set()
