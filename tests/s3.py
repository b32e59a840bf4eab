"""A stand-in for S3: objects in memory, over HTTP as obstore asks for them; told to, it refuses or says nothing.

In: `Trouble` for each request, by method and key. Out: what S3 says. One process, no checks of signatures.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

BUCKET = "bucket"
HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"


class Trouble(Enum):
    REFUSED = auto()  # rights that do not suffice: 403
    HANGS = auto()


Meets = Callable[[str, str], Trouble | None]  # method and key


def nothing(_method: str, _key: str) -> None:
    return


def writes(trouble: Trouble, where: str = "") -> Meets:
    """Everything that changes keys which begin so; reads are answered."""
    return lambda method, key: trouble if method in ("PUT", "POST", "DELETE") and key.startswith(where) else None


class FakeS3:
    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.meets: Meets = nothing
        self.hanging = asyncio.Event()  # a request was left without an answer
        self._go_on = asyncio.Event()

    @property
    def environment(self) -> dict[str, str]:
        """By which obstore finds it for an `s3://` URL."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "any",
        }

    def take(self, folder: Path) -> None:
        """What lies in a store's folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self._put(str(path.relative_to(folder)), path.read_bytes(), is_new=False)

    def recover(self) -> None:
        self.meets = nothing

    async def answer(self, request: web.Request) -> web.Response:
        key = request.match_info["key"].removeprefix("/")
        if (trouble := self.meets(request.method, key)) is Trouble.HANGS:
            self.hanging.set()
            await self._go_on.wait()
        if trouble:
            return web.Response(status=403)
        if request.method == "PUT":
            return self._put(key, await request.read(), is_new="If-None-Match" in request.headers)
        if request.method == "POST":
            return self._delete(await request.text())
        return self._list(request.query.get("prefix", "")) if not key else self._get(key)

    def end(self) -> None:
        self._go_on.set()

    def _put(self, key: str, content: bytes, *, is_new: bool) -> web.Response:
        if is_new and key in self.objects:
            return web.Response(status=412)
        self.objects[key] = (content, datetime.now(UTC))
        return web.Response(headers={"ETag": _tag(content)})

    def _get(self, key: str) -> web.Response:
        if key not in self.objects:
            return web.Response(status=404)
        content, written = self.objects[key]
        return web.Response(body=content, headers={"ETag": _tag(content), "Last-Modified": written.strftime(HTTP_DATE)})

    def _delete(self, wanted: str) -> web.Response:
        keys = [found.text or "" for found in ElementTree.fromstring(wanted).iter() if found.tag.endswith("Key")]
        for key in keys:
            self.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return web.Response(text=f"<DeleteResult>{deleted}</DeleteResult>", content_type="application/xml")

    def _list(self, prefix: str) -> web.Response:
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{written.isoformat()}</LastModified>"
            f"<ETag>{escape(_tag(content))}</ETag><Size>{len(content)}</Size></Contents>"
            for key, (content, written) in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")


@asynccontextmanager
async def serving() -> AsyncIterator[FakeS3]:
    """As long as the block lasts."""
    s3 = FakeS3()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", f"/{BUCKET}{{key:.*}}", s3.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    s3.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield s3
    finally:
        s3.end()
        await runner.cleanup()


def _tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'
