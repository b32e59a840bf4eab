"""What /metrics shows. Labels never name a document or an adapter, so its size does not grow with their number."""

from __future__ import annotations

import math
from collections import Counter as Count
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lift_config.contract import (
    BULK_STREAM,
    JOBS_STREAM,
    REFINE_STREAM,
    AdapterRecord,
    AdapterState,
    JobRecord,
    Status,
    SynthesisUsage,
)
from lift_config.phases import Phase, Timeline
from lift_config.settings import SloSettings

STREAMS = {"first": JOBS_STREAM, "bulk": BULK_STREAM, "refine": REFINE_STREAM}  # by the label that names them
# vLLM's own (engine-facts.md, 4), so that the two can be laid over each other.
# fmt: off
TTFT_BUCKETS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)
# fmt: on


class Objective(StrEnum):
    """What a streamed question to an adapter was promised."""

    WARM_TTFT = "warm_ttft"  # its document had an adapter
    COLD_TTFT = "cold_ttft"  # it waited for its document's training


@dataclass(frozen=True)
class Queues:
    """The streams of jobs by name: `first` for jobs without any version, `refine` for those with one."""

    waiting: Mapping[str, int]
    taken: Mapping[str, int]
    dead_letters: int
    last_dead_letter_s: float


class Metrics:
    """One registry per server, so that tests can run several."""

    def __init__(self, slo: SloSettings) -> None:
        self.registry = CollectorRegistry()
        self._targets_s = {Objective.WARM_TTFT: slo.warm_ttft_s, Objective.COLD_TTFT: slo.cold_ttft_s}
        self._counted: dict[str, SynthesisUsage] = {}  # of jobs that will publish again
        self._ttft = self._histogram(
            "lift_time_to_first_token_seconds",
            "First byte of a question read to first token written; without streaming, to the whole answer.",
            "model",
            "endpoint",
            "adapter_state",
            "stream",
        )
        self._phases = self._histogram(
            "lift_phase_seconds", "Time in each phase of a document's or a question's way; phases overlap.", "phase"
        )
        self._ready = self._histogram(
            "lift_time_to_ready_seconds", "First byte of an upload read to a version published.", "recipe"
        )
        self._questions = self._counter("lift_questions", "Questions by how they ended.", "endpoint", "outcome")
        self._slo = self._counter("lift_slo", "Streamed questions with a promised time to first token.", "objective")
        self._slo_good = self._counter("lift_slo_good", "Those that kept it.", "objective")
        self._tokens = self._counter("lift_synthesis_tokens", "Spent on synthetic tasks of published versions.", "kind")
        self._requests = self._counter("lift_synthesis_requests", "Sent for synthetic tasks of published versions.")
        self._documents = self._gauge("lift_documents", "Documents by status; up to a minute old.", "status")
        self._workers = self._gauge("lift_workers", "Workers with a lease; up to a minute old.")
        self._waiting = self._gauge("lift_jobs_waiting", "Jobs no worker has taken.", "stream")
        self._taken = self._gauge("lift_jobs_taken", "Jobs with a worker, or between two attempts.", "stream")
        self._dead = self._gauge("lift_dead_letters", "Jobs given up on after every attempt.")
        self._last_dead = self._gauge("lift_last_dead_letter_timestamp_seconds", "When the newest came; 0: none.")
        self._redis_up = self._gauge("lift_redis_up", "Whether Redis answered this scrape.")
        self._free = self._gauge("lift_store_free_bytes", "Free where the store is a folder; else not a number.")
        self._hanging = self._gauge("lift_engines_hanging", "Engines that take requests and do not answer.")
        self._away = self._gauge("lift_engines_away", "These, and engines that take no connections.")
        self._placed = self._counter("lift_placements", "Questions to adapters by the engine that took them.", "place")
        for objective in Objective:  # a rate over a series that is not there yet is nothing, not 0
            self._slo.labels(objective.value)
            self._slo_good.labels(objective.value)

    def answered(
        self, ttft_s: float, timeline: Timeline, *, model: str, endpoint: str, state: AdapterState, stream: bool
    ) -> None:
        """A question answered without an error."""
        self._ttft.labels(model, endpoint, state.value, str(stream).lower()).observe(ttft_s)
        for phase in timeline.spans:
            self._observe_phase(timeline, phase)

    def ended(self, outcome: str, *, endpoint: str) -> None:
        """A question's end: `ok`, `disconnected`, or an error's code."""
        self._questions.labels(endpoint, outcome).inc()

    def placed(self, *, is_home: bool) -> None:
        """A question to an adapter, taken by the engine that the adapter belongs to, or by another."""
        self._placed.labels("home" if is_home else "elsewhere").inc()

    def promised(self, objective: Objective, seconds: float, *, is_answered: bool, is_our_fault: bool) -> None:
        """A streamed question's first token after `seconds`, or its end without one. One that the client gave up, or
        got refused, within the promised time is no miss."""
        kept = seconds <= self._targets_s[objective]
        if is_answered or is_our_fault or not kept:
            self._slo.labels(objective.value).inc()
        if is_answered and kept:
            self._slo_good.labels(objective.value).inc()

    def published(self, job: JobRecord, adapter: AdapterRecord) -> None:
        """A new version. The way to the first one is told then; all that follows is one phase, told at its end."""
        self._ready.labels(adapter.recipe).observe(adapter.ready_s - job.received_s)
        is_first = adapter == job.adapters[0]
        for phase in job.timeline.spans:
            if (phase is not Phase.REFINE) if is_first else (phase is Phase.REFINE and not job.unfinished):
                self._observe_phase(job.timeline, phase)
        if adapter == job.adapters[-1]:
            self._count_synthesis(job)

    def forget(self, job_key: str) -> None:
        """A job that publishes nothing more."""
        self._counted.pop(job_key, None)

    def counted(self, documents: Count[Status], workers: int) -> None:
        """What gauges.count_for_ever found."""
        for status in Status:
            self._documents.labels(status.value).set(documents[status])
        self._workers.set(workers)

    def page(self, queues: Queues | None, free_bytes: int | None = None, *, hanging: int = 0, away: int = 0) -> bytes:
        """`queues` is None where Redis is out of reach, `free_bytes` where the store is no folder."""
        self._hanging.set(hanging)
        self._away.set(away)
        self._free.set(math.nan if free_bytes is None else free_bytes)
        self._redis_up.set(queues is not None)
        for stream in STREAMS:
            self._waiting.labels(stream).set(queues.waiting[stream] if queues else math.nan)
            self._taken.labels(stream).set(queues.taken[stream] if queues else math.nan)
        self._dead.set(queues.dead_letters if queues else math.nan)
        self._last_dead.set(queues.last_dead_letter_s if queues else math.nan)
        return generate_latest(self.registry)

    def _count_synthesis(self, job: JobRecord) -> None:
        """A job's usage grows from version to version; what is new since the last one is added."""
        before = self._counted.pop(job.key, SynthesisUsage())
        spent: Mapping[str, int] = asdict(job.synthesis)
        new = {name: max(0, value - getattr(before, name)) for name, value in spent.items()}  # a retry begins at 0
        self._requests.inc(new.pop("requests"))
        for name, tokens in new.items():
            self._tokens.labels(name.removesuffix("_tokens")).inc(tokens)
        if job.unfinished:
            self._counted[job.key] = job.synthesis

    def _observe_phase(self, timeline: Timeline, phase: Phase) -> None:
        if (seconds := timeline.seconds(phase)) is not None:
            self._phases.labels(phase.value).observe(seconds)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, buckets=TTFT_BUCKETS_S, registry=self.registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)
