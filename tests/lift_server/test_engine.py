"""Which engine is asked, and how its stream is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lift_server.engine import Engine, _events, read_event
from lift_server.errors import ApiError


async def test_one_more_engine_moves_only_what_it_takes() -> None:
    two, three = Engine(("http://a", "http://b"), ""), Engine(("http://b", "http://c", "http://a"), "")
    names = [f"adapter {n}" for n in range(300)]
    before, after = [two.place(name) for name in names], [three.place(name) for name in names]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"http://c"}
    assert 60 < len(moved) < 140
    await two.close()
    await three.close()


class Reply:
    """A response whose body comes in the given parts."""

    def __init__(self, *parts: bytes) -> None:
        self.content = self
        self.parts = parts

    async def iter_any(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


async def read(*parts: bytes) -> list[Any]:
    return [read_event(event) async for events in _events(Reply(*parts)) for event in events]  # type: ignore[arg-type]


async def test_a_stream_cut_anywhere_reads_the_same() -> None:
    body = ': keep-alive\n\nevent: a\ndata: {"a": "é\\n"}\n\ndata: {"b": [1, 2]}\n\ndata: [DONE]\n\n'.encode()
    for size in range(1, len(body)):
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        assert await read(*parts) == [{"a": "é\n"}, {"b": [1, 2]}]


async def test_an_error_event_is_raised() -> None:
    with pytest.raises(ApiError) as raised:
        await read(b'data: {"error": {"message": "This model\'s maximum context length is 8.", "code": 400}}\n\n')
    assert (raised.value.status, raised.value.code) == (400, "context_length_exceeded")
