"""How an engine's stream is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lift_server.engine_reply import events, read_event
from lift_server.errors import ApiError


class Reply:
    """A response whose body comes in the given parts."""

    def __init__(self, *parts: bytes) -> None:
        self.content = self
        self.parts = parts

    async def iter_any(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


async def read(*parts: bytes) -> list[Any]:
    return [read_event(event) async for several in events(Reply(*parts), lambda: None) for event in several]  # type: ignore[arg-type]


async def test_a_stream_cut_anywhere_reads_the_same() -> None:
    body = ': keep-alive\n\nevent: a\ndata: {"a": "é\\n"}\n\ndata: {"b": [1, 2]}\n\ndata: [DONE]\n\n'.encode()
    for size in range(1, len(body)):
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        assert await read(*parts) == [{"a": "é\n"}, {"b": [1, 2]}]


async def test_an_error_event_is_raised() -> None:
    with pytest.raises(ApiError) as raised:
        await read(b'data: {"error": {"message": "This model\'s maximum context length is 8.", "code": 400}}\n\n')
    assert (raised.value.status, raised.value.code) == (400, "context_length_exceeded")
