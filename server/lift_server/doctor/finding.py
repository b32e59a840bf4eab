"""A check → findings, within a time: each is a line that says what is so and, where it should not be, what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum

CHECK_S = 5.0
GIVE_UP_S = 1.0  # for a check that ran out of time to tidy up


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """`part` is what was looked at; `fix` is empty where nothing is to be done."""

    part: str
    state: State
    what: str
    fix: str = ""

    def line(self) -> str:
        return f"{self.state:<4}  {self.part}: {self.what}" + (f" — {self.fix}" if self.fix else "")


def ok(part: str, what: str) -> Finding:
    return Finding(part, State.OK, what)


def warn(part: str, what: str, fix: str) -> Finding:
    return Finding(part, State.WARN, what, fix)


def fail(part: str, what: str, fix: str) -> Finding:
    return Finding(part, State.FAIL, what, fix)


async def within(part: str, check: Awaitable[list[Finding]], limit_s: float = CHECK_S) -> list[Finding]:
    """A check that breaks, or takes too long, is a finding itself; it keeps no other from being made."""
    task = asyncio.ensure_future(check)
    await asyncio.wait({task}, timeout=limit_s)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=GIVE_UP_S)
        return [fail(part, f"no answer within {limit_s:.0f} s", "see whether it hangs, and what its log says")]
    if error := task.exception():
        said = " ".join(str(error).split()) or type(error).__name__
        return [fail(part, said, "see what its log says")]
    return task.result()
