from pathlib import Path

import pytest

from lift_config.settings import Settings
from lift_workers import pipeline
from lift_workers.__main__ import _serve, child_environment
from lift_workers.generator import Generator
from lift_workers.registry import LookUp


@pytest.mark.parametrize(
    ("settings", "visible", "index", "seen"),
    [
        (Settings(workers=2), None, 1, "1"),
        (Settings(workers=2), "4,6", 1, "6"),  # the operator's own choice is counted through
        (Settings(workers=1), "4,6", 0, "4,6"),
        (Settings(workers=1), None, 0, None),
        (Settings(workers=2, device="cpu"), None, 1, None),
    ],
)
def test_each_of_several_workers_sees_its_own_gpu(
    settings: Settings, visible: str | None, index: int, seen: str | None
) -> None:
    outside = {"PATH": "/bin"} | ({"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    child = child_environment(outside, settings, index)
    assert child.get("CUDA_VISIBLE_DEVICES") == seen
    assert child["PATH"] == "/bin"


class Made(Exception):
    """Instead of a generator: nothing is started then."""


async def test_whoever_starts_a_worker_may_bring_its_generator(valkey_url: str, tmp_path: Path) -> None:
    """As scripts/bench_worker.py does."""

    def make(look_up: LookUp, api_key: str, model_name: str, concurrency: int) -> Generator:
        raise Made(api_key, model_name, concurrency)

    settings = Settings(home=tmp_path, redis_url=valkey_url, served_name="tiny", engine={"api_key": "k"})  # type: ignore[arg-type] # parsed
    with pytest.raises(Made) as made:
        await _serve(settings, 0, make, pipeline.Course)
    assert made.value.args == ("k", "tiny", settings.worker.synthesis_concurrency)
