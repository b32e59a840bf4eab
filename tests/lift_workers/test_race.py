import asyncio

import pytest

from lift_workers import race


async def test_a_swallowed_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "CANCEL_AGAIN_S", 0.01)
    swallowed = asyncio.Event()

    async def swallows_one() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.Event().wait()
        return "never"

    async def ends() -> str:
        await asyncio.sleep(0)
        return "first"

    assert await race.first(swallows_one(), ends()) == "first"
    assert swallowed.is_set()


async def test_of_two_that_end_at_once_the_one_named_first_counts() -> None:
    async def ends(with_: str) -> str:
        return with_

    async def fails() -> str:
        raise ZeroDivisionError

    assert await race.first(ends("first"), fails()) == "first"
    with pytest.raises(ZeroDivisionError):
        await race.first(fails(), ends("second"))
