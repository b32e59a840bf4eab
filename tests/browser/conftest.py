"""A headless Chromium, one for the run, and pages in it of the front end with the stand-in engine and worker.

A test has an event loop of its own and a browser's connection belongs to one, so each connects
anew to the same process.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from tests.lift_server.conftest import FrontEnd, engine, front_end, start, store, worker

__all__ = ["engine", "front_end", "start", "store", "worker"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip
TOLD = "DevTools listening on "
PATIENCE_MS = 5000

Open = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it can be reached."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium (Debian, Ubuntu: apt-get install chromium)")
    command = [program, *FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield next(line.removeprefix(TOLD).strip() for line in process.stderr if line.startswith(TOLD))
        process.terminate()


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium)
        yield browser
        await browser.close()


class Complaints:
    """What a page must never do: fail in its own code, be stopped by its policy, ask anybody but its own server."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.found: list[str] = []
        context.on("weberror", lambda failed: self.found.append(str(failed.error)))
        context.on("console", self._said)
        context.on("request", lambda asked: self._asked(asked.url, url))

    def _said(self, message: Any) -> None:
        is_network = "Failed to load resource" in message.text  # the browser's own word for a status above 400
        if message.type in ("error", "warning") and not is_network:
            self.found.append(message.text)

    def _asked(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "blob:", "data:")):
            self.found.append(f"asked {asked}")


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Open]:
    """A server's page as it opens, in a profile of its own; options as Playwright's `new_context` takes them."""
    watched: list[Complaints] = []

    async def opened(url: str, path: str = "/", **options: Any) -> Page:
        context = await browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        watched.append(Complaints(context, url))
        page = await context.new_page()
        await page.goto(url + path)
        return page

    yield opened
    assert [found for one in watched for found in one.found] == []


@pytest.fixture
async def open_page(visit: Open, front_end: FrontEnd) -> Open:
    return partial(visit, front_end.url)


@pytest.fixture
async def page(open_page: Open) -> Page:
    return await open_page()


async def violations(page: Page) -> list[str]:
    """Axe's, of the page as it is now."""
    await page.evaluate(AXE_FILE_PATH.read_text("utf-8"))
    found = await page.evaluate("axe.run()")
    return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in found["violations"]]
