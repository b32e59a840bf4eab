"""Takes the README's pictures of the page: a running server → docs/images/page.png and page-phone.png.

`scripts/page_pictures.py http://127.0.0.1:8000`. Uploads the page's own example, asks and compares. Needs Chromium.
Pillow, which reduces the colours, comes with matplotlib.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
QUESTION = "Who built the lighthouse at Varn Point?"
LEARNED_MS = 3_600_000
LEARNED = re.compile("^Ready$")  # "Ready, still learning" comes before
COLOURS = 256


async def take(url: str, folder: Path, program: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        await desktop(browser, url, folder / "page.png")
        await phone(browser, url, folder / "page-phone.png")
        await browser.close()


async def desktop(browser: Browser, url: str, file: Path) -> None:
    """One question, three ways."""
    page = await browser.new_page(viewport={"width": 1280, "height": 1480})
    await page.goto(url)
    await page.get_by_role("button", name="Try it with an example").click()
    await page.locator(".document .chip", has_text=LEARNED).wait_for(timeout=LEARNED_MS)
    await asked(page, "Compare", answers=3)
    await page.evaluate("scrollTo(0, 0)")
    await shoot(page, file)


async def phone(browser: Browser, url: str, file: Path) -> None:
    """A conversation, in the dark."""
    page = await browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    await page.goto(url)
    await page.locator(".list a").first.click()
    await asked(page, "Ask", answers=1)
    await shoot(page, file)


async def asked(page: Page, how: str, answers: int) -> None:
    await page.get_by_label("Your question").fill(QUESTION)
    await page.get_by_role("button", name=how, exact=True).click()
    await page.locator(".source").nth(answers - 1).wait_for(timeout=LEARNED_MS)


async def shoot(page: Page, file: Path) -> None:
    await page.evaluate("document.activeElement.blur()")
    await page.screenshot(path=file)
    Image.open(file).convert("RGB").quantize(COLOURS).save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the README's pictures of the page.")
    parser.add_argument("url", help="of a running server")
    program = shutil.which("chromium")
    if program is None:
        parser.error("needs Chromium (Debian, Ubuntu: apt-get install chromium)")
    FOLDER.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(parser.parse_args().url, FOLDER, program))


if __name__ == "__main__":
    main()
