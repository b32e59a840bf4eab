"""A short run of what scripts/bench_faults.py does at length, on a product of its own; and the checks' own checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.faults import invariants
from tests.faults.journal import Fate, Journal
from tests.faults.plan import plan
from tests.faults.run import run, summary

ADAPTERS = ("a" * 32 + "-" + "1" * 12, "b" * 32 + "-" + "2" * 12)
SAID = [("The", -0.5), (" lamp", -1.0)]


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_nothing_is_lost_or_mixed_up_while_parts_die(tmp_path: Path) -> None:
    said: list[str] = []
    journal = run(tmp_path / "home", seed=3, kills=8, say=said.append)
    found = summary(journal)
    assert not journal.violations, (journal.violations, said)
    assert found["kills"] == 8
    assert found["adapters that answered"] >= 3


def test_a_plan_is_the_same_each_time_and_has_its_share_of_each_part() -> None:
    assert plan(7, 200) == plan(7, 200) != plan(8, 200)
    counts = Counter(str(fault) for fault in plan(7, 200))
    assert sum(n for what, n in counts.items() if not what.startswith("pause")) == 200
    assert counts["kill engine-0"] + counts["kill engine-0:child"] >= 20
    assert counts["lose redis"] == 10


def document(name: str, *adapters: str, status: str = "ready", unfinished: bool = False) -> dict[str, object]:
    versions = [{"id": one, "version": n, "recipe": f"r{n}"} for n, one in enumerate(adapters, 1)]
    return {"id": name, "status": status, "unfinished": unfinished, "error": None, "adapters": versions}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        for name in ("doc_1", "doc_2"):
            journal.uploaded("ada", name, "text")
        yield journal


def test_what_was_told_is_known_again(tmp_path: Path, journal: Journal) -> None:
    journal.fate("ada", "doc_1", Fate.DELETED)
    journal.fate("ada", "doc_1", Fate.CANCELLING)  # it only moves on
    journal.answered("ada", "doc_2", ADAPTERS[0], SAID)
    with closing(Journal(tmp_path / "journal.jsonl")) as again:
        pass
    assert again.owners == journal.owners
    assert again.owners["ada"].fates == {"doc_1": Fate.DELETED, "doc_2": Fate.KEPT}
    assert again.answers == journal.answers


def test_documents_that_are_lost_stuck_or_back_are_found(journal: Journal) -> None:
    journal.fate("ada", "doc_2", Fate.DELETED)
    shown = {"ada": [document("doc_2", ADAPTERS[0]), document("doc_3", status="queued", unfinished=True)]}
    found = list(invariants.of_documents(journal, shown))
    assert len(found) == 4, found  # doc_1 lost, doc_2 back, doc_3 strange and stuck
    journal.fate("ada", "doc_1", Fate.DELETED)
    assert not list(invariants.of_documents(journal, {"ada": []}))


def test_a_version_published_twice_is_found(journal: Journal) -> None:
    twice = document("doc_1", *ADAPTERS)
    for version in twice["adapters"]:  # type: ignore[attr-defined] # a list of dicts
        version["recipe"] = "sketch"
    shown = {"ada": [twice, document("doc_2", status="cancelled")]}
    assert list(invariants.of_documents(journal, shown)) == ["doc_1 has several versions of ['sketch']"]


def test_an_answer_of_another_documents_adapter_is_found(journal: Journal) -> None:
    journal.answered("ada", "doc_1", ADAPTERS[1], SAID)
    shown = {"ada": [document("doc_1", ADAPTERS[0]), document("doc_2", ADAPTERS[1])]}
    assert list(invariants.of_answers(journal, shown)) == [f"doc_1 was answered from {ADAPTERS[1]}"]


def test_another_adapters_weights_under_an_adapters_name_are_found(journal: Journal) -> None:
    shown = {"ada": [document("doc_1", ADAPTERS[0]), document("doc_2", ADAPTERS[1])]}
    journal.answered("ada", "doc_1", ADAPTERS[0], SAID)
    journal.answered("ada", "doc_1", ADAPTERS[0], [("The", -0.5001), (" lamp", -1.0)])
    assert not list(invariants.of_answers(journal, shown))
    journal.answered("ada", "doc_1", ADAPTERS[0], [("The", -0.7), (" lamp", -1.0)])
    assert len(list(invariants.of_answers(journal, shown))) == 1
    journal.answered("ada", "doc_2", ADAPTERS[1], SAID)
    assert len(list(invariants.of_answers(journal, shown))) == 2  # which of the two was asked cannot be told


@pytest.mark.parametrize(("owner", "text"), [("ada", "another text"), ("bert", "text")])
def test_one_trainings_answers_about_two_texts_are_found(journal: Journal, owner: str, text: str) -> None:
    journal.answered("ada", "doc_1", ADAPTERS[0], SAID)
    journal.answered("ada", "doc_2", ADAPTERS[0], SAID)  # of the same text
    assert not list(invariants.of_trainings(journal))
    journal.uploaded(owner, "doc_3", text)
    journal.answered(owner, "doc_3", ADAPTERS[0], SAID)
    journal.fate(owner, "doc_3", Fate.DELETED)
    assert len(list(invariants.of_trainings(journal))) == 1


def test_after_a_near_tie_answers_may_differ() -> None:
    assert invariants.agree(SAID, [("A", -0.5005)])
    assert not invariants.agree(SAID, [("A", -0.51)])
    assert not invariants.agree(SAID, SAID[:1])
