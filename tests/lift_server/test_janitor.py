"""What a crash left in the store goes after a while; what a document needs, or may still be on its way, stays."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from obstore.store import from_url
from redis.asyncio import Redis

from lift_config.contract import CLOCK_PATH, STORE_ID_PATH, adapter_redis_key, document_redis_key
from lift_server import janitor, parts
from lift_server.errors import StorageUnavailable
from lift_server.janitor import YOUNG_S, clean, clean_blobs, clean_engines, clean_half_written
from lift_server.records import Records

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
LEFT = (
    f"originals/doc_{'0' * 24}",
    f"texts/{'0' * 32}",
    f"jobs/{'0' * 32}.json",
    f"adapters/{'0' * 32}-{'1' * 12}/adapter_config.json",
    f"adapters/{'0' * 32}-{'1' * 12}/manifest.json",
)


def files(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()} - {CLOCK_PATH, STORE_ID_PATH}


def leave(store: Path, *names: str) -> None:
    for name in names:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("left")


def age(store: Path) -> None:
    old_s = time.time() - YOUNG_S - 1
    for name in files(store):
        os.utime(store / name, (old_s, old_s))


async def test_only_what_nothing_names_goes(front_end: Any, worker: Any, store: Path) -> None:
    await front_end.upload(TEXT)
    adapter = await worker.train()
    needed = files(store)
    leave(store, *LEFT, f"adapters/{adapter.id[:32]}-{'2' * 12}/manifest.json")  # of a publication that was cut off
    age(store)
    deleted = await clean(front_end.app.state.lift.records)
    assert deleted == {"originals": 1, "texts": 1, "jobs": 1, "adapters": 2}
    assert files(store) == needed


async def test_what_is_young_stays(front_end: Any, store: Path) -> None:
    leave(store, *LEFT)
    age(store)
    leave(store, *LEFT[-1:])  # one file of it was written just now
    young = f"texts/{'3' * 32}"
    leave(store, young)
    await clean(front_end.app.state.lift.records)
    assert files(store) == {young, *LEFT[-2:]}


async def test_a_server_whose_clock_is_ahead_takes_nothing_for_old(
    front_end: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else weights would go between their upload and their record."""
    leave(store, *LEFT, f"uploads/upload_{'0' * 24}.part_{'0' * 24}")
    before = files(store)
    ahead_s = time.time() + 2 * YOUNG_S
    monkeypatch.setattr(time, "time", lambda: ahead_s)
    assert not await clean(front_end.app.state.lift.records)
    await parts.sweep(front_end.app.state.lift)
    assert files(store) == before


async def test_what_a_killed_process_left_half_written_goes_after_a_while(front_end: Any, store: Path) -> None:
    await front_end.upload(TEXT)
    needed = files(store)
    leave(store, f"adapters/{'0' * 32}-{'1' * 12}/adapter_model.safetensors#1", f"texts/{'3' * 32}#12")
    age(store)
    young, foreign = f"texts/{'3' * 32}#1", "mine/notes#2"
    leave(store, young, foreign)
    age(store / "mine")
    (store / "texts" / "folder#1").mkdir()
    state = front_end.app.state.lift
    assert await clean_half_written(state.settings, state.records) == 2
    assert files(store) == {young, foreign, *needed}


