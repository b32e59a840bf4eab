"""The page's files: HTML, CSS and JavaScript as they lie beside this one → what a browser gets, by path, read once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

INDEX = "index.html"  # it is at `/`; what it names is below /page/
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


def _read(path: Path) -> File:
    body = path.read_bytes()
    return File(body, KINDS[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


FILES = {
    "/" if path.name == INDEX else f"/page/{path.name}": _read(path)
    for path in sorted(Path(__file__).parent.iterdir())
    if path.suffix in KINDS
}
