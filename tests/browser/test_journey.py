"""What a person does with the page, from an upload to its deletion, with the stand-in engine and worker."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect
from tests.browser.conftest import violations
from tests.browser.steps import QUESTION, TEXT, answers, ask, delete, drop_file


async def open_ready(
    page: Page, front_end: Any, worker: Any, task: tuple[str, str] = (QUESTION, "Brisket"), **fields: Any
) -> str:
    """The page of a document that was learned with this task."""
    document = await front_end.upload(TEXT, **fields)
    await worker.tell(await worker.newest_job(), task, losses=(3.0, 1.5, 1.0))
    await worker.train()
    await page.goto(f"{front_end.url}/#{document['id']}")
    await expect(page.locator(".document .chip")).to_have_text("Ready")
    return str(document["id"])


async def test_a_file_is_learned_before_ones_eyes(page: Page, worker: Any, tmp_path: Path) -> None:
    (tmp_path / "log.md").write_text(TEXT)
    await page.get_by_label("Title").fill("Station log")
    await page.get_by_label("Drop a document here").set_input_files(tmp_path / "log.md")
    await expect(page.get_by_role("heading", name="Station log")).to_be_focused()
    await expect(page.locator(".document .chip")).to_have_text("Waiting")
    await expect(page.get_by_label("Title")).to_have_value("")
    job = await worker.claim(await worker.newest_job())
    await expect(page.get_by_text("Training: 50 %, about 7 s left")).to_be_visible()
    await expect(page.get_by_text("3 segments · 12 tasks · 40 training steps")).to_be_visible()
    await expect(page.get_by_role("progressbar")).to_have_js_property("value", 0.5)
    await expect(page.get_by_role("listitem").filter(has_text="Training")).to_have_attribute("aria-current", "step")
    await expect(page.get_by_role("status")).to_have_text("Learning: Training")
    assert await violations(page) == []
    await worker.publish(job, "sketch")
    await expect(page.locator(".document .chip")).to_have_text("Ready, still learning")
    await worker.publish(await worker.job(job.key))
    await expect(page.locator(".document .chip")).to_have_text("Ready")
    await expect(page.locator(".list .chip")).to_have_text("Ready")
    await page.get_by_text("How it was learned").click()
    versions = await page.get_by_role("group", name="Versions").get_by_role("row").all_inner_texts()
    assert [row.split("\t")[1] for row in versions] == ["Recipe", "sketch", "balanced"]
    assert await violations(page) == []


async def test_tasks_and_loss_are_shown_as_they_come_and_stay(page: Page, front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    await page.goto(f"{front_end.url}/#{document['id']}")
    job = await worker.claim(await worker.newest_job())
    await expect(page.get_by_text("Training: 50 %")).to_be_visible()
    await expect(page.locator(".lessons")).to_be_hidden()
    await worker.tell(job, ("Whose dog is it?", "the keeper's"), losses=(3.0,))
    tasks = page.get_by_role("list", name="Newest practice questions")
    await expect(tasks).to_have_text("Question: Whose dog is it?Answer: the keeper's")
    await expect(page.get_by_role("img", name="Loss")).to_have_count(0)  # one point is no line
    told = ("Whose dog is it?", "the keeper's"), ("What burns in the lamp?", "rapeseed oil")
    await worker.tell(job, *told, losses=(3.0, 1.25, 1.5))
    await expect(tasks.get_by_role("listitem").first).to_contain_text("What burns in the lamp?")
    says = "Loss: 3.00 at step 1, 1.50 at step 3, the lowest was 1.25 at step 2."
    curve = page.get_by_role("img", name=says)
    await expect(curve).to_be_visible()
    await expect(page.get_by_text(says)).to_be_visible()
    points = await curve.locator("polyline").get_attribute("points")
    assert [tuple(map(float, point.split(","))) for point in points.split()] == [(4, 4), (200, 57.7), (396, 50)]
    assert await violations(page) == []
    await worker.publish(job)
    await expect(page.locator(".document .chip")).to_have_text("Ready")
    await expect(tasks).to_be_hidden()
    for _ in range(2):
        await page.get_by_text("How it was learned").click()
        await expect(tasks).to_be_visible()
        await expect(curve).to_be_visible()
        assert await violations(page) == []
        await page.reload()


async def test_a_task_says_where_in_the_document_it_is_from(page: Page, front_end: Any, worker: Any) -> None:
    text = f"# Animals\n\n{TEXT}"
    document = await front_end.upload(text)
    await worker.tell(await worker.newest_job(), (QUESTION, "Brisket"), ("And?", "so"), spans=((0, len(text)),))
    await page.goto(f"{front_end.url}/#{document['id']}")
    tasks = page.get_by_role("list", name="Newest practice questions").get_by_role("listitem")
    await expect(tasks).to_have_text(["Question: And?Answer: so", f"Question: {QUESTION}Answer: BrisketFrom: Animals"])
    assert await violations(page) == []


async def test_pasted_text_and_dropped_files_are_documents(page: Page, front_end: Any) -> None:
    give = (
        "(text) => { const given = new DataTransfer(); given.setData('text/plain', text); document.body.dispatchEvent("
    )
    event = "new ClipboardEvent('paste', {bubbles: true, cancelable: true, clipboardData: given})); }"
    await page.evaluate(give + event, TEXT)
    await expect(page.get_by_label("Text", exact=True)).to_have_value(TEXT)
    await page.get_by_role("button", name="Learn this text").click()
    await expect(page.get_by_role("heading", name="Untitled")).to_be_focused()
    await expect(page.get_by_label("Text", exact=True)).to_have_value("")
    await drop_file(page, "dropped.txt", "The lamp burns rapeseed oil.")
    await expect(page.get_by_role("heading", name="dropped.txt")).to_be_focused()
    assert await page.locator(".list .name").all_inner_texts() == ["dropped.txt", "Untitled"]


async def test_a_conversation_streams_and_can_be_stopped(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    await open_ready(page, front_end, worker)
    engine.gate = asyncio.Event()
    await ask(page, QUESTION)
    answer = answers(page).first
    await expect(answer.locator(".said")).to_have_text("The")
    await expect(answer).to_have_attribute("aria-busy", "true")
    await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_hidden()
    await page.get_by_label("Your question").fill("meanwhile")
    await page.keyboard.press("Enter")  # an answer is under way: nothing happens, nothing is lost
    engine.gate.set()
    await expect(answer.locator(".said")).to_have_text("The answer is 42.")
    await expect(answer).to_have_attribute("aria-busy", "false")
    await expect(page.get_by_label("Your question")).to_have_value("meanwhile")
    await expect(answer.locator(".source")).to_contain_text("What it learned, version 1 · first token after")
    engine.gate.clear()
    await ask(page, "And then?")
    await expect(answers(page).nth(1).locator(".said")).to_have_text("The")
    said = [message["content"] for message in engine.asked[-1]["messages"] if message["role"] != "system"]
    assert said == [QUESTION, "The answer is 42.", "And then?"]
    await page.get_by_role("button", name="Stop", exact=True).click()
    await asyncio.wait_for(engine.aborted.wait(), 5)
    await expect(answers(page).nth(1)).to_contain_text("Stopped.")
    await page.get_by_role("button", name="New conversation").click()
    await expect(answers(page)).to_have_count(0)
    assert len(engine.asked) == 2


async def test_where_an_answers_time_went(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    await open_ready(page, front_end, worker)
    engine.takes_s = 0.15
    await ask(page, QUESTION)
    rows = answers(page).get_by_role("table").get_by_role("row")
    await expect(rows.last).to_contain_text("First token")
    names = [text.split("\n")[0] for text in await rows.all_inner_texts()]
    assert names[1:] == ["Finding the document", "Loading the adapter", "Reading the prompt", "First token"]
    load, prefill, mark = [await bar(rows.nth(at), kind) for at, kind in ((2, "span"), (3, "span"), (4, "mark"))]
    assert 0 <= load[0] < load[1] <= prefill[0] + 1 < prefill[1] <= mark[0] + 2


async def bar(row: Any, kind: str) -> tuple[float, float]:
    """Where it begins and ends."""
    box = await row.locator(f".{kind}").bounding_box()
    return box["x"], box["x"] + box["width"]


async def test_three_ways_side_by_side(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    document_id = await open_ready(page, front_end, worker)
    await page.get_by_label("Your question").fill(QUESTION)
    await page.get_by_role("button", name="Compare").click()
    columns = page.locator(".comparison .column")
    await expect(columns.nth(2).locator(".source")).to_contain_text("What it learned, and the text, version 1")
    await expect(columns.nth(0).locator(".source")).to_contain_text("The text in the prompt")
    await expect(columns.nth(1).locator(".source")).to_contain_text("What it learned, version 1")
    adapter_id = (await front_end.client.get(f"/v1/documents/{document_id}")).json()["adapter"]["id"]
    assert [one["model"] == adapter_id for one in engine.asked] == [False, True, True]
    assert [TEXT in str(one["messages"]) for one in engine.asked] == [True, False, True]
    assert await violations(page) == []


async def test_one_of_three_ways_is_tried_again_by_itself(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    await open_ready(page, front_end, worker)
    engine.error = (500, {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}})
    await page.get_by_label("Your question").fill(QUESTION)
    await page.get_by_role("button", name="Compare").click()
    columns = page.locator(".comparison .column")
    again = columns.get_by_role("button", name="Try again")
    await expect(again).to_have_count(3)
    engine.error = None
    await again.nth(1).click()
    await expect(columns.nth(1).locator(".source")).to_contain_text("What it learned, version 1")
    await expect(again).to_have_count(2)
    assert await violations(page) == []


async def test_it_is_asked_at_once_and_from_the_adapter_once_there_is_one(
    page: Page, front_end: Any, worker: Any
) -> None:
    await front_end.upload(TEXT)
    await page.reload()
    await page.locator(".list a").click()
    await expect(page.get_by_label("Auto", exact=True)).to_be_checked()
    await expect(page.get_by_text("until then from the text or an excerpt")).to_be_visible()
    await ask(page, QUESTION)
    await expect(answers(page).locator(".source")).to_contain_text("The text in the prompt")
    await worker.train()
    await expect(page.locator(".document .chip")).to_have_text("Ready")
    await ask(page, QUESTION)
    await expect(answers(page).last.locator(".source")).to_contain_text("What it learned, version 1")


async def test_the_mode_that_is_chosen_is_asked(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    await open_ready(page, front_end, worker)
    await page.get_by_text("Hybrid", exact=True).click()
    await expect(page.get_by_text("and the text in the prompt, or an excerpt near")).to_be_visible()
    await ask(page, QUESTION)
    await expect(answers(page).locator(".source")).to_contain_text("What it learned, and the text, version 1")


async def test_an_answer_from_an_excerpt_says_so(page: Page, front_end: Any, engine: Any) -> None:
    engine.window = 600
    document = await front_end.upload(" ".join(f"Keeper number {number} of Orvel keeps bees." for number in range(300)))
    await page.goto(f"{front_end.url}/#{document['id']}")
    await ask(page, QUESTION)
    await expect(answers(page).locator(".source")).to_contain_text("An excerpt of the text in the prompt ·")


async def test_what_does_not_fit_is_said_in_plain_words(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    await open_ready(page, front_end, worker)
    engine.error = (400, {"error": {"message": "This model's maximum context length is 8 tokens.", "code": 400}})
    await ask(page, QUESTION)
    says = "This is more than the model can read at once. Ask with Auto or Adapter"
    await expect(page.get_by_role("alert")).to_contain_text(says)


async def test_what_the_document_says_about_an_answer(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    text = "# Animals\n\nThe keeper's dog is called Brisket.\n\n# Lamp\n\nIts lamp burns rapeseed oil."
    document = await front_end.upload(text)
    await worker.train()
    engine.words, engine.scoring_gate = ["It", " is", " called", " Brisket."], asyncio.Event()
    await page.goto(f"{front_end.url}/#{document['id']}")
    await page.get_by_label("Find it in the document").check()
    await ask(page, QUESTION)
    answer = answers(page).first
    await expect(answer.locator(".state")).to_have_text("Looking for it in the document …")
    await expect(answer.locator(".said")).to_have_text("It is called Brisket.")
    engine.scoring_gate.set()
    found = answer.get_by_role("group").filter(has_text="What the document says").get_by_role("listitem")
    await expect(found.first).to_contain_text("Supports the answer · Animals")
    await expect(found.first.locator("blockquote")).to_contain_text("The keeper's dog is called Brisket.")
    assert await violations(page) == []
    engine.words = ["Quux"]
    await ask(page, "Zzyzx?")
    await expect(answers(page).last).to_contain_text("Nothing in it shares a word with")


async def test_the_code_shown_does_what_was_done(page: Page, front_end: Any, worker: Any, tmp_path: Path) -> None:
    title = """It's "1874" & $HOME"""
    await open_ready(page, front_end, worker, title=title)
    await page.get_by_text("Code that uploads this document").click()
    await ask(page, "It's $HOME, `id`?\nEND\n")
    await answers(page).get_by_text("Code that asks this").click()
    blocks = page.locator(".code pre")
    await expect(blocks).to_have_count(4)
    ran = [await run(code, at % 2 == 1, tmp_path) for at, code in enumerate(await blocks.all_inner_texts())]
    assert '"status":"ready"' in ran[0].replace(" ", "")
    assert ran[1].endswith(" ready\n")
    assert '" 42."' in ran[2]
    assert ran[3].startswith("The answer is 42.\n{'document_id': 'doc_")
    listed = (await front_end.client.get("/v1/documents")).json()["data"]
    assert [one["title"] for one in listed] == [title] * 3
    assert await violations(page) == []


