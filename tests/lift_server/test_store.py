"""The store by its URL."""

import asyncio
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import GCSStore, S3Store, from_url

from lift_config.settings import ServerSettings, Settings
from lift_server.errors import StoreUnavailable
from lift_server.store import WritesInOrder, free_bytes, has_room, open_store


def test_a_folder_is_made_and_keeps_no_empty_ones(tmp_path: Path) -> None:
    folder = tmp_path / "of" / "mine"
    store = open_store(folder.as_uri())
    obstore.put(store, "adapters/a/manifest.json", b"{}")
    obstore.put(store, "adapters/b/manifest.json", b"{}")
    obstore.delete(store, "adapters/a/manifest.json")
    assert [path.name for path in (folder / "adapters").iterdir()] == ["b"]


@pytest.mark.parametrize(("url", "kind"), [("s3://bucket/prefix", S3Store), ("gs://bucket/prefix", GCSStore)])
def test_a_bucket_is_opened(url: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert isinstance(open_store(url), kind)


async def test_a_write_that_was_given_up_on_does_not_undo_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_server.store.ANSWER_S", 0.05)
    write, answers, done = WritesInOrder(), asyncio.Event(), []

    async def slow(name: str) -> None:
        await answers.wait()
        done.append(name)

    async def quick(name: str) -> None:
        done.append(name)

    for _ in range(2):  # nobody gets in between, however often it is tried
        with pytest.raises(StoreUnavailable):
            await write("a", lambda: slow("deletion") if not done else quick("none"))
    await write("b", lambda: quick("of another path"))
    monkeypatch.setattr("lift_server.store.ANSWER_S", 30.0)
    upload = asyncio.create_task(write("a", lambda: quick("upload")))
    await asyncio.sleep(0)
    answers.set()
    await upload
    assert done == ["of another path", "deletion", "upload"]


async def test_what_was_given_up_on_and_fails_is_not_the_next_ones_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_server.store.ANSWER_S", 0.05)
    write, answers = WritesInOrder(), asyncio.Event()

    async def fails() -> None:
        await answers.wait()
        raise FileNotFoundError

    async def writes() -> None:
        return

    with pytest.raises(StoreUnavailable):
        await write("a", fails)
    answers.set()
    await write("a", writes)
    with pytest.raises(FileNotFoundError):
        await write("a", fails)


NEARLY_ALL = 2**62  # bytes that no disk has


@pytest.fixture
async def full(start: Any, engine: Any, redis: Any, worker: Any, front_end: Any) -> tuple[Any, str]:
    """A server whose disk is full for uploads, and a trained document."""
    document_id = (await front_end.upload("The lighthouse at Varn Point was built in 1874."))["id"]
    await worker.train()
    await redis.set("lift:worker:a", "1")
    return await start(server={"min_free_bytes": NEARLY_ALL}), document_id


async def test_a_full_disk_takes_no_uploads_and_answers_questions(full: tuple[Any, str]) -> None:
    front_end, document_id = full
    part = {"type": "file", "file": {"file_data": "data:text/plain;base64,VGhlIGxhbXAgYnVybnMu"}}
    questions = [{"role": "user", "content": [part, {"type": "text", "text": "What burns?"}]}]
    whole = {"filename": "a.txt", "purpose": "user_data", "bytes": 3, "mime_type": "text/plain"}
    for path, sent in (
        ("/v1/documents", {"json": {"text": "The lamp burns oil."}}),
        ("/v1/files", {"files": {"file": ("a.txt", b"The lamp burns oil.")}, "data": {"purpose": "user_data"}}),
        ("/v1/uploads", {"json": whole}),
        ("/v1/chat/completions", {"json": {"messages": questions}}),
    ):
        refused = await front_end.client.post(path, **sent)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_full"), path
        assert (refused.headers["Retry-After"], refused.headers["x-should-retry"]) == ("60", "false")
    assert (await front_end.ask(document_id=document_id)).status_code == 200


async def test_parts_of_an_upload_are_refused_too(full: tuple[Any, str], start: Any) -> None:
    whole = {"filename": "a.txt", "purpose": "user_data", "bytes": 3, "mime_type": "text/plain"}
    upload = (await (await start()).client.post("/v1/uploads", json=whole)).json()
    refused = await full[0].client.post(f"/v1/uploads/{upload['id']}/parts", files={"data": b"abc"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_full")


async def test_a_full_disk_is_told(full: tuple[Any, str]) -> None:
    ready = await full[0].client.get("/ready")
    assert (ready.status_code, ready.json()["parts"]["disk"]) == (200, False)
    page = (await full[0].client.get("/metrics")).text
    [shown] = [line for line in page.splitlines() if line.startswith("lift_store_free_bytes ")]
    assert 0 < float(shown.split()[1]) < NEARLY_ALL


async def test_a_service_has_no_disk_that_we_know_of() -> None:
    settings = Settings(store_url="s3://bucket/prefix", server=ServerSettings(min_free_bytes=NEARLY_ALL))
    store = from_url("memory://")
    assert await free_bytes(store, settings) is None
    assert await has_room(store, settings)


async def test_a_store_that_fails_is_no_unforeseen_error(front_end: Any, store: Path) -> None:
    (store / "texts").write_text("where a folder should be")
    refused = await front_end.client.post("/v1/documents", json={"text": "The lamp burns rapeseed oil."})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert refused.headers["Retry-After"] == "5"
