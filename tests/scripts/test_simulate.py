"""The simulated cluster's arithmetic, and its figures beside those that were measured."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from bench_common import TABLES
from simulate import checks, main, measured
from simulate_parts import Cluster, Demand, Machine, Service

SERVICE = Service(
    prefill_s=0.25, around_s=0.5, load_s=1.0, step_s=0.5, more_s=0.25, training=((100, 8.0), (200, 10.0), (400, 20.0))
)


def cluster(machine: Machine = Machine(), workers: int = 1) -> Cluster:  # noqa: B008 # frozen
    return Cluster(SERVICE, machine, ["engine"], workers=workers)


@pytest.mark.parametrize(
    ("tokens", "seconds"), [(50, 8.0), (100, 8.0), (150, 9.0), (300, 15.0), (400, 20.0), (800, 40.0)]
)
def test_a_training_between_and_beyond_what_was_measured(tokens: int, seconds: float) -> None:
    assert SERVICE.train_s(tokens) == seconds


def test_what_an_engine_answers_at_most() -> None:
    assert SERVICE.questions_per_s(at_once=3, tokens=6) == pytest.approx(1 / (0.25 + 6 * 1.0 / 3))


def test_a_question_alone_and_the_same_again() -> None:
    one = cluster()
    one.ask("a", tokens=4)
    one.at(10.0, one.ask, "a", 4)
    one.run()
    assert one.warm_s == [1.75, 0.75]  # loaded, then held
    assert one.now_s == 10.0 + 0.25 + 4 * 0.5
    assert (one.counted, one.held) == (2, 1)


def test_two_at_once_share_each_step_and_one_that_comes_later_stops_them() -> None:
    one = cluster()
    one.ask("a", tokens=1)
    one.at(10.0, one.ask, "a", 4)
    one.at(10.0, one.ask, "a", 8)
    one.at(11.25, one.ask, "a", 1)
    one.run()
    assert one.warm_s[1:] == [1.0, 1.0, 0.75]
    # Prompts to 10.5, a token of both by 11.25; the third's prompt to 11.5, a token of all three by 12.5; then 2 more
    # of both at 0.75 each, by 14.0; then the last 4 of one at 0.5.
    assert one.now_s == pytest.approx(14.0 + 4 * 0.5)


def test_without_a_slot_a_question_waits_and_lets_others_pass() -> None:
    one = cluster(Machine(slots=1))
    one.ask("a", tokens=4)
    one.at(1.3, one.ask, "b", 1)
    one.at(1.3, one.ask, "a", 1)
    one.run()
    first, passing, waiting = one.warm_s
    assert first == 1.75
    assert passing == pytest.approx(0.75)
    assert waiting > 2.0


def test_no_more_questions_at_once_than_there_is_room_for() -> None:
    one = cluster(Machine(at_once=1))
    one.ask("a", tokens=4)
    one.at(0.1, one.ask, "a", 1)
    one.run()
    assert one.warm_s == [1.75, pytest.approx(1.25 + 4 * 0.5 - 0.1 + 0.75)]


def test_the_adapter_that_was_asked_for_longest_ago_is_held_no_more() -> None:
    one = cluster(Machine(room=2))
    for at_s, document in enumerate(("a", "b", "a", "c", "a", "b")):
        one.at(100.0 * at_s, one.ask, document, 1)
    one.run()
    assert one.held == 2  # a, twice


def test_workers_train_in_order_and_answers_wait_for_them() -> None:
    one = cluster(workers=2)
    for name in ("a", "b", "c"):
        one.upload_and_ask(name, 100, 1)
    one.run()
    assert one.cold_s == [8 + 1.25 + 1.25 + 0.5, 8 + 1.25 + 1.25 + 0.5, 16 + 1.25 + 0.5]
    assert not one.warm_s


def test_a_demand_keeps_its_rate_its_wave_and_its_hot_document() -> None:
    demand = Demand(rate=50.0, documents=100, seconds=400.0, zipf=1.0, tokens=8, swing=0.5, flash=0.5)
    asked = list(demand.questions(random.Random(1)))
    assert asked == list(demand.questions(random.Random(1)))
    assert len(asked) == pytest.approx(20_000, rel=0.03)
    halves = Counter(at_s < 200 for at_s, _ in asked)
    assert halves[True] / halves[False] == pytest.approx((1 + 1 / 3.1416) / (1 - 1 / 3.1416), rel=0.05)
    in_flash = [document for at_s, document in asked if 160 < at_s < 240]
    assert in_flash.count("document 0") / len(in_flash) == pytest.approx(0.5, abs=0.03)
    plain = list(replace(demand, flash=0.0).questions(random.Random(1)))
    counts = Counter(document for _, document in plain)
    assert "document 0" not in counts
    assert counts["document 1"] / counts["document 2"] == pytest.approx(2, rel=0.1)


def test_it_comes_near_to_what_was_measured() -> None:
    server, ttft = (json.loads((TABLES / f"{name}.json").read_text("utf-8")) for name in ("server", "ttft"))
    found = list(checks(measured(server, ttft), server, ttft))
    assert len(found) == 5
    assert all(0.8 < one["ratio"] < 1.25 for one in found), found


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    monkeypatch.setattr(
        "simulate.write", lambda out, values, lines: written.update(values=values, text="\n".join(lines))
    )
    monkeypatch.setattr("simulate.QUESTIONS", {1: 300, 10: 300, 100: 300})
    monkeypatch.setattr("simulate.COMPARED_QUESTIONS", 400)
    monkeypatch.setattr("simulate.UPLOADS", 50)
    monkeypatch.setattr("sys.argv", ["simulate.py", "--engines", "1", "10", "--out", "x"])
    assert main() == 0
    assert [one["engines"] for one in written["values"]["sizes"]] == [1, 10]
    assert written["text"].startswith(
        "# x: how many engines and workers a load wants\n\n`scripts/simulate.py --engines 1 10 --out x`"
    )
    assert written["text"].count("\n| ") == 5 + 8 + 2 + 9 + 2 * 4
