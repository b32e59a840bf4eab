"""A plan's faults, put upon a running product one after the other; each time it has to come back by itself.

In: Faults. Out: what was done and how long the product took to be ready again, in the journal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.faults.journal import Journal
from tests.faults.plan import Fault
from tests.product import START_S, Product, until

Say = Callable[[str], None]

APPENDED = "appendonlydir"  # Valkey's data
QUIET_S = 60.0  # the next fault comes then even if clients were told nothing more


async def inject(product: Product, faults: list[Fault], journal: Journal, say: Say) -> None:
    """Ends when all were put, or with AssertionError where the product did not come back."""
    for fault in faults:
        await _clients_go_on(journal, fault.after)
        began_s = time.monotonic()
        await asyncio.to_thread(_put, product, fault)
        await asyncio.to_thread(_comes_back, product, fault)
        ready_after_s = time.monotonic() - began_s - fault.seconds
        journal.fault(str(fault), ready_after_s)
        say(f"{fault}: ready again after {ready_after_s:.1f} s; {len(journal.violations)} violations so far")


async def _clients_go_on(journal: Journal, facts: int) -> None:
    """Until clients were told so many more things. It polls: nobody announces them."""
    deadline_s, first = time.monotonic() + QUIET_S, journal.count
    while journal.count < first + facts and time.monotonic() < deadline_s:
        await asyncio.sleep(0.1)


def _put(product: Product, fault: Fault) -> None:
    pid = until(lambda: _pid(product, fault.part), START_S)
    with suppress(ProcessLookupError):  # it ended in this very moment
        if fault.kind == "pause":
            os.kill(pid, signal.SIGSTOP)
            time.sleep(fault.seconds)
            os.kill(pid, signal.SIGCONT)
            return
        if fault.kind == "lose":
            _forget(product.home / "redis")
        os.kill(pid, signal.SIGKILL)
        until(lambda: not _lives(pid), START_S)


def _pid(product: Product, part: str) -> int | None:
    """Of the part, or of the process it started; None where there is none just now."""
    name, _, child = part.partition(":")
    with suppress(ValueError, FileNotFoundError, ProcessLookupError):  # it is being started, or ends
        if not child:
            return product.pid(name)
        return next((pid for pid in product.children(name) if not _is_helper(pid)), None)
    return None


def _is_helper(pid: int) -> bool:
    """Python's own, beside what the part means to start: killing it disturbs nothing."""
    return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _forget(folder: Path) -> None:
    """What Redis writes goes where it will not look for it when it begins anew."""
    (folder / APPENDED).rename(folder / f"lost-{time.time_ns()}")


def _comes_back(product: Product, fault: Fault) -> None:
    until(lambda: _pid(product, fault.part) is not None and product.is_ready(), START_S)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
