"""An engine that takes requests and never answers: found out by its /health, and not asked until that answers again.
One that takes no connections: asked only where no other engine is left, until its /health has answered for a while.

In: requests that wait for an answer's headers, connections that failed. Out: EngineUnavailable for requests once the
engine is known to hang, and at once for those that come while it does; whether others should be asked first.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from lift_server.errors import EngineUnavailable

log = logging.getLogger(__name__)

SUSPECT_S = 10.0  # without headers for so long. An answer in one piece may take longer, hence the look at /health
PROBE_S = 5.0  # that /health has; it needs milliseconds, unless a busy processor or a paused process is in the way
PROBES = 2  # without an answer, one after the other, before it counts as hanging
STEADY = 3  # answers of /health, one after the other, before it is asked as before: it may be failing by turns
LOOK_S = 1.0
LONGEST_S = 8.0  # between two probes of an engine that hangs; the pauses double


class Breaker:
    """One engine's. `probe` asks its /health and takes PROBE_S at most."""

    def __init__(self, name: str, probe: Callable[[], Awaitable[bool]]) -> None:
        self.is_open = False  # it hangs
        self.is_away = False  # it hangs, or could not be connected to, or has only just come back
        self._name, self._probe = name, probe
        self._waiting: dict[asyncio.Timeout, float] = {}
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

    def refused(self) -> None:
        """Call where no connection could be made."""
        if not self.is_away:
            log.warning("%s takes no connections: other engines are asked first", self._name)
        self.is_away = True
        self._look()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def _look(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """While anybody waits, or the engine is away."""
        answered = unanswered = 0
        self._pause_s = LOOK_S
        while self._waiting or self.is_away:
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
        return bool(self._waiting) and _now_s() - min(self._waiting.values()) >= SUSPECT_S

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
        log.error("%s hangs: it is asked nothing until its /health answers; %d gave up", self._name, len(self._waiting))
        self.is_open = self.is_away = True
        for given_up in self._waiting:
            given_up.reschedule(_now_s())


def _now_s() -> float:
    """The loop's clock, which timeouts go by."""
    return asyncio.get_running_loop().time()
