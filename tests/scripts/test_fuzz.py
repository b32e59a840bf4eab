"""A few hundred of the cases that scripts/fuzz.py sends by the hundred thousand."""

from __future__ import annotations

from collections import Counter

from fuzz import fuzz
from fuzz_cases import KINDS, case


async def test_nothing_bad_comes_of_bad_requests() -> None:
    found = await fuzz(7, range(400))
    assert found.wrong == []
    assert found.cases == 400
    everything: Counter[int] = sum(found.statuses.values(), Counter())
    assert everything[200] > 10  # not all of it is turned away at the door
    assert everything[400] > 100


def test_a_case_is_made_of_seed_and_number_alone() -> None:
    made = [case(1, number, ("doc_a", "doc_b")) for number in range(300)]
    assert made == [case(1, number, ("doc_a", "doc_b")) for number in range(300)]
    assert made[0].sent != case(2, 0, ("doc_a", "doc_b")).sent
    assert {one.kind for one in made} == set(KINDS)
