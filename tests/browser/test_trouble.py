"""What the page does where the server refuses, is away, wants a key, or has hostile words for it."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page, expect
from tests.browser.conftest import violations
from tests.browser.steps import QUESTION, TEXT, answers, ask, drop_files
from tests.browser.test_journey import open_ready
from tests.lift_server.holders import holder, keys_of

HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"""


async def test_a_refusal_is_shown_in_the_servers_words_and_nothing_is_lost(page: Page, front_end: Any) -> None:
    await page.get_by_text("Paste text instead").click()
    await page.get_by_label("Text", exact=True).fill("Hm")
    await page.get_by_role("button", name="Learn this text").click()
    refused = await front_end.client.post("/v1/documents", json={"text": "Hm"})
    await expect(page.get_by_role("alert")).to_contain_text(refused.json()["error"]["message"])
    await expect(page.get_by_label("Text", exact=True)).to_have_value("Hm")
    assert await violations(page) == []


async def test_of_several_files_those_refused_are_listed_and_the_others_sent(page: Page, front_end: Any) -> None:
    """What says nothing of one file, here a lost connection, is tried again from there on."""
    uploads = "**/v1/documents"
    await drop_files(page, ("logo.gif", "GIF89a"), ("a.txt", TEXT + " A."), ("empty.txt", ""), ("b.txt", TEXT + " B."))
    refused, names = page.locator(".refused").get_by_role("alert"), page.locator(".list .name")
    await expect(names).to_have_text(["b.txt", "a.txt"])
    await expect(refused).to_have_count(2)
    await expect(refused.nth(0)).to_contain_text("logo.gif: ")
    await expect(refused.nth(1)).to_contain_text("empty.txt: ")
    await expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    assert await violations(page) == []
    await page.route(uploads, lambda route: route.abort(), times=1)
    await drop_files(page, ("c.txt", TEXT + " C."), ("empty.txt", ""))
    await expect(refused).to_have_count(0)
    await page.get_by_role("button", name="Try again").click()
    await expect(names).to_have_text(["c.txt", "b.txt", "a.txt"])
    await expect(refused).to_have_count(1)


async def test_a_lost_connection_is_said_and_can_be_tried_again(page: Page, front_end: Any, worker: Any) -> None:
    await open_ready(page, front_end, worker)
    questions = "**/v1/chat/completions"
    await page.route(questions, lambda route: route.abort())
    await ask(page, QUESTION)
    lost = page.get_by_role("alert").filter(has_text="No connection to the server.")
    await expect(lost).to_be_visible()
    await page.get_by_label("Your question").fill("typed meanwhile")
    await page.unroute(questions)
    await lost.get_by_role("button", name="Try again").click()
    await expect(answers(page).locator(".said")).to_have_text("The answer is 42.")
    await expect(page.get_by_label("Your question")).to_have_value("typed meanwhile")


