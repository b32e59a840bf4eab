"""Adapters come from the folder, from Redis, from the store, in this order, and only as they were published."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from lift_config.contract import (
    ADAPTER_FILES,
    CHUNK_BYTES,
    MANIFEST_FIELD,
    MANIFEST_FILE,
    Manifest,
    ManifestFile,
    adapter_redis_key,
    chunk_field,
)
from lift_config.settings import Settings
from lift_engine.adapters import AdapterCorrupt, AdapterFolder, AdapterMismatch, AdapterUnknown, AdapterUnsigned

WEIGHTS, CONFIG = ADAPTER_FILES
NEW_SECRET, OLD_SECRET = "the new secret of ours", "the old secret of ours"
FILES = {WEIGHTS: bytes(range(256)) * (CHUNK_BYTES // 256 + 1), CONFIG: b"{}"}  # two chunks and one


@pytest.fixture
def settings(tmp_path: Path, valkey_url: str, redis: Redis) -> Settings:
    return Settings(home=tmp_path, redis_url=valkey_url, base_model="/models/tiny", base_revision="r1")


@pytest.fixture
async def folder(settings: Settings) -> AsyncIterator[AdapterFolder]:
    folder = AdapterFolder(settings, 0)
    yield folder
    await folder.aclose()


async def into_redis(redis: Redis, manifest: Manifest, files: dict[str, bytes]) -> None:
    """As a worker publishes."""
    fields: dict[Any, Any] = {MANIFEST_FIELD: manifest.to_json()}
    for name, data in files.items():
        for number, start in enumerate(range(0, len(data), CHUNK_BYTES)):
            fields[chunk_field(name, number)] = data[start : start + CHUNK_BYTES]
    await redis.hset(adapter_redis_key(manifest.adapter_id), mapping=fields)


def drop_from_store(settings: Settings, manifest: Manifest) -> None:
    shutil.rmtree(settings.home / "store" / "adapters" / manifest.adapter_id)


def assert_whole(path: Path, manifest: Manifest) -> None:
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    assert Manifest.from_json((path / MANIFEST_FILE).read_bytes()) == manifest
    assert [entry.name for entry in path.parent.iterdir()] == [manifest.adapter_id]  # and nothing half-written


async def test_from_redis(settings: Settings, folder: AdapterFolder, redis: Redis, publish: Any) -> None:
    manifest = publish(settings, FILES)
    drop_from_store(settings, manifest)
    await into_redis(redis, manifest, FILES)
    path = await folder.fetch(manifest.adapter_id)
    assert path == settings.home / "engine-0" / "adapters" / manifest.adapter_id
    assert_whole(path, manifest)


async def test_from_the_store_and_back_into_redis(
    settings: Settings, folder: AdapterFolder, redis: Redis, publish: Any
) -> None:
    manifest = publish(settings, FILES)
    assert_whole(await folder.fetch(manifest.adapter_id), manifest)
    await folder.aclose()
    assert await redis.keys() == [adapter_redis_key(manifest.adapter_id).encode()]  # no draft left
    assert 0 < await redis.ttl(adapter_redis_key(manifest.adapter_id)) <= settings.redis.blob_ttl_s
    drop_from_store(settings, manifest)
    await folder.remove(manifest.adapter_id)
    assert_whole(await folder.fetch(manifest.adapter_id), manifest)


async def test_a_complete_folder_needs_nobody(
    settings: Settings, folder: AdapterFolder, redis: Redis, publish: Any
) -> None:
    manifest = publish(settings, FILES)
    path = await folder.fetch(manifest.adapter_id)
    await folder.aclose()
    drop_from_store(settings, manifest)
    await redis.flushall()
    assert await folder.fetch(manifest.adapter_id) == path


@pytest.mark.parametrize("name", [*ADAPTER_FILES, MANIFEST_FILE])
async def test_an_incomplete_folder_is_fetched_anew(
    settings: Settings, folder: AdapterFolder, publish: Any, name: str
) -> None:
    manifest = publish(settings, FILES)
    path = await folder.fetch(manifest.adapter_id)
    (path / name).write_bytes(b"{")
    assert folder.complete(manifest.adapter_id) is None
    assert_whole(await folder.fetch(manifest.adapter_id), manifest)


@pytest.mark.parametrize("name", ADAPTER_FILES)
async def test_what_a_power_cut_left_is_fetched_anew(
    settings: Settings, folder: AdapterFolder, publish: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Zeros, as many as there were to be bytes: nothing was flushed, and the sizes are right."""
    manifest = publish(settings, FILES)
    path = await folder.fetch(manifest.adapter_id)
    (path / name).write_bytes(bytes(len(FILES[name])))
    after = AdapterFolder(settings, 0)
    assert after.complete(manifest.adapter_id)
    assert await after.find(manifest.adapter_id) is None
    assert_whole(await after.fetch(manifest.adapter_id), manifest)
    assert "its files here are not what was published" in caplog.text
    await after.aclose()


