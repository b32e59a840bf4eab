"""Rendezvous hashing with bounded loads."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lift_server.placement import BALANCE, FLOOR, Load, lightest, order, ranked

URLS = [f"http://engine-{number}" for number in range(16)]
NAMES = [f"adapter {number}" for number in range(4000)]
LOADS = st.dictionaries(
    st.sampled_from(URLS), st.builds(Load, in_flight=st.integers(0, 50), is_away=st.booleans()), min_size=1
)


def test_an_engine_that_leaves_moves_only_its_own() -> None:
    before = {name: ranked(name, URLS)[0] for name in NAMES}
    after = {name: ranked(name, URLS[1:])[0] for name in NAMES}
    moved = {name for name in NAMES if before[name] != after[name]}
    assert moved == {name for name in NAMES if before[name] == URLS[0]}
    assert len(NAMES) / 16 * 0.8 < len(moved) < len(NAMES) / 16 * 1.2
    assert len({after[name] for name in moved}) == 15  # and they spread over all others


def test_the_order_in_which_engines_are_given_does_not_matter() -> None:
    assert ranked("a", URLS) == ranked("a", reversed(URLS))


@given(LOADS)
def test_every_engine_is_tried_and_those_away_last(engines: dict[str, Load]) -> None:
    for tried in (order("a", engines), lightest("a", engines)):
        assert sorted(tried) == sorted(engines)
        away = [engines[url].is_away for url in tried]
        assert away == sorted(away)


def test_an_idle_engine_keeps_what_is_its_own_up_to_the_floor() -> None:
    home, second = ranked("a", URLS)[:2]
    idle = dict.fromkeys(URLS, Load())
    assert order("a", idle | {home: Load(FLOOR - 1)})[0] == home
    assert order("a", idle | {home: Load(FLOOR)})[:2] == [second, *[u for u in ranked("a", URLS) if u != home][1:2]]
    assert order("a", idle | {home: Load(FLOOR)})[-1] == home  # a full one is still better than none


def test_one_that_is_away_goes_home_again_when_it_is_back() -> None:
    home, second = ranked("a", URLS)[:2]
    assert order("a", dict.fromkeys(URLS, Load()) | {home: Load(is_away=True)})[0] == second
    assert order("a", dict.fromkeys(URLS, Load()))[0] == home


@pytest.mark.parametrize("requests", [40, 400])
def test_no_engine_takes_more_than_its_bound_whatever_is_asked(requests: int) -> None:
    """All ask the same document: it spreads over just as many engines as it needs."""
    counts: Counter[str] = Counter()
    for _ in range(requests):
        counts[order("hot", {url: Load(counts[url]) for url in URLS})[0]] += 1
    assert max(counts.values()) <= max(FLOOR, BALANCE * requests / 16 + 1)
    used = len(counts)
    assert {*counts} == {*ranked("hot", URLS)[:used]}  # its first choices, in that order


def test_what_belongs_nowhere_goes_where_least_is_asked() -> None:
    counts: Counter[str] = Counter()
    for number in range(160):
        counts[lightest(str(number), {url: Load(counts[url]) for url in URLS})[0]] += 1
    assert set(counts.values()) == {10}
