"""Several documents chosen on the page and asked as one: a set, with the stand-in engine and worker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Page, expect
from tests.browser.conftest import Open, violations
from tests.browser.steps import QUESTION, answers, ask, delete
from tests.browser.test_journey import run
from tests.browser.test_looks import LONG, LOOKS, fits, tab_to

TEXTS = {
    "Log": "The keeper's dog is called Brisket.",
    "Harbour": "The harbour of Lund has two cranes.",
    "Tides": "The tide at Varn Point rises by nine feet.",
}


async def uploaded(page: Page, front_end: Any, *titles: str) -> dict[str, str]:
    """Their ids by title, shown in the list."""
    ids = {title: (await front_end.upload(TEXTS[title], title=title))["id"] for title in titles}
    await page.reload()
    await expect(page.locator(".list li")).to_have_count(len(titles))
    return ids


async def chosen_together(page: Page, *titles: str) -> None:
    for title in titles:
        await page.get_by_role("checkbox", name=f"Choose {title}").check()
    await page.get_by_role("button", name="Ask them together").click()


async def documents(front_end: Any) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await front_end.client.get("/v1/documents")).json()["data"]
    return listed


async def test_chosen_documents_are_learned_and_asked_as_one(
    page: Page, front_end: Any, worker: Any, engine: Any
) -> None:
    ids = await uploaded(page, front_end, "Log", "Harbour", "Tides")
    group = page.get_by_role("group", name="Chosen documents")
    await expect(group).to_be_hidden()
    await page.get_by_role("checkbox", name="Choose Log").check()
    await expect(group).to_contain_text("1 document chosen. Choose one more to ask them together.")
    await expect(group.get_by_role("button", name="Ask them together")).to_be_disabled()
    await page.get_by_role("checkbox", name="Choose Harbour").check()
    await expect(page.get_by_role("status")).to_have_text("2 documents chosen.")
    await expect(group).to_contain_text("work of its own")
    assert await violations(page) == []
    await group.get_by_role("button", name="Ask them together").click()
    await expect(page.get_by_role("heading", name="Harbour; Log")).to_be_focused()
    await expect(group).to_be_hidden()
    await expect(page.locator("input.choice:checked")).to_have_count(0)
    made = (await documents(front_end))[0]
    assert sorted(made["document_ids"]) == sorted([ids["Log"], ids["Harbour"]])
    first = page.locator(".list li").first
    await expect(first.locator(".facts")).to_contain_text("2 documents as one")
    await expect(first.get_by_role("checkbox")).to_have_count(0)  # no set of sets
    members = page.get_by_role("list", name="Made of these documents, and learned as work of its own:")
    await expect(members.get_by_role("link")).to_have_text(["Harbour", "Log"])
    await expect(page.locator(".document .chip")).to_have_text("Waiting")

    await page.get_by_text("Adapter", exact=True).click()
    await ask(page, QUESTION)
    await expect(answers(page)).to_contain_text("Waiting until it is learned …")
    await worker.train()
    await expect(answers(page).locator(".source")).to_contain_text("What it learned, version 1")
    rows = [text.split("\n")[0] for text in await answers(page).get_by_role("row").all_inner_texts()]
    assert "Waiting for training" in rows
    assert engine.asked[-1]["model"] == (await documents(front_end))[0]["adapter"]["id"]
    assert await violations(page) == []
    await members.get_by_role("link", name="Log").click()
    await expect(page.get_by_role("heading", name="Log", exact=True)).to_be_visible()


async def test_the_same_ones_are_the_same_set_until_it_failed(page: Page, front_end: Any, worker: Any) -> None:
    await uploaded(page, front_end, "Log", "Harbour", "Tides")
    await chosen_together(page, "Log", "Harbour")
    await expect(page.get_by_role("heading", name="Harbour; Log")).to_be_focused()
    address = page.url
    await chosen_together(page, "Harbour", "Tides")
    await expect(page.get_by_role("heading", name="Harbour; Tides")).to_be_focused()
    await chosen_together(page, "Harbour", "Log")
    await expect(page.get_by_role("heading", name="Harbour; Log")).to_be_focused()
    assert page.url == address
    assert len(await documents(front_end)) == 5
    await page.get_by_role("button", name="Stop learning").click()
    await expect(page.locator(".document .chip")).to_have_text("Stopped")
    await chosen_together(page, "Harbour", "Log")
    await expect(page.locator(".document .chip")).to_have_text("Waiting")
    assert page.url != address


async def test_what_is_chosen_stays_so_when_the_list_is_loaded_anew(page: Page, front_end: Any) -> None:
    ids = await uploaded(page, front_end, "Log", "Harbour")
    box = page.get_by_role("checkbox", name="Choose Log")
    await box.focus()
    await page.keyboard.press("Space")
    await front_end.client.delete(f"/v1/documents/{ids['Harbour']}")
    await page.evaluate("document.querySelector('#key-button').click()")
    await page.get_by_role("button", name="Use this key").click()  # none: the list is loaded anew
    await expect(page.locator(".list li")).to_have_count(1)
    await expect(box).to_be_checked()
    await page.get_by_role("button", name="Choose none").click()
    await expect(box).not_to_be_checked()
    await expect(box).to_be_focused()


async def test_a_refusal_is_shown_and_the_choice_stays(page: Page, front_end: Any) -> None:
    await uploaded(page, front_end, "Log", "Harbour")
    uploads = "**/v1/documents"
    refused = {"error": {"message": "Too many documents.", "type": "x", "param": None, "code": "limit_reached"}}
    await page.route(uploads, lambda route: route.fulfill(status=429, body=json.dumps(refused)), times=1)
    await chosen_together(page, "Log", "Harbour")
    group = page.get_by_role("group", name="Chosen documents")
    await expect(group.get_by_role("alert")).to_contain_text("Too many documents.")
    assert await violations(page) == []
    await group.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("heading", name="Harbour; Log")).to_be_focused()


async def test_a_set_goes_with_its_document_and_its_documents_stay(page: Page, front_end: Any) -> None:
    ids = await uploaded(page, front_end, "Log", "Harbour")
    await chosen_together(page, "Log", "Harbour")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.get_by_role("dialog")).to_contain_text("its documents stay")
    await page.get_by_role("button", name="Delete it").click()
    await expect(page.locator(".list .name")).to_have_text(["Harbour", "Log"])
    await chosen_together(page, "Log", "Harbour")
    await expect(page.locator(".list .name")).to_have_text(["Harbour; Log", "Harbour", "Log"])
    await page.goto(f"{front_end.url}/#{ids['Log']}")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.get_by_role("dialog")).to_contain_text("what it was asked together as: “Harbour; Log”.")
    await page.keyboard.press("Enter")
    await delete(page)
    await expect(page.locator(".list .name")).to_have_text(["Harbour"])
    assert [one["title"] for one in await documents(front_end)] == ["Harbour"]


async def test_the_code_shown_makes_and_asks_the_set(page: Page, front_end: Any, worker: Any, tmp_path: Any) -> None:
    await uploaded(page, front_end, "Log", "Harbour")
    await chosen_together(page, "Log", "Harbour")
    await expect(page.get_by_role("heading", name="Harbour; Log")).to_be_focused()
    await worker.train()
    await expect(page.locator(".document .chip")).to_have_text("Ready")
    await expect(page.get_by_text("Code that uploads this document")).to_be_hidden()
    await page.get_by_text("Code that makes this set").click()
    await ask(page, QUESTION)
    await answers(page).get_by_text("Code that asks this").click()
    blocks = page.locator(".code pre:visible")
    await expect(blocks).to_have_count(4)
    ran = [await run(code, at % 2 == 1, tmp_path) for at, code in enumerate(await blocks.all_inner_texts())]
    assert '"status":"ready"' in ran[0].replace(" ", "")  # the one training
    assert ran[1].endswith(" ready\n")
    assert '" 42."' in ran[2]
    assert "'document_ids': ['doc_" in ran[3]
    assert [one["title"] for one in await documents(front_end)][:3] == ["Harbour; Log"] * 3
    async with page.expect_download() as started:
        await page.get_by_role("button", name="Download text").click()
    text = (await (await started.value).path()).read_text()
    assert all(TEXTS[title] in text for title in ("Log", "Harbour"))


async def test_older_documents_can_be_reached_after_an_upload(page: Page, front_end: Any) -> None:
    for number in range(22):
        await front_end.upload(f"The harbour of Lund has {number} cranes.", title=f"Number {number}")
    await page.reload()
    await page.get_by_role("button", name="Try it with an example").click()
    await expect(page.locator(".list li")).to_have_count(21)
    await page.get_by_role("button", name="Show older ones").click()
    await expect(page.locator(".list li")).to_have_count(23)
    await expect(page.get_by_role("button", name="Show older ones")).to_be_hidden()


async def test_by_keyboard(page: Page, front_end: Any) -> None:
    await uploaded(page, front_end, "Log", "Harbour")
    for title in ("Harbour", "Log"):
        await tab_to(page, page.get_by_role("checkbox", name=f"Choose {title}"))
        await page.keyboard.press("Space")
    await tab_to(page, page.get_by_role("button", name="Ask them together"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Harbour; Log")).to_be_focused()


@pytest.mark.parametrize("look", LOOKS)
async def test_everything_fits_and_axe_finds_nothing(open_page: Open, front_end: Any, worker: Any, look: str) -> None:
    page = await open_page(**LOOKS[look])
    for title in (LONG, f"{LONG}2"):
        await front_end.upload(f"The harbour of {title} has two cranes.", title=title)
    await page.reload()
    await expect(page.locator(".list li")).to_have_count(2)
    for box in await page.get_by_role("checkbox").all():
        await box.check()
    await fits(page)
    await page.get_by_role("button", name="Ask them together").click()
    await expect(page.locator(".members")).to_be_visible()
    await page.get_by_text("Code that makes this set").click()
    await fits(page)
