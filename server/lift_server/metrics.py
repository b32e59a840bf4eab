"""What /metrics shows: TTFT, phases, time to ready, documents. Labels never name a document or an adapter."""

from __future__ import annotations

from collections import Counter as Count

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from lift_config.contract import AdapterState, Status
from lift_config.phases import Timeline

# vLLM's own (engine-facts.md, 4), so that the two can be laid over each other.
# fmt: off
TTFT_BUCKETS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)
# fmt: on


class Metrics:
    """One registry per server, so that tests can run several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._ttft = Histogram(
            "lift_time_to_first_token_seconds",
            "First byte of a question read to first token written; without streaming, to the whole answer.",
            ["model", "endpoint", "adapter_state", "stream"],
            buckets=TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._phases = Histogram(
            "lift_phase_seconds",
            "Time in each phase of a document's or a question's way; phases overlap.",
            ["phase"],
            buckets=TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._ready = Histogram(
            "lift_time_to_ready_seconds",
            "First byte of an upload read to its adapter published.",
            ["recipe"],
            buckets=TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._documents = Gauge("lift_documents", "Documents by status.", ["status"], registry=self.registry)

    def answered(
        self, ttft_s: float, timeline: Timeline, *, model: str, endpoint: str, state: AdapterState, stream: bool
    ) -> None:
        """A question answered without an error."""
        self._ttft.labels(model, endpoint, state.value, str(stream).lower()).observe(ttft_s)
        self._observe_phases(timeline)

    def ready(self, seconds: float, timeline: Timeline, *, recipe: str) -> None:
        """A document's adapter published."""
        self._ready.labels(recipe).observe(seconds)
        self._observe_phases(timeline)

    def page(self, documents: Count[Status]) -> bytes:
        for status in Status:
            self._documents.labels(status.value).set(documents[status])
        return generate_latest(self.registry)

    def _observe_phases(self, timeline: Timeline) -> None:
        for phase in timeline.spans:
            if (seconds := timeline.seconds(phase)) is not None:
                self._phases.labels(phase.value).observe(seconds)
