import asyncio
import gc
import os
import select
import sys
from typing import Any

import pytest

from lift_workers.jobs import JobFailed
from lift_workers.trainer import Trainer, TrainerDied, TrainerStalled

READY = 'import json, os, signal, subprocess, sys, time\nprint(json.dumps({"event": "ready"}), flush=True)\n'
ECHO = READY + 'for line in sys.stdin: print(json.dumps({"event": "echo", "of": json.loads(line)}), flush=True)\n'


def trainer(code: str, stall_s: float = 20.0) -> Trainer:
    return Trainer((sys.executable, "-S", "-c", code), stall_s)


async def test_messages_and_events_longer_than_a_pipe_holds() -> None:
    child = trainer(ECHO)
    await child.start()
    message: dict[str, Any] = {"text": "x" * 3_000_000, "line": "a\nb"}
    _, event = await asyncio.gather(child.send(message), child.receive())
    assert event == {"event": "echo", "of": message}
    await child.kill()


async def test_what_is_no_event_is_passed_over() -> None:
    child = trainer('print("Loading weights:  10%")\n' + ECHO)
    await child.start()
    await child.send({"n": 1})
    assert (await child.receive())["of"] == {"n": 1}
    await child.kill()


async def test_the_end_of_stdin_ends_the_child() -> None:
    child = trainer(ECHO)
    await child.start()
    process = child._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0
    assert not child.running
    await child.kill()


@pytest.mark.parametrize(
    ("end", "returncode"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", -9), ("os._exit(0)", 0)]
)
async def test_a_child_that_ends_is_told_with_its_code(end: str, returncode: int) -> None:
    child = trainer(f"{READY}sys.stdin.readline()\n{end}")
    await child.start()
    await child.send({"do": "end"})
    with pytest.raises(TrainerDied) as died:
        await child.receive()
    assert died.value.returncode == returncode
    assert died.value.retry
    assert not child.running


async def test_a_child_that_says_why_it_ends() -> None:
    event = '{"event": "failed", "code": "out_of_memory", "message": "m"}'
    child = trainer(f"{READY}print({event!r})")
    await child.start()
    with pytest.raises(JobFailed) as failed:
        await child.receive()
    assert (failed.value.failure.code, failed.value.failure.message, failed.value.retry) == ("out_of_memory", "m", True)
    await child.kill()


async def test_a_message_to_a_child_that_has_ended() -> None:
    child = trainer(READY)
    await child.start()
    with pytest.raises(TrainerDied):
        await child.send({"text": "x" * 3_000_000})  # more than a pipe takes with nobody reading
    assert not child.running


async def test_a_silent_child_has_stalled() -> None:
    child = trainer(f"{READY}signal.pause()", stall_s=1.5)  # time enough to start on a busy machine
    await child.start()
    with pytest.raises(TrainerStalled):
        await child.receive()
    await child.kill()


async def test_a_child_that_ends_before_it_is_ready() -> None:
    child = trainer("import sys; sys.exit(7)")
    with pytest.raises(TrainerDied) as died:
        await child.start()
    assert died.value.returncode == 7
    assert not child.running


async def test_a_child_that_is_never_ready_is_not_left_running() -> None:
    child = trainer("import signal; signal.pause()", stall_s=0.3)
    with pytest.raises(TrainerStalled):
        await child.start()
    assert not child.running


async def test_kill_reaches_the_childs_children_and_a_new_start_works() -> None:
    tell = 'print(json.dumps({"event": "started", "pid": sub.pid}), flush=True)'
    child = trainer(f'{READY}sub = subprocess.Popen(["sleep", "600"])\n{tell}\nsignal.pause()')
    await child.start()
    grandchild = os.pidfd_open((await child.receive())["pid"])
    assert child._process is not None
    pid = child._process.pid
    await child.kill()
    with pytest.raises(ProcessLookupError):  # reaped: no zombie
        os.kill(pid, 0)
    ended, _, _ = await asyncio.to_thread(select.select, [grandchild], [], [], 10)
    os.close(grandchild)
    assert ended
    await child.kill()  # twice is harmless
    await child.start()
    assert child.running
    await child.kill()
    gc.collect()  # a pipe left open would warn now, and a warning is an error