async def test_what_cannot_be_cleaned_keeps_nothing_else_from_it(
    front_end: Any, engine: Any, redis: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, is_last = front_end.app.state.lift, asyncio.Event()

    async def fails(*_: object) -> None:
        raise StorageUnavailable

    async def last(*_: object) -> None:
        is_last.set()

    for name, value in {"FIRST_S": 0.0, "clean": fails, "clean_half_written": fails, "clean_blobs": last}.items():
        monkeypatch.setattr(janitor, name, value)
    engine.loads.append(f"{'0' * 32}-{'1' * 12}")
    cleaning = asyncio.create_task(
        janitor.clean_for_ever(state.settings, state.records, state.engine, redis, lambda _: False)
    )
    await asyncio.wait_for(is_last.wait(), 5)
    cleaning.cancel()
    assert len(engine.removed) == 1


async def test_a_store_that_redis_was_not_filled_from_is_left_alone(
    front_end: Any, redis: Any, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.set("lift:store", "another")
    leave(store, *LEFT)
    age(store)
    assert not await clean(front_end.app.state.lift.records)
    assert files(store) >= set(LEFT)
    assert "filled from another store" in caplog.text


async def test_nothing_goes_while_redis_may_be_an_older_copy(front_end: Any, store: Path) -> None:
    records = front_end.app.state.lift.records
    await asyncio.wait_for(front_end.app.state.lift.watcher.subscribed.wait(), 5)
    leave(store, *LEFT)
    age(store)
    records.is_behind = True
    with pytest.raises(StorageUnavailable):
        await clean(records)
    assert files(store) >= set(LEFT)


async def test_a_document_that_only_the_store_names_stays(front_end: Any, redis: Any, store: Path) -> None:
    document = await front_end.upload(TEXT)
    before = files(store)
    await redis.delete(document_redis_key(document["id"]))
    age(store)
    await clean(front_end.app.state.lift.records)
    assert files(store) == before


async def test_an_upload_that_was_cut_off_before_it_had_a_job_goes(start: Any, redis: Any, store: Path) -> None:
    """Nobody was told of it, and without a job it would never be trained nor shown."""
    await (await start()).upload(TEXT)
    (job,) = (store / "jobs").iterdir()
    job.unlink()
    await redis.flushall()
    front_end = await start()
    assert not await redis.keys("lift:document:*")
    leave(store, spoilt := f"documents/doc_{'4' * 24}.json")
    age(store)
    assert await clean(front_end.app.state.lift.records) == {"documents": 1, "originals": 1, "texts": 1}
    assert files(store) == {spoilt}


async def test_while_redis_is_not_whole_nothing_goes(redis: Redis, valkey_url: str, tmp_path: Path) -> None:
    async with Redis.from_url(valkey_url, decode_responses=True) as empty:
        records = Records(empty, from_url(tmp_path.as_uri()))
        for name in LEFT:
            leave(tmp_path, name)
            age(tmp_path)
            with pytest.raises(StorageUnavailable):
                await clean(records)
            assert files(tmp_path) == {name}
            (tmp_path / name).unlink()


async def test_engines_keep_only_what_a_record_names(front_end: Any, worker: Any, engine: Any) -> None:
    """The others were deleted while the engine did not answer, or while the server was killed."""
    document = await front_end.upload(TEXT)
    adapter = await worker.train()
    assert (await front_end.ask(document_id=document["id"])).status_code == 200
    left, answering = f"{'0' * 32}-{'1' * 12}", f"{'0' * 32}-{'2' * 12}"
    engine.loads += [left, answering]
    state = front_end.app.state.lift
    assert await clean_engines(state.records, state.engine, lambda one: one == answering) == 1
    assert adapter.id in engine.loads
    assert engine.removed == [left]


async def test_what_another_server_is_asking_stays_and_the_rest_goes(front_end: Any, engine: Any) -> None:
    asked, left = f"{'0' * 32}-{'1' * 12}", f"{'0' * 32}-{'2' * 12}"
    engine.loads += [asked, left]
    engine.in_use.add(asked)
    state = front_end.app.state.lift
    assert await clean_engines(state.records, state.engine, lambda _: False) == 1
    assert engine.removed == [left]


async def test_an_engine_that_is_away_is_passed_over(start: Any) -> None:
    front_end = await start(engine={"urls": ("http://127.0.0.1:9",)})
    state = front_end.app.state.lift
    assert await clean_engines(state.records, state.engine, state.hotload.is_in_use) == 0


async def test_cached_adapters_that_nothing_names_go_after_a_while(front_end: Any, worker: Any, redis: Any) -> None:
    """A deletion may have found the Redis that holds them away; engines that were killed leave drafts."""
    await front_end.upload(TEXT)
    adapter = await worker.train()
    kept = adapter_redis_key(adapter.id)
    left = adapter_redis_key(f"{'0' * 32}-{'1' * 12}")
    for key in (left, f"{left}:0a"):
        await redis.hset(key, "manifest", b"{}")
    records = front_end.app.state.lift.records
    assert await clean_blobs(records, redis) == 0
    assert await clean_blobs(records, redis, young_s=0) == 2
    assert await redis.keys("lift:adapter:*") == [kept.encode()]
