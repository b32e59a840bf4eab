"""A job as a worker leaves it, for tests of what is told about it."""

from lift_config.contract import AdapterRecord, JobRecord, Status, SynthesisUsage
from lift_config.phases import Phase, Timeline

RECEIVED_S = 1_800_000_000.0
KEY = "0" * 31 + "a"


def published_job() -> JobRecord:
    """Its first version is out after 9 s; it refines."""
    spans: dict[Phase, tuple[float, float | None]] = {
        Phase.QUEUE: (RECEIVED_S, RECEIVED_S + 1),
        Phase.SEGMENT: (RECEIVED_S + 1, RECEIVED_S + 2),
        Phase.SYNTHESIZE: (RECEIVED_S + 2, RECEIVED_S + 6),
        Phase.TRAIN: (RECEIVED_S + 3, RECEIVED_S + 8),
        Phase.PUBLISH: (RECEIVED_S + 8, RECEIVED_S + 9),
        Phase.REFINE: (RECEIVED_S + 9, None),
    }
    return JobRecord(
        key=KEY,
        owner="default",
        title="A secret title",
        base_model="m",
        base_revision="main",
        recipe="balanced",
        received_s=RECEIVED_S,
        status=Status.READY,
        unfinished=True,
        tokens=500,
        timeline=Timeline(spans),
        adapters=(AdapterRecord(f"{KEY}-{1:012x}", 1, "m", "fast", 16, 10, RECEIVED_S + 9, tasks=12, steps=3),),
        synthesis=SynthesisUsage(10, 1000, 200, 300),
    )


def refined_job() -> JobRecord:
    """The same, 20 s later: at its end."""
    job = published_job()
    job.timeline.end(Phase.REFINE, RECEIVED_S + 29)
    best = AdapterRecord(f"{KEY}-{2:012x}", 2, "m", "balanced", 16, 10, RECEIVED_S + 29, tasks=40, steps=90)
    return job.changed(unfinished=False, adapters=(*job.adapters, best), synthesis=SynthesisUsage(40, 4000, 900, 1300))
