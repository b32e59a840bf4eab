"""A job's phases as spans below its upload's."""

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from lift_config.contract import AdapterRecord, Failure, JobRecord, Status, SynthesisUsage
from lift_config.phases import Phase, Timeline
from lift_workers.tracing import Traces

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def job(traceparent: str | None, spans: dict[Phase, tuple[float, float | None]], *adapters: AdapterRecord) -> JobRecord:
    return JobRecord(
        key="0" * 32,
        owner="default",
        title="A secret title",
        base_model="m",
        base_revision="main",
        recipe="balanced",
        received_s=100.0,
        status=Status.READY if adapters else Status.TRAINING,
        traceparent=traceparent,
        tokens=500,
        timeline=Timeline(spans),
        adapters=adapters,
        synthesis=SynthesisUsage(10, 1000, 200, 300),
    )


def version(number: int, recipe: str) -> AdapterRecord:
    return AdapterRecord(f"{'0' * 32}-{number:012x}", number, "m", recipe, 16, 10, 110.0, tasks=12, steps=3)


WAY: dict[Phase, tuple[float, float | None]] = {
    Phase.QUEUE: (100.0, 101.0),
    Phase.SYNTHESIZE: (101.0, 106.0),
    Phase.TRAIN: (102.5, 108.0),
}
UPLOAD = f"00-{TRACE}-{PARENT}-01"


async def told(*jobs: JobRecord, failed: bool = False) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, "host-0")
    for one in jobs:
        (traces.failed if failed else traces.published)(one)
    await traces.close()
    return list(exporter.get_finished_spans())


async def test_a_first_version_is_told_by_its_phases() -> None:
    spans = await told(job(UPLOAD, WAY | {Phase.REFINE: (110.0, None)}, version(1, "fast")))
    assert {span.name: (span.start_time, span.end_time) for span in spans} == {
        "queue": (100 * 10**9, 101 * 10**9),
        "synthesize": (101 * 10**9, 106 * 10**9),
        "train": (int(102.5 * 10**9), 108 * 10**9),
    }
    for span in spans:
        assert span.parent
        assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
        assert span.resource.attributes["service.name"] == "lift-worker"
        assert span.resource.attributes["service.instance.id"] == "host-0"
        assert span.status.status_code is StatusCode.UNSET
        assert "secret" not in span.to_json()
    attributes = {span.name: span.attributes or {} for span in spans}
    assert attributes["train"]["lift.steps"] == 3
    assert attributes["train"]["lift.recipe"] == "fast"
    assert attributes["synthesize"]["lift.synthesis.computed_prompt_tokens"] == 200
    assert "lift.steps" not in attributes["queue"]


async def test_a_later_version_is_told_as_a_refinement_once_it_has_ended() -> None:
    versions = (version(1, "fast"), version(2, "balanced"))
    under_way = job(UPLOAD, WAY | {Phase.REFINE: (110.0, None)}, *versions)
    ended = job(UPLOAD, WAY | {Phase.REFINE: (110.0, 130.0)}, *versions)
    (span,) = await told(under_way, ended)
    assert (span.name, span.start_time, span.end_time) == ("refine", 110 * 10**9, 130 * 10**9)
    assert span.attributes
    assert (span.attributes["lift.adapter.version"], span.attributes["lift.recipe"]) == (2, "balanced")


async def test_a_failure_is_on_the_phase_it_ended_in() -> None:
    failed = job(UPLOAD, {**WAY, Phase.TRAIN: (102.5, None)}).changed(error=Failure("no_tasks", "none"))
    spans = await told(failed, failed=True)
    assert [span.name for span in spans if span.status.status_code is StatusCode.ERROR] == ["train"]
    errors = [(span.attributes or {}).get("error.type") for span in spans]
    assert sorted(errors, key=str) == [None, None, "no_tasks"]
    assert all(span.end_time for span in spans)


async def test_a_failed_refinement_is_told_alone() -> None:
    failed = job(UPLOAD, WAY | {Phase.REFINE: (110.0, 120.0)}, version(1, "fast")).changed(error=Failure("stalled", ""))
    spans = await told(failed, failed=True)
    assert [(span.name, (span.attributes or {})["error.type"]) for span in spans] == [("refine", "stalled")]


async def test_nothing_is_told_of_uploads_that_are_not_traced() -> None:
    adapter = version(1, "fast")
    assert await told(job(None, WAY, adapter), job("00-nonsense", WAY, adapter)) == []
    assert await told(job(f"00-{TRACE}-{PARENT}-00", WAY, adapter)) == []  # its sampler said no
