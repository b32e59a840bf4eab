"""`lift-serve chat` against the front end: in a pipe, and on a terminal, where Ctrl-C stops an answer only."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.lift_server.commands import Command, Screen

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."


@pytest.fixture
async def document(front_end: Any, worker: Any) -> str:
    uploaded = await front_end.upload(TEXT)
    await worker.train()
    return str(uploaded["id"])


async def test_a_conversation_is_kept(front_end: Any, engine: Any, tmp_path: Path, document: str) -> None:
    chat = Command("chat", tmp_path)
    code, output, errors = await chat(document, "--url", front_end.url, given="How many bees?\n\nAnd goats?\n")
    assert (code, output, errors) == (0, "The answer is 42.\nThe answer is 42.\n", "")
    roles = [(message["role"], message["content"]) for message in engine.asked[-1]["messages"][1:]]
    assert roles == [("user", "How many bees?"), ("assistant", "The answer is 42."), ("user", "And goats?")]


async def test_quit_ends_it(front_end: Any, engine: Any, tmp_path: Path, document: str) -> None:
    code, output, _ = await Command("chat", tmp_path)(document, "--url", front_end.url, given="/quit\nWho?\n")
    assert (code, output, engine.asked) == (0, "", [])


async def test_in_a_pipe_a_refusal_ends_it(front_end: Any, engine: Any, tmp_path: Path, document: str) -> None:
    engine.stream_error = {"error": {"message": "It broke.", "type": "InternalServerError", "code": 500}}
    code, _, errors = await Command("chat", tmp_path)(document, "--url", front_end.url, given="Who?\nWhere?\n")
    assert code == 1
    assert errors.startswith("lift-serve chat: ")
    assert len(engine.asked) == 1


async def test_on_a_terminal(front_end: Any, engine: Any, tmp_path: Path, document: str) -> None:
    """Ctrl-C stops an answer, whose beginning is kept; then at the prompt it does nothing; Ctrl-D ends it."""
    engine.gate = asyncio.Event()
    ours, theirs = pty.openpty()
    process = await Command("chat", tmp_path, TERM="dumb").start(
        *(document, "--url", front_end.url), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = Screen(ours)
    async with asyncio.timeout(50):
        await screen.shows("Ctrl-C stops an answer")
        await screen.shows("> ")
        screen.types("How many bees?\n")
        await engine.streaming.wait()
        await screen.shows("The")
        process.send_signal(signal.SIGINT)
        await engine.aborted.wait()
        await screen.shows("> ")
        process.send_signal(signal.SIGINT)
        await screen.shows("> ")
        engine.gate = None
        screen.types("And goats?\n")
        await screen.shows("The answer is 42.")
        await screen.shows("> ")
        screen.types("\x04")
        assert await process.wait() == 0
    os.close(ours)
    said = [message["content"] for message in engine.asked[-1]["messages"][1:]]
    assert said == ["How many bees?", "The", "And goats?"]
