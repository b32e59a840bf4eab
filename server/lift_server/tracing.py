"""Spans of uploads and questions, for an OpenTelemetry collector. Imported only where `otlp_endpoint` is set.

In: records, timelines, a client's `traceparent`. Out: spans that begin and end when their timeline says; ids, no text.
The worker goes on with an upload's trace; a question has a trace of its own, with a link to its document's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lift_config.contract import DOCUMENT_ID, AdapterRecord, AdapterState, DocumentRecord, JobRecord
from lift_config.phases import Timeline
from lift_server.question import Question

if TYPE_CHECKING:
    from opentelemetry.context import Context

EXPORT_S = 2.0  # a batch's time, its retries included: what a shutdown may have to wait
Attributes = Mapping[str, str | bool | int | float | None]


class Traces:
    """Spans are sent from a thread of its own; a collector that is away costs spans and lines in the log."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "lift-server"}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lift_server")

    @classmethod
    def to(cls, endpoint: str) -> Self:
        return cls(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S))

    def upload(self, received_s: float, traceparent: str | None) -> UploadSpan:
        """Begun at the upload's first byte, below the client's span where it named one."""
        return UploadSpan(self._tracer, "POST /v1/documents", received_s, traceparent)

    def question(self, question: Question, base_model: str) -> QuestionSpan:
        operation = question.dialect.OPERATION
        span = QuestionSpan(self._tracer, f"{operation} {base_model}", question.received_s, question.traceparent)
        span.note(
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "lift",
                "gen_ai.request.model": question.model,
                "gen_ai.request.stream": question.stream,
                "gen_ai.response.model": base_model,
                "lift.document.id": _document_id(question),
            }
        )
        return span

    async def close(self) -> None:
        """Sends what is left."""
        await asyncio.to_thread(self._provider.shutdown)


class _ServerSpan:
    """One that never ends is never sent: a refused upload leaves nothing."""

    def __init__(self, tracer: trace.Tracer, name: str, received_s: float, traceparent: str | None) -> None:
        self._tracer = tracer
        self._span = tracer.start_span(
            name, context=_context(traceparent), kind=trace.SpanKind.SERVER, start_time=_ns(received_s)
        )

    @property
    def traceparent(self) -> str:
        """For those who go on below this span (W3C)."""
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(self._span))
        return carrier["traceparent"]

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})


class UploadSpan(_ServerSpan):
    def end(self, document: DocumentRecord, job: JobRecord) -> None:
        """`job` may be an earlier upload's of the same content: its trace is linked."""
        if job.traceparent != self.traceparent:
            _link(self._span, job)
        self.note({"lift.document.id": document.id, "lift.job.key": job.key, "lift.recipe": job.recipe})
        self.note({"lift.document.bytes": document.size_bytes})
        self._span.end()


class QuestionSpan(_ServerSpan):
    def end(
        self,
        timeline: Timeline,
        outcome: str,
        *,
        ttft_s: float | None,
        state: AdapterState,
        adapter: AdapterRecord | None,
        job: JobRecord | None,
    ) -> None:
        """`outcome`: `ok`, `disconnected`, or an error's code. `ttft_s` only of a streamed answer."""
        if job is not None:
            _link(self._span, job)
        self.note({"lift.adapter_state": state.value, "gen_ai.server.time_to_first_token": ttft_s})
        if adapter is not None:
            self.note({"lift.adapter.id": adapter.id, "lift.adapter.version": adapter.version})
            self.note({"lift.recipe": adapter.recipe})
        if outcome != "ok":
            self.note({"error.type": outcome})
            self._span.set_status(trace.StatusCode.ERROR)
        now_s = time.time()
        below = trace.set_span_in_context(self._span)
        for phase, (start_s, end_s) in timeline.spans.items():
            child = self._tracer.start_span(phase.value, context=below, start_time=_ns(start_s))
            child.end(_ns(now_s if end_s is None else end_s))
        self._span.end(_ns(now_s))


def _document_id(question: Question) -> str | None:
    """What a client names may be any string, the document's text too; only an id is sent."""
    named = question.document_id
    return named if named and DOCUMENT_ID.fullmatch(named) else None


def _link(span: trace.Span, job: JobRecord) -> None:
    context = trace.get_current_span(_context(job.traceparent)).get_span_context()
    if context.is_valid:
        span.add_link(context, {"lift.job.key": job.key})


def _context(traceparent: str | None) -> Context:
    """An empty one starts a new trace."""
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})


def _ns(at_s: float) -> int:
    return int(at_s * 1e9)
