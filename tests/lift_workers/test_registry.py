"""Where a worker finds the engines that write its tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from lift_config.contract import ENGINES_KEY, EngineRecord, engine_redis_key
from lift_config.settings import Settings
from lift_workers import registry
from lift_workers.registry import engines


async def register(redis: Redis, url: str, base_model: str = "base") -> None:
    await redis.sadd(ENGINES_KEY, url)
    await redis.set(engine_redis_key(url), EngineRecord(base_model, "main").to_json())


def settings(home: Path, **engine: object) -> Settings:
    return Settings(home=home, served_name="base", engine=engine)


async def test_as_the_settings_say(redis: Redis, tmp_path: Path) -> None:
    look_up = engines(settings(tmp_path, urls=["http://10.0.0.5:8100/"]), redis)
    assert await look_up() == ("http://10.0.0.5:8100",)


async def test_as_they_are_registered(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = engines(settings(tmp_path, registered=True, api_key="shared"), redis)
    assert await look_up() == []
    await register(redis, "http://10.0.0.6:8100")
    await register(redis, "http://10.0.0.5:8100")
    await register(redis, "http://10.0.0.7:8100", base_model="another")
    await redis.sadd(ENGINES_KEY, "http://10.0.0.8:8100")  # its lease has ended
    assert await look_up() == []  # hundreds of samples: Redis is not asked for each
    await redis.sadd(ENGINES_KEY, "http://10.0.0.9:8100")
    await redis.set(engine_redis_key("http://10.0.0.9:8100"), "no record")
    monkeypatch.setattr(registry, "LOOK_S", 0.0)
    assert await look_up() == ["http://10.0.0.5:8100", "http://10.0.0.6:8100"]
