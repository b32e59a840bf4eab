"""Which questions and answers may become tasks."""

import pytest

from lift_config.segment import Segment
from lift_workers.filters import is_grounded, is_supported

SHIP = Segment(0, "The supply ship Greta Lund arrives every second Thursday and carries fuel.", "They wait for mail.")
TITLE = "Velmora handbook"


@pytest.mark.parametrize(
    ("question", "grounded"),
    [
        ("What is the name of the supply ship?", True),
        ("When does the ship arrive?", True),
        ("What is the ship in the Velmora handbook called?", True),  # the title counts
        ("What do they wait for?", True),  # so does what stands before
        ("What is the capital of Poland?", False),
        ("What?", False),
    ],
)
def test_a_question_must_be_about_the_segment(question: str, grounded: bool) -> None:
    assert is_grounded(question, SHIP, TITLE) is grounded


@pytest.mark.parametrize(
    ("question", "answer", "score", "supported"),
    [
        ("What is the supply ship called?", "Greta Lund", -0.1, True),
        ("When does it come?", "every second thursday", -0.1, True),
        ("What is the supply ship called?", "Greta Lund", -2.0, False),  # a guess
        ("Where does the ship go?", "Ostrelle", -0.1, False),  # not in the segment
        ("When does the Greta Lund arrive?", "Greta Lund", -0.1, False),  # given away
        ("What?", "", -0.1, False),
        ("What arrives?", "The supply ship Greta Lund arrives every second Thursday and carries fuel", -0.1, False),
    ],
)
def test_an_answer_must_stand_in_the_segment(question: str, answer: str, score: float, supported: bool) -> None:
    assert is_supported(answer, score, question, SHIP) is supported


def test_filters_know_scripts_without_spaces() -> None:
    tokyo = Segment(0, "東京は日本の首都です。人口は1400万人です。", "")
    assert is_grounded("日本の首都はどこですか？", tokyo, None)
    assert not is_grounded("猫は何を食べますか？", tokyo, None)
    assert is_supported("東京", -0.1, "日本の首都はどこですか？", tokyo)
    assert not is_supported("東京", -0.1, "東京は何ですか？", tokyo)
