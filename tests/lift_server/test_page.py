"""The page at `/`: what goes out with its files, who gets them, and that they name only each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.lift_server.holders import holder

from lift_server.page import FILES, KINDS, OWN_FILES, PAGES

FOLDER = Path(__file__).parents[2] / "server/lift_server/page"
POLICY = {
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
}  # fmt: skip
NAMED = re.compile(r"""(?:href|src)="page/([\w.-]+)"|from "\./([\w-]+\.js)\"""")
ADDRESS = re.compile(r"https?://[^\s\"']+")


def text_of(path: str) -> str:
    return FILES[path].body.decode()


async def test_every_file_goes_out_with_its_type_its_validator_and_the_policy(front_end: Any) -> None:
    etags = set()
    for path, file in FILES.items():
        answer = await front_end.client.get(path)
        assert (answer.status_code, answer.content) == (200, file.body), path
        headers = answer.headers
        assert headers["content-type"] == KINDS[Path(path).suffix or ".html"]
        assert set(headers["content-security-policy"].split("; ")) == POLICY
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["cache-control"] == "no-cache"
        etags.add(headers["etag"])
    assert len(etags) == len(FILES)


@pytest.mark.parametrize("marked", ["{}", "W/{}", '"other", {}'])
async def test_what_the_browser_has_is_not_sent_again(front_end: Any, marked: str) -> None:
    first = await front_end.client.get("/")
    known = {"If-None-Match": marked.format(first.headers["etag"])}
    again = await front_end.client.get("/", headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    other = await front_end.client.get("/page/main.js", headers=known)
    assert other.status_code == 200


async def test_whoever_reaches_the_server_gets_it_and_nothing_else(front_end: Any) -> None:
    """It holds nothing of anybody's, and is what asks for the key."""
    await holder(front_end)
    for headers in ({}, {"Host": "lift.example.com"}, {"X-Forwarded-For": "192.0.2.7"}):
        assert (await front_end.client.get("/", headers=headers)).status_code == 200
        assert (await front_end.client.get("/v1/documents", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/index.html",
        "/page/docs.html",
        "/redoc",
        "/page/__init__.py",
        "/page/%2e%2e/app.py",
        "/index.html",
        "/favicon.ico",
    ],
)
async def test_any_other_path_is_unknown_as_before(front_end: Any, path: str) -> None:
    answer = await front_end.client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "content-security-policy" not in answer.headers


async def test_it_is_only_read(front_end: Any) -> None:
    answer = await front_end.client.post("/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD"]


async def test_its_headers_alone_may_be_asked_for(front_end: Any) -> None:
    head, answer = await front_end.client.head("/"), await front_end.client.get("/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == answer.headers["etag"]
    assert head.headers["content-length"] == str(len(answer.content))


def test_every_file_is_named_by_another_and_every_name_is_a_file() -> None:
    named = {f"/page/{a or b}" for path in OWN_FILES for a, b in NAMED.findall(text_of(path))}
    assert named | {"/", "/docs"} == set(FILES)
    assert 'href="docs"' in text_of("/")


def test_all_of_the_folder_is_served() -> None:
    pages = {path: name for name, path in PAGES.items()}
    served = {pages.get(path, path.removeprefix("/page/")) for path in OWN_FILES}
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} - {"__init__.py"} == served


@pytest.mark.parametrize("path", list(OWN_FILES))
def test_nothing_inline_nothing_from_elsewhere_no_markup_from_text(path: str) -> None:
    text = text_of(path)
    assert set(ADDRESS.findall(text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|localStorage|\.cookie", text)
    assert not re.search(r"<style|<script(?![^>]* src=)|\son\w+=|\sstyle=", text)


@pytest.mark.parametrize("path", [path for path in OWN_FILES if path.endswith((".js", ".css"))])
def test_files_are_short_and_begin_with_what_they_do(path: str) -> None:
    text = text_of(path)
    assert text.startswith("// " if path.endswith(".js") else "/* ")
    assert (text.count("\n") <= 300, max(map(len, text.splitlines())) <= 120) == (True, True)
