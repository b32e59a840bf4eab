"""The simulated engines."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping

import pytest

from bench_routing import Engines, _parser, simulate
from lift_server.placement import Load, order

URLS = ["a", "b", "c", "d"]


def given(**changed: int) -> argparse.Namespace:
    small = {"documents": 50, "questions": 3000, "room": 5, "in_flight": 4}
    return argparse.Namespace(**vars(_parser().parse_args([])) | small | changed)


def bounded(name: str, loads: Mapping[str, Load], _: random.Random) -> str:
    return order(name, loads)[0]


def test_the_same_seed_gives_the_same_run_and_another_does_not() -> None:
    took = [simulate(given(seed=seed), URLS, bounded, 1).took for seed in (1, 1, 2)]
    assert took[0] == took[1] != took[2]


def test_two_thirds_are_counted() -> None:
    engines = simulate(given(), URLS, bounded, 1)
    assert engines.took.total() == len(engines.fullest) == 2000


def test_an_engine_forgets_what_was_asked_least_recently() -> None:
    engines = Engines(["a"], room=2, front_ends=1)
    for name in ("1", "2", "1", "3", "1", "2"):
        engines.begin(0, "a", name, counts=True)
    assert engines.hits == 2  # both times the second and third "1"; "2" had to go for "3"


def test_room_for_everything_holds_everything() -> None:
    engines = simulate(given(room=50), ["a"], bounded, 1)
    assert engines.hits == 2000


@pytest.mark.parametrize("front_ends", [1, 3])
def test_questions_at_once_are_as_many_as_were_wanted(front_ends: int) -> None:
    """Little's law: what comes a second, times a second each."""
    engines = simulate(given(questions=20_000, in_flight=16), URLS, bounded, front_ends)
    left = sum(seen.total() for seen in engines.seen)
    assert 40 < left < 90  # 64 on average, Poisson