async def test_a_folder_is_read_whole_once_in_a_process(
    settings: Settings, folder: AdapterFolder, publish: Any
) -> None:
    manifest = publish(settings, FILES)
    path = await folder.fetch(manifest.adapter_id)
    after = AdapterFolder(settings, 0)
    assert await after.find(manifest.adapter_id) == path
    for one in (folder, after):
        (path / WEIGHTS).write_bytes(bytes(len(FILES[WEIGHTS])))
        assert await one.fetch(manifest.adapter_id) == path  # the sizes, else nothing: each question passes here
    await folder.remove(manifest.adapter_id)
    assert_whole(await folder.fetch(manifest.adapter_id), manifest)
    await after.aclose()


async def test_a_deletion_is_not_undone_by_a_copy_on_its_way_into_redis(
    settings: Settings, folder: AdapterFolder, redis: Redis, publish: Any
) -> None:
    """All of it was read, and waits to be renamed, when the deletion comes."""
    manifest = publish(settings, FILES)
    key = adapter_redis_key(manifest.adapter_id)
    await folder.fetch(manifest.adapter_id)
    async with folder._lock(manifest.adapter_id):
        async with asyncio.timeout(5):
            while not folder._lock(manifest.adapter_id)._waiters:
                await asyncio.sleep(0.01)
        assert len(await redis.keys()) == 1  # the draft
        shutil.rmtree(folder.root / manifest.adapter_id)  # as `remove` does, in here
        await redis.unlink(key)  # as the server does next
    await folder.aclose()
    assert await redis.keys() == []


async def test_of_an_adapter_deleted_while_it_is_read_nothing_stays_in_redis(
    settings: Settings, folder: AdapterFolder, redis: Redis, publish: Any
) -> None:
    manifest = publish(settings, FILES)
    await folder.fetch(manifest.adapter_id)
    (folder.root / manifest.adapter_id / CONFIG).unlink()
    await folder.aclose()
    assert await redis.keys() == []


@pytest.mark.parametrize("damage", ["changed", "missing", "manifest"])
async def test_a_damaged_copy_in_redis_is_replaced(
    settings: Settings, folder: AdapterFolder, redis: Redis, publish: Any, damage: str
) -> None:
    manifest = publish(settings, FILES)
    await into_redis(redis, manifest, FILES)
    key, chunk = adapter_redis_key(manifest.adapter_id), chunk_field(WEIGHTS, 0)
    if damage == "changed":
        await redis.hset(key, chunk, b"x" * CHUNK_BYTES)
    elif damage == "missing":
        await redis.hdel(key, chunk)
    else:
        await redis.hset(key, MANIFEST_FIELD, "[]")
    assert_whole(await folder.fetch(manifest.adapter_id), manifest)
    await folder.aclose()
    assert await redis.hget(key, chunk) == FILES[WEIGHTS][:CHUNK_BYTES]
    assert await redis.hget(key, MANIFEST_FIELD) == manifest.to_json().encode()


