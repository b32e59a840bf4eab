"""The page on a phone, in the dark, without a mouse, without motion."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page, expect
from tests.browser.conftest import Open, violations
from tests.browser.steps import QUESTION, TEXT, answers, ask
from tests.browser.test_journey import open_ready
from tests.lift_server.holders import holder

LONG = "Donaudampfschifffahrtsgesellschaft" * 4
LOOKS: dict[str, dict[str, Any]] = {
    "phone": {"viewport": {"width": 320, "height": 640}, "has_touch": True},
    "phone, dark": {"viewport": {"width": 320, "height": 640}, "color_scheme": "dark"},
    "desktop, dark": {"color_scheme": "dark"},
}


@pytest.mark.parametrize("look", LOOKS)
async def test_everything_fits_and_axe_finds_nothing(
    open_page: Open, front_end: Any, worker: Any, engine: Any, look: str
) -> None:
    engine.words = [LONG, " and more."]
    page = await open_page(**LOOKS[look])
    await fits(page)
    await open_ready(page, front_end, worker, (LONG, LONG), title=LONG)
    await ask(page, LONG)
    await answers(page).get_by_text("Code that asks this").click()
    await page.get_by_text("How it was learned").click()
    await fits(page)
    await page.get_by_label("Your question").fill(QUESTION)
    await page.get_by_role("button", name="Compare").click()
    await expect(page.locator(".comparison .source")).to_have_count(3)
    await page.get_by_role("button", name="API key").click()
    await fits(page)


@pytest.mark.parametrize("look", LOOKS)
async def test_a_new_key_fits(open_page: Open, front_end: Any, look: str) -> None:
    mine = await holder(front_end, requests_per_minute=100)
    page = await open_page(**LOOKS[look])
    await page.get_by_label("Key", exact=True).fill(mine.secret)
    await page.get_by_role("button", name="Use this key").click()
    await page.get_by_role("button", name="API key: in use").click()
    await page.get_by_role("button", name="Replace this key").click()
    await page.get_by_role("button", name="Replace it").click()
    await expect(page.get_by_role("button", name="Copy the new key")).to_be_visible()
    await fits(page)


async def fits(page: Page) -> None:
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) <= 0
    assert await violations(page) == []


async def test_colours_follow_the_reader(open_page: Open) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    shown = [await (await open_page(color_scheme=scheme)).evaluate(ground) for scheme in ("light", "dark")]
    assert shown == ["rgb(246, 245, 241)", "rgb(19, 22, 21)"]


async def test_nothing_moves_where_that_is_not_wanted(open_page: Open, front_end: Any, worker: Any) -> None:
    await front_end.upload(TEXT)
    await worker.claim(await worker.newest_job())
    running = "document.getAnimations().filter((one) => one.playState === 'running').length"
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page = await open_page(reduced_motion=motion)
        await expect(page.locator(".list .chip")).to_have_text("Learning")
        assert (await page.evaluate(running) > 0) is moves


async def test_all_of_it_by_keyboard(page: Page, front_end: Any, worker: Any) -> None:
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the document")).to_be_focused()
    await tab_to(page, page.get_by_label("Title"))
    await page.keyboard.type("Orvel")
    await tab_to(page, page.get_by_text("Paste text instead"))
    await page.keyboard.press("Enter")
    await tab_to(page, page.get_by_label("Text", exact=True))
    await page.keyboard.type(TEXT)
    await tab_to(page, page.get_by_role("button", name="Learn this text"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Orvel")).to_be_focused()
    await worker.tell(await worker.newest_job(), *[(QUESTION, TEXT)] * 12)
    await worker.train()
    await tab_to(page, page.get_by_text("How it was learned"))
    await page.keyboard.press("Enter")
    await tab_to(page, tasks := page.get_by_role("list", name="Newest practice questions"))
    await page.keyboard.press("End")
    await expect(tasks.get_by_role("listitem").last).to_be_in_viewport()
    await tab_to(page, page.get_by_label("Your question"))
    await page.keyboard.type(QUESTION)
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("Please.")
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("radio", name="Context")).to_be_checked()
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Enter")
    await expect(answers(page).locator(".source")).to_contain_text("The text in the prompt")
    await expect(page.locator(".question")).to_contain_text(f"{QUESTION}\nPlease.")
    await expect(page.get_by_label("Your question")).to_be_focused()
    await tab_to(page, page.get_by_role("button", name="Delete", exact=True), back=True)
    await page.keyboard.press("Enter")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_role("button", name="Delete", exact=True)).to_be_focused()


async def tab_to(page: Page, wanted: Any, *, back: bool = False) -> None:
    """Every stop on the way shows that the focus is there."""
    for _ in range(25):
        await page.keyboard.press("Shift+Tab" if back else "Tab")
        if await page.evaluate(OUTLINED) == "none":
            raise AssertionError(await page.evaluate("document.activeElement.outerHTML"))
        if await wanted.evaluate("(one) => one === document.activeElement"):
            return
    raise AssertionError(f"{wanted} is out of reach")


# Of the focused element, or of the one that stands for it where it is itself unseen.
OUTLINED = """(() => {
  const one = document.activeElement;
  if (one === document.body) return "the browser's own";
  const seen = !one.classList.contains("unseen") ? one : one.closest(".drop") ?? one.nextElementSibling;
  return getComputedStyle(seen).outlineStyle;
})()"""
