"""Spans of a job's phases, for an OpenTelemetry collector. Imported only where `otlp_endpoint` is set.

In: a job with its timeline, after a version or its failure. Out: spans below its upload's; ids, no text or title.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Self

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lift_config.contract import JobRecord
from lift_config.phases import Phase

EXPORT_S = 2.0  # a batch's time, its retries included: what a shutdown may have to wait


class Traces:
    """Spans are sent from a thread of its own; a collector that is away costs spans and lines in the log."""

    def __init__(self, exporter: SpanExporter, worker: str) -> None:
        resource = Resource.create({SERVICE_NAME: "lift-worker", SERVICE_INSTANCE_ID: worker})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lift_workers")

    @classmethod
    def to(cls, endpoint: str, worker: str) -> Self:
        return cls(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S), worker)

    def published(self, job: JobRecord) -> None:
        """A new version: the way to the first one; of later ones the refinement, once it has ended."""
        for phase in _phases(job, refined=len(job.adapters) > 1):
            if job.timeline.seconds(phase) is not None:
                self._emit(job, phase)

    def failed(self, job: JobRecord) -> None:
        """What led to the failure, after the last version; the phase that ended last, or has not, is where it came."""
        phases = _phases(job, refined=bool(job.adapters))
        if phases:
            last = max(phases, key=lambda phase: job.timeline.spans[phase][1] or time.time())
            for phase in phases:
                self._emit(job, phase, error=job.error.code if job.error and phase is last else None)

    async def close(self) -> None:
        """Sends what is left."""
        await asyncio.to_thread(self._provider.shutdown)

    def _emit(self, job: JobRecord, phase: Phase, error: str | None = None) -> None:
        """Nothing for a job whose upload was not traced."""
        context = TraceContextTextMapPropagator().extract({"traceparent": job.traceparent or ""})
        if not trace.get_current_span(context).get_span_context().is_valid:
            return
        start_s, end_s = job.timeline.spans[phase]
        span = self._tracer.start_span(
            phase.value, context=context, start_time=_ns(start_s), attributes=_attributes(job, phase)
        )
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(trace.StatusCode.ERROR)
        span.end(_ns(time.time() if end_s is None else end_s))


def _phases(job: JobRecord, *, refined: bool) -> list[Phase]:
    """Those of the way to the first version, or what came after it."""
    return [phase for phase in job.timeline.spans if (phase is Phase.REFINE) is refined]


def _attributes(job: JobRecord, phase: Phase) -> Mapping[str, str | int]:
    told: dict[str, str | int] = {
        "lift.job.key": job.key,
        "lift.recipe": job.recipe,
        "lift.document.tokens": job.tokens,
    }
    if job.adapters:
        adapter = job.adapters[-1]
        told |= {"lift.adapter.id": adapter.id, "lift.adapter.version": adapter.version, "lift.recipe": adapter.recipe}
        if phase in (Phase.TRAIN, Phase.REFINE):
            told |= {"lift.tasks": adapter.tasks, "lift.steps": adapter.steps}
    if phase in (Phase.SYNTHESIZE, Phase.REFINE):
        told |= {
            "lift.synthesis.requests": job.synthesis.requests,
            "lift.synthesis.prompt_tokens": job.synthesis.prompt_tokens,
            "lift.synthesis.computed_prompt_tokens": job.synthesis.computed_prompt_tokens,
            "lift.synthesis.generated_tokens": job.synthesis.generated_tokens,
        }
    return told


def _ns(at_s: float) -> int:
    return int(at_s * 1e9)
