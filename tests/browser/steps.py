"""What a person does on the page, step by step: the same with the stand-ins and with the real server behind it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from playwright.async_api import Page, expect
from tests.browser.conftest import PATIENCE_MS, violations

TEXT = "The keeper's dog is called Brisket. Its lamp burns rapeseed oil."
QUESTION = "What is the dog's name?"

# Each piece of an answer as it comes into the page.
PIECES = """() => {
  window.pieces = [];
  const told = (one) => one.target.className === "said" && window.pieces.push(...one.addedNodes);
  new MutationObserver((changes) => changes.forEach(told)).observe(document, { childList: true, subtree: true });
}"""
DROP = """(files) => {
  const dataTransfer = new DataTransfer();
  for (const [name, text] of files) dataTransfer.items.add(new File([text], name));
  document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
}"""


def answers(page: Page) -> Any:
    return page.get_by_role("article", name="Answer")


async def ask(page: Page, question: str) -> None:
    await page.get_by_label("Your question").fill(question)
    await page.get_by_role("button", name="Ask", exact=True).click()


async def drop_file(page: Page, name: str, text: str) -> None:
    await drop_files(page, (name, text))


async def drop_files(page: Page, *files: tuple[str, str]) -> None:
    """Each a name and a text, let go together."""
    await page.evaluate(DROP, files)


async def delete(page: Page) -> None:
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete it").click()


async def whole_journey(
    page: Page, title: str, watched: asyncio.Event, *, learned_ms: int = PATIENCE_MS, told_ms: int = PATIENCE_MS
) -> None:
    """From a file to its deletion; how long learning and an answer may take differs between servers. `watched` is set
    once the learning was looked at."""
    await page.get_by_label("Title").fill(title)
    await drop_file(page, "log.md", TEXT)
    await expect(page.get_by_role("heading", name=title)).to_be_focused()
    await is_being_learned(page, learned_ms)
    watched.set()
    await is_learned(page, learned_ms)
    await is_answered(page, told_ms)
    await is_compared(page, told_ms)
    await delete(page)
    await expect(page.get_by_role("heading", name="Your documents")).to_be_focused()
    await expect(page.get_by_role("link", name=title)).to_have_count(0)


async def is_being_learned(page: Page, within_ms: int) -> None:
    await expect(first_task(page)).to_be_visible(timeout=within_ms)
    await expect(page.get_by_role("progressbar")).to_be_visible()
    assert await violations(page) == []


def first_task(page: Page) -> Any:
    return page.get_by_role("list", name="Newest practice questions").get_by_role("listitem").first


async def is_learned(page: Page, within_ms: int) -> None:
    """What it was learned with stays."""
    chip = page.locator(".document .chip")
    await expect(chip).to_have_text(re.compile("^Ready"), timeout=within_ms)
    await expect(chip).to_have_text("Ready", timeout=within_ms)
    await page.get_by_text("How it was learned").click()
    await expect(page.get_by_role("group", name="Versions").get_by_role("row").nth(1)).to_be_visible()
    await expect(page.get_by_role("img", name=re.compile(r"^Loss: \d+\.\d\d at step \d+, "))).to_be_visible()
    await expect(first_task(page)).to_be_visible()


async def is_answered(page: Page, within_ms: int) -> None:
    """The answer comes piece by piece, and then says where its time went."""
    await page.evaluate(PIECES)
    await ask(page, QUESTION)
    answer = answers(page).first
    await expect(answer).to_have_attribute("aria-busy", "false", timeout=within_ms)
    await expect(answer.locator(".source")).to_contain_text(re.compile(r"^What it learned, version \d · first token"))
    assert await page.evaluate("window.pieces.length") > 1
    rows = answer.get_by_role("table").get_by_role("row")
    names = [text.split("\n")[0] for text in await rows.all_inner_texts()]
    assert names[1:] == ["Finding the document", "Loading the adapter", "Reading the prompt", "First token"]
    await answer.get_by_text("Code that asks this").click()
    await expect(answer.locator(".code pre").first).to_contain_text("/v1/chat/completions")
    assert await violations(page) == []


async def is_compared(page: Page, within_ms: int) -> None:
    await page.get_by_label("Your question").fill(QUESTION)
    await page.get_by_role("button", name="Compare").click()
    sources = page.locator(".comparison .source")
    await expect(sources).to_have_count(3, timeout=3 * within_ms)
    told = [text.partition(" ·")[0].partition(", version")[0] for text in await sources.all_inner_texts()]
    assert told == ["The text in the prompt", "What it learned", "What it learned, and the text"]
    assert await page.locator(".comparison .waterfall").count() == 3
    assert await violations(page) == []
