"""/v1/documents/{id}/learning, and the same among a document's events: told to its owner while it is there."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from openai import AsyncOpenAI
from tests.lift_server.holders import holder
from tests.lift_server.test_events import Watcher

from lift_config.contract import job_learning_redis_key, places_path
from lift_server import documents
from lift_server.writes import write_document

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
TASK = ("How many bees?", "eleven")


async def learning(front_end: Any, document: Any) -> Any:
    return (await front_end.client.get(f"/v1/documents/{document['id']}/learning")).json()


async def test_it_is_there_from_the_first_report_on_and_stays(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    nothing = {"id": document["id"], "object": "document.learning", "tasks": [], "losses": []}
    assert await learning(front_end, document) == nothing
    job = await worker.claim(await worker.newest_job())
    await worker.tell(job, TASK, losses=(3.5, 2.25))
    losses = [{"step": 1, "loss": 3.5}, {"step": 2, "loss": 2.25}]
    task = {"question": TASK[0], "answer": TASK[1], "heading": None, "page": None}
    told = nothing | {"tasks": [task], "losses": losses}
    assert await learning(front_end, document) == told
    await worker.publish(job)
    assert await learning(front_end, document) == told
    assert "eleven" not in (await front_end.client.get("/v1/documents")).text


async def test_each_task_says_where_it_is_from(front_end: Any, worker: Any, store: Any) -> None:
    """From the places beside the text, of which the worker knows nothing; in the events too."""
    bees, horn = "# Bees\n\nThe keeper of Orvel keeps eleven bees.\n\n", "# The horn\n\nThree blasts warn the ships."
    document = await front_end.upload(bees + horn)
    watcher = Watcher(front_end, document["id"], learning="true")
    await watcher.told(), await watcher.told()
    job = await worker.newest_job()
    spans = ((2, len(bees)), (len(bees), len(bees + horn)))
    places = {"headings": [0, len(bees)], "pages": [[0, 3], [len(bees), 4]]}
    (store / places_path(job.key)).write_text(json.dumps(places))
    await worker.tell(job, TASK, ("How many blasts?", "Three"), ("Of an older worker?", "yes"), spans=spans)
    tasks = (await learning(front_end, document))["tasks"]
    assert [(one["heading"], one["page"]) for one in tasks] == [("Bees", 3), ("The horn", 4), (None, None)]
    assert await watcher.told() == ": queued"
    assert [one["heading"] for one in (await watcher.told())["tasks"]] == ["Bees", "The horn", None]


async def test_of_a_set_it_says_which_document(front_end: Any, worker: Any) -> None:
    ids = [(await front_end.upload(text, title=title))["id"] for title, text in (("Bees", TEXT), ("Horn", TEXT[:40]))]
    made = (await front_end.client.post("/v1/documents", json={"document_ids": ids})).json()
    text = (await front_end.client.get(f"/v1/documents/{made['id']}/content")).text
    at = text.index('Document "Horn"')
    await worker.tell(await worker.newest_job(), TASK, TASK, spans=((0, at), (at, len(text))))
    assert [one["heading"] for one in (await learning(front_end, made))["tasks"]] == [
        'Document "Bees":',
        'Document "Horn":',
    ]


async def test_it_goes_with_the_last_document_that_has_it(front_end: Any, worker: Any, redis: Any) -> None:
    first, second = await front_end.upload(TEXT), await front_end.upload(TEXT)
    job = await worker.newest_job()
    await worker.tell(job, TASK)
    await front_end.client.delete(f"/v1/documents/{first['id']}")
    assert (await learning(front_end, first))["error"]["code"] == "document_not_found"
    assert (await learning(front_end, second))["tasks"]
    await front_end.client.delete(f"/v1/documents/{second['id']}")
    assert not await redis.exists(job_learning_redis_key(job.key))


async def test_it_expires_with_its_document(front_end: Any, worker: Any, redis: Any) -> None:
    state, document = front_end.app.state.lift, await front_end.upload(TEXT)
    job = await worker.newest_job()
    await worker.tell(job, TASK)
    record = await state.records.document(document["id"])
    async with state.records.redis.pipeline() as pipe:
        write_document(pipe, replace(record, expires_s=time.time() - 1))
        await pipe.execute()
    assert (await learning(front_end, document))["error"]["code"] == "document_not_found"
    await documents.sweep(state)
    assert not await redis.exists(job_learning_redis_key(job.key))


async def test_nobody_else_is_told(front_end: Any, worker: Any) -> None:
    mine, other = await holder(front_end), await holder(front_end)
    document = (await mine.upload(TEXT)).json()
    await worker.tell(await worker.newest_job(), TASK)
    path = f"/v1/documents/{document['id']}/learning"
    assert (await mine.get(path)).json()["tasks"]
    assert (await front_end.client.get(path)).status_code == 401
    for ending in ("learning", "events?learning=true"):
        refused = await other.get(f"/v1/documents/{document['id']}/{ending}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "document_not_found")


async def test_events_tell_it_where_it_is_wanted_and_only_its_news(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    watcher, other = Watcher(front_end, document["id"], learning="true"), Watcher(front_end, document["id"])
    assert [(await watcher.told())["object"] for _ in range(2)] == ["document", "document.learning"]
    assert (await other.told())["object"] == "document"
    job = await worker.newest_job()
    await worker.tell(job, TASK)
    assert await watcher.told() == ": queued"
    assert [one["question"] for one in (await watcher.told())["tasks"]] == [TASK[0]]
    await worker.publish(await worker.claim(job))
    objects = []
    while (told := await watcher.told()) != "data: [DONE]":
        objects.append(told["object"])
    assert set(objects) == {"document"}  # what was learned did not change
    while (told := await other.told()) != "data: [DONE]":
        assert told == ": queued" or told["object"] == "document"
    again = Watcher(front_end, document["id"], learning="true")  # of one whose training has ended
    assert [(await again.told())["object"] for _ in range(2)] == ["document", "document.learning"]
    assert await again.told() == "data: [DONE]"


async def test_a_wish_that_is_none_is_refused(front_end: Any) -> None:
    document = await front_end.upload(TEXT)
    refused = await front_end.client.get(f"/v1/documents/{document['id']}/events?learning=perhaps")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "learning")


async def test_openai_python_reads_it(front_end: Any, worker: Any) -> None:
    document = await front_end.upload(TEXT)
    await worker.tell(await worker.newest_job(), TASK)
    async with AsyncOpenAI(base_url=f"{front_end.url}/v1", api_key="none", max_retries=0) as client:
        told: Any = await client.get(f"/documents/{document['id']}/learning", cast_to=object)
    assert told["tasks"][0]["answer"] == "eleven"
