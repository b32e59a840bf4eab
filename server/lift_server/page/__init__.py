"""The files of the page and of the API's description: HTML, CSS and JavaScript as they lie beside this one, Swagger UI
as it lies in its package → what a browser gets, by path, read once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

PAGES = {"index.html": "/", "docs.html": "/docs"}  # what they name is below /page/
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class File:
    body: bytes
    kind: str
    etag: str


def _read(path: Traversable) -> File:
    body = path.read_bytes()
    return File(body, KINDS[Path(path.name).suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


OWN_FILES = {
    PAGES.get(path.name, f"/page/{path.name}"): _read(path)
    for path in sorted(Path(__file__).parent.iterdir())
    if path.suffix in KINDS
}
SWAGGER_UI = {
    f"/page/{name}": _read(files("fastapi_swagger.resources") / name)
    for name in ("swagger-ui.css", "swagger-ui-bundle.js")
}
FILES = OWN_FILES | SWAGGER_UI