async def test_the_code_of_a_file_sends_the_file(page: Page, front_end: Any, tmp_path: Path) -> None:
    await drop_file(page, "log.md", TEXT)
    await page.get_by_text("Code that uploads this document").click()
    blocks = page.locator(".code pre")
    await expect(blocks).to_have_count(2)
    (tmp_path / "log.md").write_text(TEXT)
    for at, code in enumerate(await blocks.all_inner_texts()):
        await run(code, at == 1, tmp_path)
    listed = (await front_end.client.get("/v1/documents")).json()["data"]
    assert [one["filename"] for one in listed] == ["log.md"] * 3


async def run(code: str, is_python: bool, folder: Path) -> str:
    command = (sys.executable, "-c", code) if is_python else ("bash", "-c", code)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=pipe, stderr=pipe)
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_downloads_and_stopping(page: Page, front_end: Any, worker: Any, engine: Any) -> None:
    await open_ready(page, front_end, worker)
    for name, expected in (("Download original", TEXT.encode()), ("Download adapter", b"adapter_model.safetensors")):
        async with page.expect_download() as started:
            await page.get_by_role("button", name=name).click()
        assert expected in Path(await (await started.value).path()).read_bytes()
    other = await front_end.upload("The harbour of Lund has two cranes.")
    await page.goto(f"{front_end.url}/#{other['id']}")
    await page.get_by_role("button", name="Stop learning").click()
    await expect(page.locator(".document .chip")).to_have_text("Stopped")
    await page.get_by_text("Adapter", exact=True).click()
    await ask(page, QUESTION)
    await expect(page.get_by_role("alert").filter(has_text="cancelled")).to_be_visible()


async def test_deleting_asks_first(page: Page, front_end: Any, worker: Any) -> None:
    document_id = await open_ready(page, front_end, worker, title="Orvel")
    dialog = page.get_by_role("dialog")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    assert await violations(page) == []
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    assert (await front_end.client.get(f"/v1/documents/{document_id}")).status_code == 200
    await delete(page)
    await expect(page.get_by_role("heading", name="Your documents")).to_be_focused()
    await expect(page.get_by_text("None yet.")).to_be_visible()
    await expect(page.get_by_role("heading", name="Ask a document")).to_be_visible()
    assert page.url == front_end.url + "/"
    assert (await front_end.client.get(f"/v1/documents/{document_id}")).status_code == 404