async def test_watching_goes_on_by_itself_after_a_lost_connection(page: Page, front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    await page.route("**/events**", lambda route: route.abort(), times=1)
    await page.goto(f"{front_end.url}/#{document['id']}")
    await expect(page.get_by_role("alert").filter(has_text="No connection")).to_be_visible()
    await worker.train()
    await expect(page.locator(".document .chip")).to_have_text("Ready")
    await expect(page.get_by_role("alert").filter(has_text="No connection")).to_have_count(0)


async def test_an_error_within_a_stream_and_a_failed_training(
    page: Page, front_end: Any, worker: Any, engine: Any
) -> None:
    await open_ready(page, front_end, worker)
    engine.stream_error = {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}
    await ask(page, QUESTION)
    await expect(answers(page).get_by_role("alert")).to_be_visible()
    await expect(answers(page).locator(".said")).to_have_text("The answer is 42.")  # what was there stays
    document = await front_end.upload("The harbour of Lund has two cranes.")
    await worker.fail(await worker.newest_job(), "no usable task came of it")
    await page.goto(f"{front_end.url}/#{document['id']}")
    await expect(page.get_by_role("alert")).to_have_text("no usable task came of it (no_tasks)")
    assert await violations(page) == []


async def test_a_document_that_is_gone(page: Page, front_end: Any) -> None:
    await page.goto(f"{front_end.url}/#doc_{'0' * 24}")
    await page.reload()
    await expect(page.get_by_role("heading", name="Ask a document")).to_be_visible()
    document = await front_end.upload(TEXT)
    await page.goto(f"{front_end.url}/#{document['id']}")
    await expect(page.get_by_role("heading", name="Untitled")).to_be_visible()
    await front_end.client.delete(f"/v1/documents/{document['id']}")  # by somebody else
    await expect(page.get_by_role("heading", name="Ask a document")).to_be_visible()


async def test_hostile_words_stay_words(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    engine.words = [HOSTILE, f" {HOSTILE}"]
    await open_ready(page, front_end, worker, (HOSTILE, HOSTILE), title=HOSTILE)
    await ask(page, HOSTILE)
    await expect(answers(page).locator(".said")).to_have_text(f"{HOSTILE} {HOSTILE}")
    await page.get_by_text("How it was learned").click()
    await expect(page.get_by_role("list", name="Newest practice questions")).to_contain_text(HOSTILE)
    await page.get_by_text("Code that uploads this document").click()
    await answers(page).get_by_text("Code that asks this").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
    made = await page.evaluate("document.querySelectorAll('img[src=x], body script').length")
    assert (made, await page.evaluate("window.hacked")) == (0, None)


async def test_the_key_is_asked_for_kept_for_the_tab_and_never_shown(page: Page, front_end: Any, worker: Any) -> None:
    mine = await holder(front_end)
    await mine.upload(TEXT, title="Orvel")
    await worker.train()
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    await page.reload()
    dialog, field = page.get_by_role("dialog"), page.get_by_label("Key", exact=True)
    await expect(dialog).to_contain_text("You didn't provide an API key.")
    assert await violations(page) == []
    await field.fill("sk-lift-wrong")
    await page.keyboard.press("Enter")
    await expect(dialog).to_contain_text("Incorrect API key provided.")
    await field.fill(mine.secret)
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Orvel").click()
    await ask(page, QUESTION)
    await answers(page).get_by_text("Code that asks this").click()
    await expect(page.locator(".code pre").first).to_contain_text("Bearer $LIFT_API_KEY")
    assert mine.secret not in await page.content() + "".join(addresses)
    kept = "[Object.values(sessionStorage), localStorage.length, document.cookie]"
    assert await page.evaluate(kept) == [[mine.secret], 0, ""]
    other = await page.context.new_page()
    await other.goto(front_end.url)
    await expect(other.get_by_role("dialog")).to_contain_text("You didn't provide an API key.")


async def test_a_key_is_told_whose_it_is_what_it_may_and_has_used(page: Page, front_end: Any) -> None:
    mine = await holder(front_end, requests_per_minute=100, documents=7)
    await mine.upload(TEXT)
    await page.reload()
    await page.get_by_label("Key", exact=True).fill(mine.secret)
    await page.get_by_role("button", name="Use this key").click()
    await page.get_by_role("button", name="API key: in use").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text(f"In use: a name ({mine.record.id}), made ")
    rows = [text.split("\t") for text in await dialog.get_by_role("row").all_inner_texts()]
    assert (rows[0][0], rows[0][1].split()[1:]) == ("Requests this minute", ["of", "100"])
    assert rows[1:] == [
        ["Documents", "1 of 7"],
        ["Their size", f"{len(TEXT)} B, no limit"],
        ["Being learned", "1, no limit"],
    ]
    assert await violations(page) == []
    await keys_of(front_end).revoke(mine.record.id)
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="API key: in use").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("Incorrect API key provided.")
    await expect(dialog.get_by_role("row")).to_have_count(0)


async def shown_key(page: Page, front_end: Any, **limits: int) -> Any:
    """The dialog of a key in use, and its holder."""
    mine = await holder(front_end, **limits)
    await mine.upload(TEXT, title="Orvel")
    await page.reload()
    await page.get_by_label("Key", exact=True).fill(mine.secret)
    await page.get_by_role("button", name="Use this key").click()
    await expect(page.get_by_role("link", name="Orvel")).to_be_visible()
    await page.get_by_role("button", name="API key: in use").click()
    return mine


async def test_a_key_is_replaced_and_the_new_one_shown_once(page: Page, front_end: Any) -> None:
    mine = await shown_key(page, front_end)
    dialog = page.get_by_role("dialog", name="API key")
    await dialog.get_by_role("button", name="Replace this key").click()
    sure = page.get_by_role("dialog", name="Replace this key?")
    await expect(sure.get_by_role("button", name="Keep it")).to_be_focused()
    assert await violations(page) == []
    await page.keyboard.press("Escape")
    assert (await mine.get("/v1/keys/me")).status_code == 200
    await expect(dialog.get_by_role("button", name="Replace this key")).to_be_focused()
    await page.keyboard.press("Enter")
    await sure.get_by_role("button", name="Replace it").click()
    code = dialog.locator(".fresh code")
    await expect(code).to_be_focused()
    new = await code.inner_text()
    assert await violations(page) == []
    assert await page.evaluate("Object.values(sessionStorage)") == [new]
    assert (await mine.get("/v1/keys/me")).status_code == 401
    await dialog.get_by_role("button", name="Replace this key").click()  # too soon
    await sure.get_by_role("button", name="Replace it").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("1 new secret per hour")
    assert await code.inner_text() == new
    await page.get_by_role("button", name="Use this key").click()  # nothing is typed: the new one stays
    await expect(dialog).to_be_hidden()
    assert await page.evaluate("Object.values(sessionStorage)") == [new]
    assert new not in await page.content()
    await page.get_by_role("button", name="API key: in use").click()
    await expect(dialog).to_contain_text(f"({mine.record.id})")
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="Orvel").click()
    await expect(page.get_by_role("heading", name="Orvel")).to_be_visible()


