"""/openapi.json says what the server does: compared with its routes, tried with its examples, and fuzzed."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator
from tests.lift_server.conftest import FakeEngine, FakeWorker, FrontEnd
from tests.lift_server.holders import holder

from lift_config.contract import JOBS_STREAM, WORKER_PREFIX, job_redis_key
from lift_config.settings import Settings
from lift_server.app import create_app
from lift_server.openapi.operations import JSON, OPERATIONS, TAGS

Json = dict[str, Any]
CONFIG = Path(__file__).with_name("schemathesis.toml")
FUZZING_S = 220  # some 30 on two cores that do nothing else
ENGINE_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize", "/detokenize")


@pytest.fixture(scope="module")
def document() -> Json:
    found: Json = create_app(Settings(redis_url="redis://nowhere")).openapi()
    return found


def test_every_route_is_in_the_table_and_every_line_of_it_a_route() -> None:
    app = create_app(Settings(redis_url="redis://nowhere"))
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    named = {(method, route.path_format) for route in routes for method in route.methods}
    assert named == set(OPERATIONS)


def test_names_are_fit_for_a_generator(document: Json) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    ids = [one["operationId"] for one in operations]
    assert len(set(ids)) == len(ids) == len(OPERATIONS)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in ids)
    assert {tag for one in operations for tag in one["tags"]} == set(TAGS)
    for kind in document["components"].values():
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in kind)


def test_every_reference_leads_somewhere(document: Json) -> None:
    for reference in set(references(document)):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_all_but_what_is_open_wants_the_key(document: Json) -> None:
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            is_open = OPERATIONS[method.upper(), path].is_open
            assert one.get("security") == (None if is_open else [{"api_key": []}])
            assert ("401" in one["responses"]) != is_open


async def test_what_is_not_allowed_says_all_that_is(front_end: FrontEnd) -> None:
    answer = await front_end.client.put("/v1/documents/doc_1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "DELETE, GET"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
async def test_the_examples_are_answered(front_end: FrontEnd, document: Json, path: str, worker: Any) -> None:
    uploaded = await front_end.upload("The keeper's dog is called Brisket.")
    await worker.train()
    schema = resolved(document, document["paths"][path]["post"]["requestBody"]["content"][JSON]["schema"])
    assert schema["examples"]
    for example in schema["examples"]:
        named = {"document_id": uploaded["id"]} if "document_id" in example else {}
        answer = await front_end.client.post(path, json=example | named)
        assert answer.status_code == 200, answer.text


@pytest.mark.timeout(240)
async def test_fuzzed(
    front_end: FrontEnd, engine: FakeEngine, worker: FakeWorker, redis: Any, document: Json, tmp_path: Path
) -> None:
    """Every operation but those that end the key it shows, all of schemathesis's checks, always the same cases. The
    engine refuses what vLLM would."""
    engine.refuses = Refusals(document)
    await redis.set(f"{WORKER_PREFIX}one", "1")
    mine, training = await holder(front_end), asyncio.create_task(train_all(worker))
    answer = await front_end.client.get("/openapi.json")
    assert answer.json() == document
    command = (
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
        "run", f"{front_end.url}/openapi.json", "--header", f"Authorization: Bearer {mine.secret}",
        "--exclude-operation-id", "replace_key", "--exclude-operation-id", "revoke_key",
        "--max-examples", "20", "--seed", "1", "--request-timeout", "10", "--no-color", "--continue-on-failure",
    )  # fmt: skip
    fuzzing = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(fuzzing.communicate(), FUZZING_S)
    finally:
        training.cancel()
        await asyncio.gather(training, return_exceptions=True)
        if fuzzing.returncode is None:
            fuzzing.kill()
    assert fuzzing.returncode == 0, output.decode()


async def train_all(worker: FakeWorker) -> None:
    """Whatever is uploaded, so that streams of events end."""
    seen: bytes | str = "0"
    while True:
        for _, entries in await worker.redis.xread({JOBS_STREAM: seen}, block=500):
            for entry, fields in entries:
                seen, job_key = entry, fields[b"job"].decode()
                if await worker.redis.exists(job_redis_key(job_key)):
                    await worker.publish(await worker.claim(await worker.job(job_key)))


class Refusals:
    """What vLLM says to a body that is not as documented; only types are known here."""

    def __init__(self, document: Json) -> None:
        self._validators = {
            path: Draft202012Validator(
                {
                    "$ref": one["post"]["requestBody"]["content"][JSON]["schema"]["$ref"],
                    "components": document["components"],
                }
            )
            for path, one in document["paths"].items()
            if path in ENGINE_PATHS
        }

    def __call__(self, route: str, body: Json) -> str | None:
        error = next(self._validators[route].iter_errors(body), None)
        return error.message if error else None


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        for inner in value.values():
            yield from references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolved(document: Json, schema: Json) -> Json:
    found: Json = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found
