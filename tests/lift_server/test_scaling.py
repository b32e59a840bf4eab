"""How many engines and workers a cluster is to have, by what is asked and what waits."""

from __future__ import annotations

import math

import pytest

from lift_config.settings import SloSettings
from lift_server.cluster.keep import changes
from lift_server.cluster.keeper import Member
from lift_server.cluster.scaling import Limits, Load, Scale, rescaled, wanted_engines, wanted_workers

SLO = SloSettings(warm_ttft_s=0.5, cold_ttft_s=10)
LIMITS = Limits(1, 4)


def after(scale: Scale, wanted: int, now_s: float = 0, *, settled: bool = True) -> Scale:
    return rescaled(scale, wanted, LIMITS, settled=settled, now_s=now_s, cool_down_s=300)


@pytest.mark.parametrize(
    ("load", "count", "wanted"),
    [
        (Load(waiting=9, oldest_wait_s=11), 2, 2),  # never more than twice as many at once
        (Load(waiting=1, oldest_wait_s=11), 3, 1),
        (Load(waiting=9, oldest_wait_s=9), 2, 0),  # still within what was promised
        (Load(taken=2), 2, 0),
        (Load(taken=1), 2, -1),
        (Load(waiting=1, taken=0), 2, 0),
    ],
)
def test_workers_follow_how_long_documents_wait(load: Load, count: int, wanted: int) -> None:
    assert wanted_workers(load, SLO, count) == wanted


@pytest.mark.parametrize(("ttft_s", "wanted"), [(0.75, 1), (math.inf, 1), (0.5, 0), (0.4, 0), (0.25, -1), (None, -1)])
def test_engines_follow_the_first_token_against_its_promise(ttft_s: float | None, wanted: int) -> None:
    assert wanted_engines(Load(ttft_s=ttft_s), SLO) == wanted


def test_more_come_at_once_and_never_beyond_the_limit() -> None:
    assert after(Scale(1), 1).count == 2
    assert after(Scale(3), 3).count == 4


def test_no_more_come_while_some_have_yet_to_start() -> None:
    assert after(Scale(1), 1, settled=False).count == 1


def test_fewer_only_after_a_time_in_which_that_would_have_done() -> None:
    scale = after(Scale(3), -1, now_s=100)
    assert scale == Scale(3, eased_since_s=100)
    assert after(scale, -1, now_s=399).count == 3
    assert after(scale, -1, now_s=400) == Scale(2, eased_since_s=400)
    assert after(after(scale, 0, now_s=399), -1, now_s=400) == Scale(3, eased_since_s=400)


def test_never_fewer_than_the_limit_and_changed_limits_hold_at_once() -> None:
    assert after(Scale(1, eased_since_s=0), -1, now_s=1000).count == 1
    assert after(Scale(0), 0).count == 1
    assert after(Scale(7), 0).count == 4


def test_numbers_of_those_that_still_leave_are_not_given_anew() -> None:
    engine = [Member("engine", number) for number in range(4)]
    members = [*engine[:3], Member("worker", 0)]
    assert changes(members, members, {"engine": 3, "worker": 1}) == ([], [])
    assert changes(members, members, {"engine": 2, "worker": 2}) == ([Member("worker", 1)], [engine[2]])
    here = [engine[0], engine[2]]  # 1 leaves
    assert changes(members, here, {"engine": 3}) == ([engine[3]], [])
    assert changes(here, here, {"engine": 3}) == ([engine[1]], [])
