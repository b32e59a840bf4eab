import json

import pytest

from lift_config.phases import Phase, Timeline


def test_a_retry_keeps_the_first_start() -> None:
    timeline = Timeline()
    timeline.start(Phase.TRAIN, 10.0)
    timeline.end(Phase.TRAIN, 20.0)
    timeline.start(Phase.TRAIN, 30.0)
    assert timeline.seconds(Phase.TRAIN) is None  # it runs again
    timeline.end(Phase.TRAIN, 35.0)
    assert timeline.seconds(Phase.TRAIN) == 25.0


def test_a_phase_that_never_began_cannot_end() -> None:
    timeline = Timeline()
    assert timeline.seconds(Phase.LOAD) is None
    with pytest.raises(KeyError):
        timeline.end(Phase.LOAD, 1.0)


def test_during_ends_the_phase_after_an_error_too() -> None:
    timeline = Timeline()
    with pytest.raises(ZeroDivisionError), timeline.during(Phase.LOAD):
        raise ZeroDivisionError
    assert timeline.seconds(Phase.LOAD) is not None


def test_what_users_see_starts_at_their_upload() -> None:
    timeline = Timeline(
        {
            Phase.QUEUE: (100.0, 101.0),  # an earlier upload of the same content: over before this one
            Phase.SYNTHESIZE: (101.0, 106.0004),  # under way at this upload
            Phase.TRAIN: (104.5, None),  # overlaps, still running
        }
    )
    assert timeline.relative_to(104.0) == {
        "synthesize": {"start_s": 0.0, "end_s": 2.0},
        "train": {"start_s": 0.5, "end_s": None},
    }


def test_a_timeline_survives_json() -> None:
    timeline = Timeline({Phase.QUEUE: (1795430400.123456, 1795430401.5), Phase.TRAIN: (1795430402.0, None)})
    assert Timeline.from_values(json.loads(json.dumps(timeline.to_values()))) == timeline
