"""`lift-serve upload | ask | docs | status | rm | export` against the front end, over its socket."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import signal
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.lift_server.commands import Command, Screen

from lift_config.settings import ServerSettings
from lift_server.client.connection import own_address

TEXT = "The lighthouse keeper of Orvel keeps eleven bees."
UNKNOWN = "doc_" + "0" * 24
Ask = Callable[[str], Command]


@pytest.fixture
def lift(front_end: Any, tmp_path: Path) -> Ask:
    """A command that speaks to the front end."""
    host, port = front_end.url.removeprefix("http://").split(":")
    return lambda name: Command(name, tmp_path, LIFT_SERVER__HOST=host, LIFT_SERVER__PORT=port)


def written(folder: Path, name: str = "log.txt", text: str = TEXT) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


async def uploaded(lift: Ask, folder: Path) -> str:
    code, output, errors = await lift("upload")(written(folder))
    assert (code, errors) == (0, "")
    return output.strip()


async def test_upload_then_ask_is_about_that_document(lift: Ask, engine: Any, worker: Any, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    await worker.train()
    code, output, errors = await lift("ask")("How many bees?")
    assert (code, output) == (0, "The answer is 42.\n")
    assert errors == f"asking {document_id}, uploaded last from here\n"
    assert engine.asked[-1]["messages"][-1]["content"] == "How many bees?"
    path = tmp_path / "state" / "lift-serve" / "last.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(json.loads(path.read_text()).values()) == [document_id]


async def test_what_was_uploaded_last_is_kept_for_each_address(lift: Ask, start: Any, tmp_path: Path) -> None:
    await uploaded(lift, tmp_path)
    other = await start()
    code, output, errors = await lift("ask")("How many bees?", "--url", other.url)
    assert (code, output) == (2, "")
    assert f"no document was uploaded to {other.url} from here" in errors
    assert "lift-serve upload FILE" in errors


async def test_an_address_is_understood_as_people_write_it(lift: Ask, front_end: Any, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    for url in (front_end.url + "/", front_end.url + "/v1", front_end.url.removeprefix("http://")):
        assert (await lift("docs")("--url", url))[1].startswith(document_id)


async def test_a_deleted_document_is_asked_no_more(lift: Ask, front_end: Any, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    assert await lift("rm")(document_id) == (0, f"{document_id}\n", "")
    assert (await front_end.client.get(f"/v1/documents/{document_id}")).status_code == 404
    assert (await lift("ask")("How many bees?"))[0] == 2


async def test_a_named_document_may_stand_beside_options(lift: Ask, engine: Any, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    assert await lift("ask")(document_id, "--mode", "context", "Who?") == (0, "The answer is 42.\n", "")
    assert TEXT in str(engine.asked[-1]["messages"])
    code, output, _ = await lift("ask")(document_id, "Who?", "--mode", "context", "--json")
    answer = json.loads(output)
    assert (code, answer["choices"][0]["message"]["content"]) == (0, "The answer is 42.")
    assert (answer["lift"]["document_id"], answer["lift"]["answered_from"]) == (document_id, "context")


async def test_what_the_document_says_about_an_answer(lift: Ask, front_end: Any, engine: Any) -> None:
    document_id = (await front_end.upload("# Bees\n\nThe keeper keeps eleven bees.\n\nIts lamp burns oil."))["id"]
    asked = (document_id, "How many bees?", "--mode", "context", "--evidence")
    engine.words = ["There", " are", " eleven."]
    code, output, errors = await lift("ask")(*asked)
    assert (code, errors) == (0, "")
    answer, *found = output.splitlines()
    assert answer == "There are eleven."
    assert found[0] == "supports (Bees): # Bees The keeper keeps eleven bees. Its lamp burns oil."
    engine.words = ["Quux."]
    code, output, _ = await lift("ask")(document_id, "Zzyzx?", *asked[2:])
    assert (code, output) == (0, "Quux.\nno segment shares a word with the question or the answer\n")
    engine.scoring_error = (500, {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}})
    code, output, errors = await lift("ask")(*asked)
    assert (code, output) == (1, "Quux.\n")
    assert "the answer stands, but its evidence failed" in errors


async def test_several_documents_are_asked_as_one(lift: Ask, front_end: Any, engine: Any, tmp_path: Path) -> None:
    files = (written(tmp_path, "a.txt", TEXT + " A."), written(tmp_path, "b.txt", TEXT + " B."))
    ids = (await lift("upload")(*files))[1].split()
    code, output, errors = await lift("ask")(*ids, "--mode", "context", "How many bees?", "--json")
    assert (code, errors) == (0, "")
    assert sorted(json.loads(output)["lift"]["document_ids"]) == sorted(ids)
    assert 'Document "b.txt"' in str(engine.asked[-1]["messages"])
    code, _, errors = await lift("ask")(*ids)
    assert (code, "The question is missing" in errors) == (2, True)
    code, _, errors = await lift("ask")(*ids, "Who", "knows?")
    assert (code, "in quotes" in errors) == (2, True)


async def test_a_set_is_named_once_it_is_known(lift: Ask, front_end: Any, worker: Any, tmp_path: Path) -> None:
    """While it is trained, or else with the answer."""
    files = (written(tmp_path, "a.txt", TEXT + " A."), written(tmp_path, "b.txt", TEXT + " B."))
    ids = (await lift("upload")(*files))[1].split()
    pipe = asyncio.subprocess.PIPE
    process = await lift("ask").start(*ids, "How many bees?", stdout=pipe, stderr=pipe)
    assert process.stderr
    async with asyncio.timeout(50):
        told = (await process.stderr.readline()).decode()
        made = (await front_end.client.get("/v1/documents")).json()["data"][0]
        assert told == f"the 2 documents are asked as one, the set {made['id']}\n"
        await worker.train()
        assert await process.communicate() == (b"The answer is 42.\n", b"")
    assert await lift("ask")(*ids, "How many bees?") == (0, "The answer is 42.\n", told)


async def test_a_question_waits_no_longer_than_it_was_told(lift: Ask, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    code, output, errors = await lift("ask")(document_id, "--max-wait", "0", "How many bees?", "--json")
    assert (code, output, json.loads(errors)["error"]["code"]) == (1, "", "document_not_ready")
    for nonsense in ("-1", "inf", "soon"):
        assert (await lift("ask")(document_id, "--max-wait", nonsense, "How many bees?"))[0] == 2


@pytest.mark.parametrize("how", [[], ["--json"]])
async def test_what_failed_or_was_cancelled_has_an_exit_code_of_its_own(
    lift: Ask, front_end: Any, worker: Any, tmp_path: Path, how: list[str]
) -> None:
    document_id = await uploaded(lift, tmp_path)
    await front_end.client.post(f"/v1/documents/{document_id}/cancel")
    assert (await lift("ask")(document_id, "How many bees?", *how))[:2] == (4, "")
    failed = await front_end.upload(TEXT + " And a goat.")
    await worker.fail(await worker.newest_job(), "no usable task came of it")
    code, output, errors = await lift("ask")(failed["id"], "How many bees?", *how)
    assert (code, output, "no usable task came of it" in errors) == (4, "", True)


async def test_on_a_terminal_a_waiting_question_shows_how_far_its_document_is(
    lift: Ask, worker: Any, tmp_path: Path
) -> None:
    """The bar goes before the answer comes, which stays."""
    document_id = await uploaded(lift, tmp_path)
    ours, theirs = pty.openpty()
    process = await lift("ask").start(document_id, "How many bees?", stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = Screen(ours)
    async with asyncio.timeout(50):
        await screen.shows("queue")
        await worker.train()
        await screen.shows("\x1b[K")
        await screen.shows("The answer is 42.\r\n")
        assert await process.wait() == 0
    os.close(ours)


async def test_a_question_without_quotes_is_pointed_out(lift: Ask) -> None:
    code, _, errors = await lift("ask")("how", "many", "bees")
    assert (code, "in quotes" in errors) == (2, True)
    code, _, errors = await lift("ask")(UNKNOWN)
    assert (code, "The question is missing" in errors) == (2, True)


async def test_several_files_and_standard_input(lift: Ask, front_end: Any, tmp_path: Path) -> None:
    files = (written(tmp_path, "a.txt", TEXT + " A."), "-", written(tmp_path, "b.txt", TEXT + " B."))
    code, output, errors = await lift("upload")(*files, given=TEXT)
    assert (code, errors) == (0, "")
    contents = [(await front_end.client.get(f"/v1/documents/{one}/content")).text for one in output.split()]
    assert contents == [TEXT + " A.", TEXT, TEXT + " B."]


async def test_of_several_files_one_is_refused(lift: Ask, tmp_path: Path) -> None:
    empty, good = written(tmp_path, "empty.txt", ""), written(tmp_path)
    code, output, errors = await lift("upload")(empty, good)
    assert code == 1
    assert re.fullmatch(r"doc_[0-9a-f]{24}\n", output)
    assert errors.startswith("lift-serve upload empty.txt: ")
    assert errors.count("\n") == 1
    code, output, errors = await lift("upload")(empty, good, "--json")
    assert code == 1
    assert [document["filename"] for document in json.loads(output)["data"]] == ["log.txt"]
    told = json.loads(errors)
    assert (told["error"]["code"], told["file"]) == ("empty_document", "empty.txt")


@pytest.mark.parametrize("arguments", [("nowhere.txt",), (".",), ("log.txt", "nowhere.txt"), ("-", "-"),
                                       ("log.txt", "log.txt", "--title", "Log"), ("a\x01b",)])  # fmt: skip
async def test_what_cannot_be_read_uploads_nothing(
    lift: Ask, front_end: Any, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    written(tmp_path)
    code, output, errors = await lift("upload")(*arguments, cwd=tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith("lift-serve upload: ")
    assert errors.count("\n") == 1
    assert (await front_end.client.get("/v1/documents")).json()["data"] == []


async def test_waiting_in_json_says_nothing_else(lift: Ask, worker: Any, tmp_path: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await lift("upload").start(written(tmp_path), "--wait", "--json", stdout=pipe, stderr=pipe)
    async with asyncio.timeout(50):
        while not await worker.redis.xlen("lift:jobs"):
            await asyncio.sleep(0)
        await worker.train()
        output, errors = await process.communicate()
    (document,) = json.loads(output)["data"]
    assert (process.returncode, document["status"], errors) == (0, "ready", b"")


async def test_a_wait_that_is_interrupted(lift: Ask, tmp_path: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await lift("upload").start(written(tmp_path), "--wait", stdout=pipe, stderr=pipe)
    assert process.stdout
    assert process.stderr
    async with asyncio.timeout(50):
        assert (await process.stdout.readline()).startswith(b"doc_")
        await process.stderr.readline()  # it waits
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (130, b"")


async def test_a_training_that_is_cancelled_while_waited_for(lift: Ask, front_end: Any, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    await front_end.client.post(f"/v1/documents/{document_id}/cancel")
    pipe = asyncio.subprocess.PIPE
    process = await lift("upload").start(written(tmp_path), "--wait", stdout=pipe, stderr=pipe)
    assert process.stdout
    async with asyncio.timeout(50):
        again = (await process.stdout.readline()).decode().strip()
        await front_end.client.post(f"/v1/documents/{again}/cancel")
        _, errors = await process.communicate()
    assert process.returncode == 4
    assert errors.decode().endswith(f"lift-serve upload: {again} cancelled\n")


async def test_docs_lists_all_and_status_the_newest(lift: Ask, front_end: Any) -> None:
    ids = [(await front_end.upload(f"{TEXT} Number {number}."))["id"] for number in range(103)]
    code, output, errors = await lift("docs")()
    assert (code, errors) == (0, "")
    assert [line.split("  ")[0] for line in output.splitlines()] == ids[::-1]
    listed = json.loads((await lift("docs")("--json"))[1])
    assert [document["id"] for document in listed["data"]] == ids[::-1]
    newest = json.loads((await lift("status")("--json"))[1])
    assert [document["id"] for document in newest["data"]] == ids[:-21:-1]


async def test_rm_goes_on_after_a_refusal(lift: Ask, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    code, output, errors = await lift("rm")(UNKNOWN, document_id, "--json")
    assert code == 1
    assert [one["id"] for one in json.loads(output)["data"]] == [document_id]
    assert json.loads(errors)["error"]["code"] == "document_not_found"


async def test_export_writes_the_adapter(lift: Ask, worker: Any, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    code, output, errors = await lift("export")(document_id, cwd=tmp_path)
    assert (code, output) == (1, "")
    assert "no adapter yet" in errors
    await worker.train()
    assert await lift("export")(document_id, cwd=tmp_path) == (0, f"{document_id}-v1.tar\n", "")
    path = tmp_path / f"{document_id}-v1.tar"
    with tarfile.open(path) as archive:
        assert "adapter_model.safetensors" in archive.getnames()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_export_overwrites_only_when_told(lift: Ask, worker: Any, tmp_path: Path) -> None:
    document_id = await uploaded(lift, tmp_path)
    await worker.train()
    path = tmp_path / "kept.tar"
    path.write_text("mine")
    code, output, errors = await lift("export")(document_id, "-o", str(path))
    assert (code, output, path.read_text()) == (2, "", "mine")
    assert "--force" in errors
    code, output, _ = await lift("export")(document_id, "-o", str(path), "--force", "--json")
    assert (code, json.loads(output)) == (
        0,
        {"document_id": document_id, "file": str(path), "bytes": path.stat().st_size},
    )
    assert tarfile.is_tarfile(io.BytesIO(path.read_bytes()))
    for place in (tmp_path, tmp_path / "nowhere" / "a.tar"):
        assert (await lift("export")(document_id, "-o", str(place), "--force"))[0] == 2
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


@pytest.mark.parametrize(
    "arguments", [("status", UNKNOWN), ("status", "../models"), ("rm", "../uploads"), ("export", ".."),
                  ("ask", UNKNOWN, "Who?"), ("chat", UNKNOWN)],
)  # fmt: skip
async def test_unknown_documents(lift: Ask, arguments: tuple[str, ...]) -> None:
    code, output, errors = await lift(arguments[0])(*arguments[1:])
    assert (code, output) == (1, "")
    assert errors.startswith(f"lift-serve {arguments[0]}: ")
    assert errors.count("\n") == 1


async def test_a_key_is_shown(start: Any, tmp_path: Path, valkey_url: str) -> None:
    front_end = await start()
    _, secret, _ = await Command("keys", tmp_path, valkey_url)("create", "mine")
    docs = Command("docs", tmp_path)
    code, _, errors = await docs("--url", front_end.url, "--json")
    assert (code, json.loads(errors)["error"]["code"]) == (1, "invalid_api_key")
    assert await docs("--url", front_end.url, "--key", secret.strip()) == (0, "", "")
    assert await Command("docs", tmp_path, LIFT_API_KEY=secret.strip())("--url", front_end.url) == (0, "", "")
    assert (await docs("--url", front_end.url, "--key", "a\nb"))[0] == 2


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1:port", "127.0.0.1:99999"])
async def test_what_is_no_address(tmp_path: Path, url: str) -> None:
    code, output, errors = await Command("docs", tmp_path)("--url", url)
    assert (code, output) == (2, "")
    assert "is no address" in errors


async def test_settings_that_are_no_good(tmp_path: Path) -> None:
    for name, arguments in (("docs", ()), ("keys", ("list",)), ("dead-letters", ("list",)), ("up", ())):
        code, output, errors = await Command(name, tmp_path, LIFT_SERVER__PORT="none")(*arguments)
        assert (code, output) == (2, "")
        assert "settings: server.port: " in errors
        assert errors.count("\n") == 1


@pytest.mark.parametrize("name", ["my log.txt", "Übung 1.txt", 'a"b%20.txt', "日本語.md"])
async def test_a_file_keeps_its_name(lift: Ask, front_end: Any, tmp_path: Path, name: str) -> None:
    code, output, _ = await lift("upload")(written(tmp_path, name))
    document = (await front_end.client.get(f"/v1/documents/{output.strip()}")).json()
    assert (code, document["filename"]) == (0, name)


async def test_names_in_another_encoding(lift: Ask, front_end: Any, tmp_path: Path) -> None:
    """A Latin-1 file name is shown with a question mark; a title cannot be guessed at."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(path).write_text(TEXT)
    code, output, _ = await lift("upload")(path)
    assert (code, (await lift("docs")())[1]) == (0, f"{output.strip()}  queued  queue 0 %  caf?.txt\n")
    code, output, errors = await lift("upload")(path, "--title", os.fsdecode(b"caf\xe9"))
    assert (code, output, errors.count("\n")) == (2, "", 1)