async def test_a_key_is_revoked_and_forgotten(page: Page, front_end: Any) -> None:
    mine = await shown_key(page, front_end)
    await page.get_by_role("button", name="Revoke this key").click()
    await page.get_by_role("dialog", name="Revoke this key?").get_by_role("button", name="Revoke it").click()
    await expect(page.get_by_role("dialog", name="API key")).to_contain_text("You didn't provide an API key.")
    await expect(page.get_by_role("button", name="Revoke this key")).to_be_hidden()
    await expect(page.get_by_role("link", name="Orvel")).to_have_count(0)
    assert (await mine.get("/v1/keys/me")).status_code == 401
    assert await page.evaluate("sessionStorage.length") == 0


async def test_where_no_key_is_needed_that_is_said(page: Page) -> None:
    await page.get_by_role("button", name="API key").click()
    await expect(page.get_by_role("dialog")).to_contain_text("No key is needed")
    for name in ("Forget the key", "Replace this key", "Revoke this key"):
        await expect(page.get_by_role("button", name=name)).to_be_hidden()
    assert await violations(page) == []


async def test_from_elsewhere_without_keys_the_server_says_what_helps(page: Page) -> None:
    await page.context.set_extra_http_headers({"X-Forwarded-For": "192.0.2.7"})
    await page.reload()
    await expect(page.get_by_role("alert")).to_contain_text("run `lift-serve keys create NAME` there")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_revoked_key_shows_nothing_more(page: Page, front_end: Any) -> None:
    mine = await holder(front_end)
    await mine.upload(TEXT, title="Orvel")
    await page.reload()
    await page.get_by_label("Key", exact=True).fill(mine.secret)
    await page.get_by_role("button", name="Use this key").click()
    await page.get_by_role("link", name="Orvel").click()
    await expect(page.get_by_role("heading", name="Orvel")).to_be_visible()
    await keys_of(front_end).revoke(mine.record.id)
    await page.get_by_role("button", name="API key: in use").click()
    await page.get_by_role("button", name="Forget the key").click()
    await expect(page.get_by_role("link", name="Orvel")).to_have_count(0)
    await expect(page.get_by_role("heading", name="Orvel")).to_have_count(0)
