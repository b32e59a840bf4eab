"""scripts/evaluate_metrics.py and evaluate_judge.py: values computed by hand, intervals that must hold."""

import math

import numpy as np
import pytest

from evaluate_judge import verdict
from evaluate_metrics import DRAWS, Sums, choice, contained, difference, estimate, f1, is_refusal, measure, normalized


def test_normalized_as_squad_does() -> None:
    assert normalized("  The  Nobel-Prize, a first! ") == "nobelprize first"


def test_f1_over_words() -> None:
    assert f1("the Nobel Prize in 1903", "Nobel Prize") == pytest.approx(2 * 2 / (4 + 2))
    assert f1("no no", "no") == pytest.approx(2 / 3)
    assert f1("Warsaw", "Paris") == 0.0
    assert f1("", "Paris") == 0.0


def test_a_question_takes_its_best_gold_answer() -> None:
    found = measure({"answers": ["Kraków", "Warsaw"]}, "It is Warsaw.")
    assert found == {"f1": pytest.approx(0.5), "em": 0.0, "contained": 1.0, "refused": 0.0}
    assert measure({"answers": ["Warsaw"]}, "the warsaw!")["em"] == 1.0


def test_contained_minds_neither_case_nor_white_space() -> None:
    assert contained("In the\n SOUTHERN\tparts", ["northern", "southern  parts"])
    assert not contained("In the southern parts", ["southern part of"])


def test_a_needle_wants_all_its_keywords() -> None:
    qa = {"answers": ["eat a sandwich"], "keywords": ["sandwich", "Dolores Park"]}
    assert measure(qa, "A sandwich in dolores park.")["needles"] == 1.0
    assert measure(qa, "A sandwich.")["needles"] == 0.0


@pytest.mark.parametrize("said", ["The document doesn’t mention it.", "I do not know.", "That is not stated here"])
def test_a_refusal(said: str) -> None:
    assert is_refusal(said)


def test_no_refusal() -> None:
    assert not is_refusal("It says so on page 3.")


def test_a_choice_is_by_its_mean_token() -> None:
    assert choice([(4.0, 2), (4.5, 3), (1.6, 1)]) == 1


def test_a_value_is_a_ratio_of_sums() -> None:
    one = estimate(Sums({"A": [1.0, 3.0], "B": [4.0]}, {"A": [1.0, 1.0], "B": [2.0]}))
    assert one.value == 2.0
    assert one.count == 3
    assert 1.0 <= one.low < one.value < one.high <= 3.0


def test_an_interval_is_the_same_every_time_and_that_of_a_mean() -> None:
    values = [float(value) for value in np.random.default_rng(3).normal(size=400)]
    sums = Sums({"A": values}, {"A": [1.0] * 400})
    one = estimate(sums)
    assert one == estimate(sums)
    assert len(sums.draws()) == DRAWS
    expected = 1.96 * float(np.std(values)) / math.sqrt(400)
    assert (one.high - one.low) / 2 == pytest.approx(expected, rel=0.1)


def test_documents_are_drawn_before_their_questions() -> None:
    """Questions of a document are alike: the interval is that of two documents, not of a hundred questions."""
    alike = Sums({"A": [0.0] * 50, "B": [1.0] * 50}, {"A": [1.0] * 50, "B": [1.0] * 50})
    mixed = Sums({"A": [0.0, 1.0] * 50}, {"A": [1.0] * 100})
    assert estimate(alike).high - estimate(alike).low == 1.0
    assert estimate(mixed).high - estimate(mixed).low < 0.25


def test_a_difference_is_paired() -> None:
    """A column that is better by the same on every question is surely better, however far the questions differ."""
    theirs = Sums({"A": [1.0, 5.0, 9.0], "C": [2.0]}, {"A": [1.0] * 3, "C": [1.0]})
    ours = Sums({"A": [0.5, 4.5, 8.5], "B": [7.0]}, {"A": [1.0] * 3, "B": [1.0]})
    one = difference(ours, theirs)
    assert one is not None
    assert (one.value, one.low, one.high, one.count) == pytest.approx((-0.5, -0.5, -0.5, 3))


def test_no_document_in_common_is_no_difference() -> None:
    assert difference(Sums({"A": [1.0]}, {"A": [1.0]}), Sums({"B": [1.0]}, {"B": [1.0]})) is None


def test_a_verdict_is_the_first_digit() -> None:
    assert verdict("Verdict: 1")
    assert not verdict("0, since 1 is wrong")
    with pytest.raises(ValueError, match="no verdict"):
        verdict("perhaps")