async def test_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keys = Command("keys", tmp_path, LIFT_STORE_URL=(tmp_path / "file").as_uri())
    code, output, errors = await keys("list")
    assert (code, output) == (1, "")
    assert errors.startswith("lift-serve keys list: ")
    assert errors.count("\n") == 1


async def test_whoever_reads_may_have_enough(lift: Ask, front_end: Any) -> None:
    for number in range(3):
        await front_end.upload(f"{TEXT} Number {number}.")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = await lift("docs").start(stdout=writer, stderr=asyncio.subprocess.PIPE)
    finally:
        os.close(writer)
    _, errors = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, errors) == (1, b"")


@pytest.mark.parametrize("contents", ["{", "[]", '"doc"'])
async def test_a_spoilt_file_of_what_came_last(lift: Ask, tmp_path: Path, contents: str) -> None:
    """What was uploaded stays so; who asks is told which file to delete."""
    path = tmp_path / "state" / "lift-serve" / "last.json"
    path.parent.mkdir(parents=True)
    path.write_text(contents)
    code, output, errors = await lift("upload")(written(tmp_path))
    assert (code, output.startswith("doc_")) == (0, True)
    assert errors == f"lift-serve upload: done, but: {path} cannot be understood: delete it\n"
    assert (await lift("ask")("How many bees?"))[::2] == (
        1,
        f"lift-serve ask: {path} cannot be understood: delete it\n",
    )


async def test_something_else_answers_at_the_address(tmp_path: Path) -> None:
    """A page instead of JSON, JSON of another API, half an answer."""
    for body, length, code in ((b"<html>", 6, 1), (b"[1, 2]", 6, 1), (b'{"a": 1}', 8, 1), (b"{", 100, 3)):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (length, body)
        async with answering(answer) as url:
            ended, output, errors = await Command("docs", tmp_path)("--url", url)
        assert (ended, output) == (code, "")
        assert errors.startswith(f"lift-serve docs: {url}" if code == 1 else "lift-serve docs: the connection to")
        assert errors.count("\n") == 1
        async with answering(answer) as url:
            ended, output, errors = await Command("doctor", tmp_path)("--url", url)
        assert (ended, errors) == (1, "")
        assert output.startswith(f"FAIL  server {url}: ")


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that says this to whoever asks anything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "address"),
    [("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000"), ("box", "http://box:8000")],
)
def test_a_server_of_this_machine_is_found(host: str, address: str) -> None:
    assert own_address(ServerSettings(host=host)) == address
