"""Spans from the upload to the answer, as a collector gets them: OTLP over HTTP."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lift_config.contract import job_redis_key
from lift_server.tracing import Traces
from lift_workers.tracing import Traces as WorkerTraces

TEXT = "The lighthouse at Varn Point was built in 1874 by Edda Holm."
TITLE, FILE, PROMPT = "Station log", "log.txt", "Who built it?"
CLIENT_TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Keeps every span it is sent, with its service."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[tuple[str, Span]] = []
        self.bodies = b""
        self.status = 200

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {one.key: one.value.string_value for one in group.resource.attributes}["service.name"]
            self.spans += [(service, span) for scope in group.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    def named(self, name: str) -> list[Span]:
        return [span for _, span in self.spans if span.name == name]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    here = Collector()
    app = web.Application()
    app.add_routes([web.post("/v1/traces", here.take)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    yield here
    await runner.cleanup()


@pytest.fixture
async def traced(start: Callable[..., Awaitable[Any]], collector: Collector) -> Any:
    return await start(otlp_endpoint=collector.url)


def attributes(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in span.attributes}


def place(span: Span) -> str:
    """As a traceparent without its flags."""
    return f"00-{span.trace_id.hex()}-{span.span_id.hex()}"


async def test_one_trace_from_the_upload_through_the_worker_and_a_link_from_the_question(
    traced: Any, worker: Any, engine: Any, collector: Collector
) -> None:
    header = {"traceparent": f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"}
    form = {"files": {"file": (FILE, TEXT)}, "data": {"title": TITLE}}
    document = (await traced.client.post("/v1/documents", headers=header, **form)).json()
    adapter = await worker.train()
    job = await worker.job(adapter.id[:32])
    with_worker = WorkerTraces.to(collector.url, "host-0")
    with_worker.published(job)
    await with_worker.close()
    await asyncio.wait_for(engine.loaded.wait(), 5)
    answer = await traced.ask(PROMPT, document_id=document["id"], stream=True)
    assert answer.status_code == 200
    while 'outcome="ok"' not in (await traced.client.get("/metrics")).text:
        pass  # a stream's end is told once its last byte is out
    await traced.app.state.lift.traces.close()

    (upload,) = collector.named("POST /v1/documents")
    assert (upload.trace_id.hex(), upload.parent_span_id.hex()) == (CLIENT_TRACE, CLIENT_SPAN)
    assert job.traceparent == place(upload) + "-01"
    assert attributes(upload)["lift.document.id"] == document["id"]
    assert upload.start_time_unix_nano == int(job.received_s * 1e9)
    for phase in ("queue", "train"):
        (span,) = collector.named(phase)
        assert (span.trace_id, span.parent_span_id) == (upload.trace_id, upload.span_id)

    (question,) = collector.named("chat smollm2-135m-instruct")
    assert question.trace_id != upload.trace_id
    assert [link.span_id for link in question.links] == [upload.span_id]
    assert [given[:-3] for given in engine.traceparents] == [place(question)]  # vLLM's own span joins
    assert question.kind == Span.SPAN_KIND_SERVER
    said = attributes(question)
    assert 0 < said.pop("gen_ai.server.time_to_first_token") < 5
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lift",
        "gen_ai.request.model": "smollm2-135m-instruct",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "smollm2-135m-instruct",
        "lift.document.id": document["id"],
        "lift.adapter_state": "resident",
        "lift.adapter.id": adapter.id,
        "lift.adapter.version": 1,
        "lift.recipe": "balanced",
    }
    below = {span.name: span for _, span in collector.spans if span.parent_span_id == question.span_id}
    assert {"load", "prefill"} <= below.keys()
    assert below["load"].end_time_unix_nano <= below["prefill"].start_time_unix_nano
    assert {service for service, _ in collector.spans} == {"lift-server", "lift-worker"}
    for text in (TITLE, FILE, PROMPT, "Edda Holm", "answer is"):
        assert text.encode() not in collector.bodies


async def test_a_question_says_why_it_failed(traced: Any, collector: Collector) -> None:
    assert (await traced.ask(document_id="doc_" + "0" * 24)).status_code == 404
    await traced.app.state.lift.traces.close()
    ((_, question),) = [(service, span) for service, span in collector.spans if span.name.startswith("chat")]
    assert attributes(question)["error.type"] == "document_not_found"
    assert question.status.code == Status.STATUS_CODE_ERROR
    assert not question.links


async def test_what_is_no_document_id_is_not_sent(traced: Any, collector: Collector) -> None:
    """A client may name a document by any string, its text by mistake."""
    assert (await traced.ask(document_id=TEXT)).status_code == 404
    await traced.app.state.lift.traces.close()
    assert collector.named("chat smollm2-135m-instruct")
    assert b"Edda Holm" not in collector.bodies


async def test_the_same_content_again_links_to_the_first_upload(traced: Any, redis: Any, collector: Collector) -> None:
    first, second = await traced.upload(TEXT), await traced.upload(TEXT)
    assert first["id"] != second["id"]
    await traced.app.state.lift.traces.close()
    one, other = sorted(collector.named("POST /v1/documents"), key=lambda span: span.start_time_unix_nano)
    assert one.trace_id != other.trace_id
    assert [link.trace_id for link in other.links] == [one.trace_id]
    key = attributes(one)["lift.job.key"]
    assert json.loads(await redis.hget(job_redis_key(key), "traceparent"))[:-3] == place(one)


async def test_a_refused_upload_leaves_nothing(traced: Any, collector: Collector) -> None:
    assert (await traced.client.post("/v1/documents", json={"text": ""})).status_code == 400
    await traced.app.state.lift.traces.close()
    assert collector.spans == []


async def test_what_the_client_does_not_sample_is_not_sent(traced: Any, engine: Any, collector: Collector) -> None:
    place_of_client = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-00"
    headers = {"traceparent": place_of_client}
    body = {"model": traced.settings.model_name, "messages": [{"role": "user", "content": PROMPT}]}
    assert (await traced.client.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
    await traced.app.state.lift.traces.close()
    assert collector.spans == []
    assert engine.traceparents[0].startswith(f"00-{CLIENT_TRACE}-")
    assert engine.traceparents[0].endswith("-00")


@pytest.mark.parametrize("status", [400, 503])
async def test_a_collector_in_trouble_disturbs_nobody(traced: Any, collector: Collector, status: int) -> None:
    collector.status = status
    assert (await traced.ask()).status_code == 200
    await asyncio.wait_for(traced.app.state.lift.traces.close(), 5)
    assert (await traced.ask()).status_code == 200  # closed or not


async def test_a_collector_that_is_away_delays_no_end() -> None:
    traces = Traces.to("http://127.0.0.1:9/v1/traces")
    traces.upload(1_800_000_000.0, None)._span.end()
    await asyncio.wait_for(traces.close(), 5)


async def test_without_an_endpoint_nothing_is_traced(front_end: Any, worker: Any, engine: Any) -> None:
    assert front_end.app.state.lift.traces is None
    await front_end.upload(TEXT)
    assert (await worker.newest_job()).traceparent is None
    assert (await front_end.ask()).status_code == 200
    assert engine.traceparents == [None]


@pytest.mark.parametrize("process", ["lift_server.app, lift_server.__main__", "lift_workers.__main__"])
def test_without_an_endpoint_nothing_of_it_is_imported(process: str) -> None:
    # Not all of it: redis-py looks for OpenTelemetry's metrics.
    code = f"import sys; import {process}; sys.exit('opentelemetry.exporter' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