async def test_redis_out_of_reach(settings: Settings, publish: Any) -> None:
    manifest = publish(settings, FILES)
    folder = AdapterFolder(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"}), 0)
    assert_whole(await folder.fetch(manifest.adapter_id), manifest)
    await folder.aclose()


@pytest.mark.parametrize("name", ADAPTER_FILES)
@pytest.mark.parametrize("damage", [b"other", None])
async def test_a_damaged_copy_in_the_store_is_an_error(
    settings: Settings, folder: AdapterFolder, publish: Any, name: str, damage: bytes | None
) -> None:
    manifest = publish(settings, FILES)
    path = settings.home / "store" / "adapters" / manifest.adapter_id / name
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(AdapterCorrupt):
        await folder.fetch(manifest.adapter_id)
    assert list(folder.root.iterdir()) == []


async def test_an_unfinished_publication_is_unknown(settings: Settings, folder: AdapterFolder, publish: Any) -> None:
    manifest = publish(settings, FILES)
    (settings.home / "store" / "adapters" / manifest.adapter_id / MANIFEST_FILE).unlink()
    with pytest.raises(AdapterUnknown):
        await folder.fetch(manifest.adapter_id)


@pytest.mark.parametrize("change", [{"base_model": "other"}, {"base_revision": "r2"}])
async def test_an_adapter_of_another_base_model(
    settings: Settings, folder: AdapterFolder, publish: Any, change: dict[str, str]
) -> None:
    manifest = publish(settings, FILES)
    path = settings.home / "store" / "adapters" / manifest.adapter_id / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AdapterMismatch):
        await folder.fetch(manifest.adapter_id)


async def test_a_manifest_under_another_id(settings: Settings, folder: AdapterFolder, publish: Any) -> None:
    manifest = publish(settings, FILES)
    impostor = f"{'0' * 32}-{manifest.adapter_id[-12:]}"
    adapters = settings.home / "store" / "adapters"
    (adapters / manifest.adapter_id).rename(adapters / impostor)
    with pytest.raises(AdapterCorrupt):
        await folder.fetch(impostor)


def sign(settings: Settings, manifest: Manifest, secret: str) -> Manifest:
    """As a worker with that secret would have published it; in the store only."""
    signed = manifest.signed(secret)
    path = settings.home / "store" / "adapters" / manifest.adapter_id / MANIFEST_FILE
    path.write_text(signed.to_json())
    return signed


@pytest.fixture
async def strict(settings: Settings) -> AsyncIterator[AdapterFolder]:
    """Of an engine that was given a new secret, and still knows the old one."""
    secrets = (SecretStr(NEW_SECRET), SecretStr(OLD_SECRET))
    folder = AdapterFolder(settings.model_copy(update={"adapter_secrets": secrets}), 0)
    yield folder
    await folder.aclose()


@pytest.mark.parametrize("secret", [NEW_SECRET, OLD_SECRET])
async def test_a_signed_adapter(settings: Settings, strict: AdapterFolder, publish: Any, secret: str) -> None:
    manifest = sign(settings, publish(settings, FILES), secret)
    assert_whole(await strict.fetch(manifest.adapter_id), manifest)


@pytest.mark.parametrize("secret", ["of somebody else", None])
async def test_what_none_of_ours_signed_is_never_loaded(
    settings: Settings,
    strict: AdapterFolder,
    folder: AdapterFolder,
    redis: Redis,
    publish: Any,
    secret: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifest = publish(settings, FILES)
    if secret:
        manifest = sign(settings, manifest, secret)
    await into_redis(redis, manifest, FILES)
    with pytest.raises(AdapterUnsigned, match=manifest.adapter_id):
        await strict.fetch(manifest.adapter_id)
    assert list(strict.root.iterdir()) == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]  # of Redis, of the store
    await folder.fetch(manifest.adapter_id)  # an engine without secrets, in the same folder
    with pytest.raises(AdapterUnsigned):
        await strict.fetch(manifest.adapter_id)


