"""The command `lift-serve`, and the examples that `lift-serve up` prints, against FakeLift."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.lift_server.commands import Command, Screen

from lift_server.exits import MEANINGS
from lift_server.launcher.examples import QUESTION, TEXT, examples, python_example, shell_example

ID = "doc_" + "ab" * 12


class FakeLift:
    """LIFT's HTTP surface as far as it is used here; what came in is kept.

    Each look at the document brings it one status further.
    """

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)
        self.uploads: list[dict[str, Any]] = []
        self.questions: list[dict[str, Any]] = []

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """The address."""
        app = web.Application()
        app.router.add_post("/v1/documents", self._upload)
        app.router.add_get("/v1/documents", self._list)
        app.router.add_get("/v1/documents/{id}", self._document)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def _now(self) -> dict[str, Any]:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        error = {"code": "trainer_died", "message": "It died."} if status == "failed" else None
        progress = {"phase": "train", "fraction": 0.25}
        return {
            **{"object": "document", "id": ID, "status": status, "title": "Log", "filename": None},
            **{"progress": progress, "error": error},
        }

    async def _upload(self, request: web.Request) -> web.Response:
        if request.content_type == "application/json":
            self.uploads.append(await request.json())
        else:
            form = await request.post()
            self.uploads.append(
                {name: part.file.read() if isinstance(part, web.FileField) else part for name, part in form.items()}
            )
        return web.json_response(self._now())

    async def _document(self, request: web.Request) -> web.Response:
        if request.match_info["id"] != ID:
            message = f"No document {request.match_info['id']}."
            return web.json_response({"error": {"message": message, "code": "document_not_found"}}, status=404)
        return web.json_response(self._now())

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._now()]})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "smol"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.questions.append(await request.json())
        if not self.questions[-1].get("stream"):
            message = {"role": "assistant", "content": "Edda Holm."}
            return web.json_response({"id": "1", "object": "chat.completion", "choices": [{"message": message}]})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b": waiting\n\n")
        for text in ("Edda ", "Holm."):
            chunk = {"choices": [{"delta": {"content": text}}]}
            await answer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await answer.write(b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n')
        return answer


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an upload here remembers is nobody else's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


async def run(*command: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def lift_serve(*arguments: str) -> tuple[int, str, str]:
    return await run(sys.executable, "-m", "lift_server.cli", *arguments)


async def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = "import sys, lift_server.cli; print([m for m in ('aiohttp', 'fastapi', 'pydantic') if m in sys.modules])"
    assert await run(sys.executable, "-c", heavy) == (0, "[]\n", "")
    code, output, _ = await lift_serve("--help")
    assert code == 0
    assert {"up", "server", "worker", "engine", "upload", "ask", "status", "doctor"} <= set(output.split())
    for exit_code, meaning in MEANINGS.items():
        assert f"  {exit_code:<4} {meaning}\n" in output


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lift-serve dead", "dead-letters"),
        ("lift-serve ask --mode hy", "hybrid"),
        ("lift-serve keys create --own", "--owner"),
    ],
)
async def test_a_shell_completes(tmp_path: Path, line: str, offered: str) -> None:
    path = tmp_path / "offered"
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": "1"}
    command = Command("", tmp_path, _ARGCOMPLETE_STDOUT_FILENAME=str(path), **asked)
    assert (await command())[::2] == (0, "")
    assert path.read_text().split() == [offered]


async def test_upload_prints_the_id_alone(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("The lamp burns oil.")
    lift = FakeLift("queued")
    async with lift.serve() as url:
        answer = await lift_serve("upload", str(tmp_path / "log.txt"), "--url", url, "--title", "Log")
    assert answer == (0, f"{ID}\n", "")
    assert lift.uploads == [{"title": "Log", "file": b"The lamp burns oil."}]


async def test_upload_can_wait_and_tells_of_progress(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("The lamp burns oil.")
    async with FakeLift("queued", "training", "ready").serve() as url:
        code, output, errors = await lift_serve("upload", str(tmp_path / "log.txt"), "--url", url, "--wait")
    assert (code, output) == (0, f"{ID}\n")
    assert errors == f"{ID}  training  train 25 %  Log\n{ID}  ready  Log\n"


async def test_on_a_terminal_progress_is_a_bar(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("The lamp burns oil.")
    ours, theirs = pty.openpty()
    async with FakeLift("queued", "training", "ready").serve() as url:
        arguments = (str(tmp_path / "log.txt"), "--url", url, "--wait")
        process = await Command("upload", tmp_path).start(*arguments, stdout=theirs, stderr=theirs)
        os.close(theirs)
        screen = Screen(ours)
        async with asyncio.timeout(20):
            await screen.shows(f"{ID}\r\n")
            await screen.shows("\r\x1b[K[######..................]  25 %  train  Log")
            await screen.shows(f"\r\x1b[K{ID}  ready  Log\r\n")
            assert await process.wait() == 0
    os.close(ours)


async def test_waiting_for_a_document_that_fails_fails(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("The lamp burns oil.")
    async with FakeLift("queued", "failed").serve() as url:
        code, _, errors = await lift_serve("upload", str(tmp_path / "log.txt"), "--url", url, "--wait")
    assert code == 4
    assert "It died." in errors


async def test_ask_prints_the_answer() -> None:
    lift = FakeLift("ready")
    async with lift.serve() as url:
        answer = await lift_serve("ask", ID, "Who?", "--mode", "context", "--url", url)
    assert answer == (0, "Edda Holm.\n", "")
    (question,) = lift.questions
    assert (question["model"], question["document_id"], question["lift"]) == ("smol", ID, {"mode": "context"})


async def test_status_lists_or_shows() -> None:
    async with FakeLift("training").serve() as url:
        assert await lift_serve("status", "--url", url) == (0, f"{ID}  training  train 25 %  Log\n", "")
        code, output, _ = await lift_serve("status", ID, "--url", url)
    assert code == 0
    assert json.loads(output)["status"] == "training"


async def test_the_servers_own_words_are_shown_when_it_refuses() -> None:
    async with FakeLift("ready").serve() as url:
        assert await lift_serve("status", "doc_0", "--url", url) == (1, "", "lift-serve status: No document doc_0.\n")


async def test_no_server_is_said_so() -> None:
    code, _, errors = await lift_serve("status", "--url", "http://127.0.0.1:9")
    assert code == 3
    assert errors.startswith("lift-serve status: Cannot connect to host 127.0.0.1:9 (Connection refused): start")


async def test_wrong_arguments_are_refused() -> None:
    assert (await lift_serve("status", "--colour"))[0] == 2
    assert (await lift_serve())[0] == 2


async def test_the_python_example_works_as_it_is_printed() -> None:
    lift = FakeLift("queued", "training", "ready")
    async with lift.serve() as url:
        assert python_example(url, "smol") in examples(url, "smol", 1)
        assert await run(sys.executable, "-c", python_example(url, "smol")) == (0, "Edda Holm.\n", "")
    assert lift.uploads[0]["text"] == TEXT
    assert lift.questions[0]["document_id"] == ID


async def test_the_shell_example_works_as_it_is_printed() -> None:
    lift = FakeLift("queued")
    async with lift.serve() as url:
        assert shell_example(url, "smol") in examples(url, "smol", 1)
        code, output, errors = await run("bash", "-euc", shell_example(url, "smol"))
    assert (code, errors) == (0, "")
    assert "Edda Holm." in output
    assert lift.uploads[0]["text"] == TEXT
    assert lift.questions[0]["document_id"] == ID
    assert lift.questions[0]["messages"][0]["content"] == QUESTION
