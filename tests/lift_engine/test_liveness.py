"""An engine whose core is dead or hangs ends, whatever waits in it; one that is busy does not."""

from __future__ import annotations

import asyncio

import pytest

from lift_engine import liveness
from lift_engine.liveness import end_with


class FakeCore:
    def __init__(self) -> None:
        self.errored = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0
        self.error: Exception | None = None

    async def is_sleeping(self) -> bool:
        self.asked += 1
        await self.answers.wait()
        if self.error:
            raise self.error
        return False


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOOK_S": 0.01, "GRACE_S": 0.05, "HANG_S": 0.1}.items():
        monkeypatch.setattr(liveness, name, value)


async def ended(core: FakeCore) -> list[int]:
    codes: list[int] = []
    async with asyncio.timeout(5):
        await end_with(core, codes.append)
    return codes


async def test_a_dead_core_ends_the_process_though_its_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    core = FakeCore()
    core.answers.clear()  # of vLLM's utility calls, none ends then
    core.errored = True
    monkeypatch.setattr(liveness, "HANG_S", 60.0)
    assert await ended(core) == [1]


async def test_a_hanging_core_ends_the_process() -> None:
    core = FakeCore()
    core.answers.clear()
    assert await ended(core) == [1]
    assert core.asked == 1


async def test_a_core_that_answers_does_not_even_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
    core = FakeCore()
    core.error = RuntimeError("no such utility")
    watching = asyncio.create_task(ended(core))
    async with asyncio.timeout(5):
        while core.asked < 15:  # for longer than HANG_S
            await asyncio.sleep(0.01)
    assert not watching.done()
    assert "no such utility" in caplog.text
    core.errored = True
    assert await watching == [1]
