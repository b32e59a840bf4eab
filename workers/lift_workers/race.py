"""Waiting for the first of several pieces of work, the others ended for certain.

In: coroutines. Out: the result or the exception of the first to end; none of the others still runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

CANCEL_AGAIN_S = 5.0  # more than an orderly end of a cancelled task takes

T = TypeVar("T")


async def first(*works: Coroutine[Any, Any, T]) -> T:
    """Run all until one ends, and cancel the others; of several that ended at once the one named first counts."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        await ended(*tasks)


async def ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what has not ended, and again what swallows it, as redis-py may in Python 3.11 (`wait_for`)."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
