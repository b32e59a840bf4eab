"""An engine that takes requests and never answers: found out by a probe of its core, and not asked until that answers.
One that takes no connections: asked only where no other engine is left, until the probe has answered for a while.

In: requests that wait for an answer's headers, streams, connections that failed. Out: EngineUnavailable for requests
once the engine is known to hang, and at once for those that come while it does; streams closed; who comes first.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from lift_server.errors import EngineUnavailable

log = logging.getLogger(__name__)

SUSPECT_S = 10.0  # without headers, or without a word in a stream. It may be queueing, or long: hence the probe
PROBE_S = 10.0  # that the core has for it: it answers after its step, which takes seconds at most, on a CPU
PROBES = 2  # without an answer, one after the other, before it counts as hanging
STEADY = 3  # answers to a probe, one after the other, before it is asked as before: it may be failing by turns
LOOK_S = 1.0
LONGEST_S = 8.0  # between two probes of an engine that hangs; the pauses double


class Stream(Protocol):
    """What is needed of aiohttp's response: to close it fails whoever reads it."""

    def close(self) -> None: ...


class Breaker:
    """One engine's. `probe` asks its core and takes PROBE_S at most."""

    def __init__(self, name: str, probe: Callable[[], Awaitable[bool]]) -> None:
        self.is_open = False  # it hangs
        self.is_away = False  # it hangs, or could not be connected to, or has only just come back
        self._is_retired = False
        self._name, self._probe = name, probe
        self._waiting: dict[asyncio.Timeout, float] = {}
        self._streams: dict[Stream, float] = {}  # when each was heard last
        self._pause_s = LOOK_S
        self._watching: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Around the wait for an answer's headers. EngineUnavailable where it hangs already, TimeoutError where it is
        found out meanwhile."""
        if self.is_open:
            raise EngineUnavailable(math.ceil(self._pause_s))
        async with asyncio.timeout(None) as given_up:
            self._waiting[given_up] = _now_s()
            self._look()
            try:
                yield
            finally:
                del self._waiting[given_up]

    @contextmanager
    def listening(self, stream: Stream) -> Iterator[Callable[[], None]]:
        """While it is read; call what this yields at every part. Closed where the engine is found to hang."""

        def heard() -> None:
            self._streams[stream] = _now_s()

        heard()
        self._look()
        try:
            yield heard
        finally:
            del self._streams[stream]

    def refused(self) -> None:
        """Call where no connection could be made."""
        if not self.is_away:
            log.warning("%s takes no connections: other engines are asked first", self._name)
        self.is_away = True
        self._look()

    def retire(self) -> None:
        """The engine is known no more: watched as long as anybody waits or listens, and not for its return."""
        self._is_retired = True

    def restore(self) -> None:
        """It is known again; where it was away, it has to answer for a while as any other."""
        self._is_retired = False
        if self.is_away:
            self._look()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def _look(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """While anybody waits or listens, or the engine is away and may come back."""
        answered = unanswered = 0
        self._pause_s = LOOK_S
        while self._waiting or self._streams or (self.is_away and not self._is_retired):
            await asyncio.sleep(self._pause_s)
            if not self.is_away and not self._is_suspect():
                answered = unanswered = 0
            elif await self._probe():
                answered, unanswered = answered + 1, 0
                self._answers(answered)
            else:
                answered, unanswered = 0, unanswered + 1
                if unanswered >= PROBES and (self.is_open or self._is_suspect()):
                    self._hangs()

    def _is_suspect(self) -> bool:
        since_s = min((*self._waiting.values(), *self._streams.values()), default=math.inf)
        return _now_s() - since_s >= SUSPECT_S

    def _answers(self, times: int) -> None:
        if self.is_open:
            log.warning("%s answers again", self._name)
        self.is_open, self._pause_s = False, LOOK_S
        if self.is_away and times >= STEADY:
            self.is_away = False
            log.warning("%s is asked as before", self._name)

    def _hangs(self) -> None:
        if self.is_open:
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
            return
        given_up = len(self._waiting) + len(self._streams)
        log.error("%s hangs: it is asked nothing until its core answers; %d gave up", self._name, given_up)
        self.is_open = self.is_away = True
        for waiting in self._waiting:
            waiting.reschedule(_now_s())
        for stream in self._streams:
            stream.close()


def _now_s() -> float:
    """The loop's clock, which timeouts go by."""
    return asyncio.get_running_loop().time()