async def test_a_forged_copy_in_redis_gives_way_to_the_stores(
    settings: Settings, strict: AdapterFolder, redis: Redis, publish: Any
) -> None:
    """Other settings, with weights and checksums that fit: only the signature tells."""
    manifest = sign(settings, publish(settings, FILES), NEW_SECRET)
    config = b'{"lora_alpha": 1e9}'
    entry = ManifestFile(len(config), hashlib.sha256(config).hexdigest())
    forged = replace(manifest, files=manifest.files | {CONFIG: entry})
    await into_redis(redis, forged, FILES | {CONFIG: config})
    assert_whole(await strict.fetch(manifest.adapter_id), manifest)


BAD_IDS = ["", "..", "../../etc/passwd", f"{'0' * 32}-{'0' * 12}/..", f"{'0' * 32}-{'0' * 12}\n", "a\0b", "x" * 10_000]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_what_is_no_id_touches_nothing(settings: Settings, folder: AdapterFolder, bad: str) -> None:
    with pytest.raises(AdapterUnknown):
        await folder.fetch(bad)
    with pytest.raises(AdapterUnknown):
        await folder.remove(bad)
    assert folder.complete(bad) is None
    assert list(settings.home.iterdir()) == []


async def test_many_askers_one_fetch(settings: Settings, folder: AdapterFolder, redis: Redis, publish: Any) -> None:
    manifest = publish(settings, FILES)
    await into_redis(redis, manifest, FILES)
    await redis.config_resetstat()
    paths = await asyncio.gather(*(folder.fetch(manifest.adapter_id) for _ in range(8)))
    assert len(set(paths)) == 1
    assert (await redis.info("commandstats"))["cmdstat_hget"]["calls"] == 4  # the manifest and three chunks


async def test_a_cancelled_fetch_leaves_nothing_and_blocks_nobody(
    settings: Settings, folder: AdapterFolder, publish: Any
) -> None:
    manifest = publish(settings, FILES)
    first = asyncio.create_task(folder.fetch(manifest.adapter_id))
    second = asyncio.create_task(folder.fetch(manifest.adapter_id))
    while not any(files for _, _, files in os.walk(folder.root)):  # until a file is being written
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert_whole(await second, manifest)


async def test_a_disk_that_gets_full_within_a_fetch_leaves_nothing(
    settings: Settings, folder: AdapterFolder, publish: Any
) -> None:
    manifest = publish(settings, FILES)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES // 2, was[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            await folder.fetch(manifest.adapter_id)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert list(folder.root.iterdir()) == []
    assert_whole(await folder.fetch(manifest.adapter_id), manifest)


async def test_leftovers_of_a_killed_engine_go(settings: Settings, folder: AdapterFolder, publish: Any) -> None:
    manifest = publish(settings, FILES)
    path = await folder.fetch(manifest.adapter_id)
    (folder.root / f".{manifest.adapter_id}.x1y2").mkdir()
    await folder.clear_leftovers()
    assert_whole(path, manifest)


async def test_what_was_deleted_while_no_engine_ran_goes_at_the_next_start(
    settings: Settings, folder: AdapterFolder, publish: Any
) -> None:
    manifest = publish(settings, FILES)
    path = await folder.fetch(manifest.adapter_id)
    drop_from_store(settings, manifest)
    await folder.clear_leftovers()
    assert not path.exists()


async def test_remove(settings: Settings, folder: AdapterFolder, publish: Any) -> None:
    manifest = publish(settings, FILES)
    path = await folder.fetch(manifest.adapter_id)
    await folder.remove(manifest.adapter_id)
    assert not path.exists()
    await folder.remove(manifest.adapter_id)
