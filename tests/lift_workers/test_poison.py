"""Documents on which the real training child breaks: each fails alone, and the next one trains in the same worker."""

import os
import sys
from pathlib import Path

import pytest
from obstore.store import LocalStore
from redis.asyncio import Redis
from tests.lift_workers.conftest import Enqueue, Find
from tests.lift_workers.tiny import save_tiny_model

from lift_config.contract import DEAD_LETTERS_KEY, Status, job_redis_key
from lift_config.settings import Settings
from lift_workers.trainer import Trainer
from lift_workers.worker import Worker

# The child as it is, but for a document whose title is a poison's name: that one breaks before its first step.
CHILD = """
import torch
from lift_workers import child, session
class Poisoned(session.Session):
    def run(self):
        for event in super().run():
            yield event
            if event["event"] == "started":
                self.poison()
    def poison(self):
        if self._title == "nan":
            with torch.no_grad():
                self._trainer.adapter.weights.fill_(float("nan"))
        if self._title == "memory":
            bytearray(2**62)
child.Session = Poisoned
child.main()
"""


class NoGenerator:
    """Recipe `sketch` asks for no task."""

    concurrency = 1

    async def until_up(self) -> None:
        return

    async def count_tokens(self, text: str) -> int:
        return len(text.split())


@pytest.fixture
def worker(redis: Redis, store: LocalStore, tmp_path: Path) -> Worker:
    settings = Settings(home=tmp_path / "home", worker={"max_attempts": 1})
    environment = {**os.environ, "LIFT_BASE_MODEL": str(save_tiny_model(tmp_path / "tiny")), "LIFT_DEVICE": "cpu"}
    return Worker(
        settings,
        "w",
        redis=redis,
        blobs=redis,
        store=store,
        generator=NoGenerator(),  # type: ignore[arg-type]
        trainer=Trainer((sys.executable, "-c", CHILD), 60, environment),
    )


@pytest.mark.timeout(240)  # torch starts three times
async def test_a_poisoned_document_fails_alone(redis: Redis, enqueue: Enqueue, find: Find, worker: Worker) -> None:
    poisons = {"nan": "loss_not_finite", "memory": "out_of_memory"}
    jobs = {}
    for number, title in enumerate([*poisons, "sound"]):
        text = "The supply ship Greta Lund arrives every second Thursday. " * 3
        jobs[title] = (await enqueue(text, key=f"{number:032x}", title=title, recipe="sketch")).key
    await worker.run_until_idle()
    found = {title: await find(key) for title, key in jobs.items()}
    assert {title: job.error and job.error.code for title, job in found.items()} == {**poisons, "sound": None}
    assert found["sound"].status is Status.READY
    assert await redis.zcard(DEAD_LETTERS_KEY) == len(poisons)
    assert await redis.hget(job_redis_key(jobs["nan"]), "unfinished") == b"false"
