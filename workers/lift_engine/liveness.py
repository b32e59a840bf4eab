"""Ends the engine's process once vLLM's core has died or hangs, so that whoever supervises it starts it again.

In: vLLM's AsyncLLM. Out: exit code 1. vLLM 0.32 means to end by itself when its core dies, but its HTTP server waits
for every request first, and what waited for a utility call of the core (a load, a probe) in that moment waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

LOOK_S = 1.0
GRACE_S = 10.0  # for vLLM to answer what it can, and to end by itself
SLICES = 10
HANG_S = 300.0  # no step takes so long; the server has asked other engines since breaker.py's 30 s


class Core(Protocol):
    """The part of vLLM's AsyncLLM used here."""

    @property
    def errored(self) -> bool: ...
    async def is_sleeping(self) -> bool: ...


async def end_with(core: Core, end: Callable[[int], object] = os._exit) -> None:
    """Calls `end`, which passes over whatever waits, GRACE_S after the core's death or HANG_S after its last answer."""
    dies, hangs = asyncio.create_task(_dies(core)), asyncio.create_task(_hangs(core))
    try:
        await asyncio.wait({dies, hangs}, return_when=asyncio.FIRST_COMPLETED)
        if dies.done():
            logger.warning("vLLM's core has ended: this process does so in %g s at the latest", GRACE_S)
            await asyncio.sleep(GRACE_S)
        else:
            logger.error("vLLM's core has not answered for %g s: this process ends", HANG_S)
        end(1)
    finally:
        dies.cancel()
        hangs.cancel()


async def _dies(core: Core) -> None:
    while not core.errored:
        await asyncio.sleep(LOOK_S)  # vLLM does not announce it


async def _hangs(core: Core) -> None:
    while True:
        probe = asyncio.ensure_future(core.is_sleeping())
        for _ in range(SLICES):  # a machine that was paused comes back in one of them, and the core answers in the next
            await asyncio.wait({probe}, timeout=HANG_S / SLICES)
        if not probe.done():
            probe.cancel()
            return
        if error := probe.exception():  # an answer too; of a core that is dead `_dies` knows
            logger.warning("vLLM's core answered its probe with %r", error)
        await asyncio.sleep(HANG_S / SLICES)
