"""The training child as its supervisor holds it: one process with the base model in memory, JSON lines both ways.

In: the command to start it; messages. Out: events. A child that ends or falls silent is an exception here, so no
wait for it can last for ever. By contract the child ends when its stdin does, so it never outlives its supervisor.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from lift_workers.jobs import JobFailed

LINE_BYTES = 64 * 2**20  # far above any event; a bound, so that a broken child can't fill the memory
EXIT_S = 5.0  # between the end of a child's stdout and its own

Event = dict[str, Any]

logger = logging.getLogger(__name__)


class TrainerDied(JobFailed):
    """The child's process ended; `returncode` is negative where a signal did it."""

    def __init__(self, returncode: int) -> None:
        super().__init__("trainer_died", f"The training process ended with code {returncode}.", retry=True)
        self.returncode = returncode


class TrainerStalled(JobFailed):
    """The child said nothing for `stall_s`."""

    def __init__(self, stall_s: float) -> None:
        super().__init__("trainer_stalled", f"The training process was silent for {stall_s:g} s.", retry=True)


class Trainer:
    """`argv` speaks the protocol; `env` is its whole environment, None for this process's own."""

    def __init__(self, argv: Sequence[str], stall_s: float, env: Mapping[str, str] | None = None) -> None:
        self._argv = argv
        self._stall_s = stall_s
        self._env = env
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the child and wait until its model is loaded."""
        await self.kill()
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            process_group=0,  # its own, so that kill() reaches its children; the session stays, so `up` finds it
            env=self._env,
        )
        logger.info("trainer %d: starting", self._process.pid)
        try:
            event = await self.receive()
            if event.get("event") != "ready":
                raise ValueError(f"the trainer's first event is {event.get('event')!r}, not 'ready'")
        except BaseException:  # cancellation too: half started is not `running`
            await self.kill()
            raise
        logger.info("trainer %d: ready", self._process.pid)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Write one message; waits while the child does not read. The next receive() tells of a child that ended
        with the message still in its pipe."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            await process.stdin.drain()
            if process.stdin.is_closing():  # broken by this very write: drain() does not always say so
                raise BrokenPipeError
        except ConnectionError as error:
            raise TrainerDied(await self._exit_code()) from error

    async def receive(self) -> Event:
        """The child's next event; JobFailed where it is that it ends, and why."""
        process = self._started()
        assert process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(self._stall_s):  # not wait_for: in 3.11 it may swallow a cancellation
                    line = await process.stdout.readline()
            except TimeoutError as error:
                raise TrainerStalled(self._stall_s) from error
            if not line.endswith(b"\n"):  # the end of the stream, perhaps in the middle of a line
                raise TrainerDied(await self._exit_code())
            if line.startswith(b"{"):
                event: Event = json.loads(line)
                if event["event"] == "failed":
                    raise JobFailed(event["code"], event["message"], retry=True)
                return event
            logger.warning("trainer %d: %d bytes on stdout that are no event", process.pid, len(line))

    async def kill(self) -> None:
        """End the child and whatever it started, at once, and leave nothing of it behind."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
        await process.wait()
        await process.stdout.read()  # up to its end, which closes the pipe's transport

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the trainer was never started")
        return self._process

    async def _exit_code(self) -> int:
        """Its exit code, where it ends by itself; a child that only closed its stdout is killed."""
        process = self._started()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), EXIT_S)
        await self.kill()
        return process.returncode if process.returncode is not None else -signal.SIGKILL
