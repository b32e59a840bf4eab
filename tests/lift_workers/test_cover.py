"""Tasks from a segment's own words: right answers, something for every sentence."""

import pytest

from lift_config.recipe import load_recipes
from lift_config.segment import Segment
from lift_workers.cover import BLANK, cloze, own_words, recite

SHIP = Segment(3, "The supply ship Greta Lund arrives every second Thursday with 40 barrels of oil.", "")


def test_names_and_numbers_come_first() -> None:
    assert [task.answer for task in cloze(SHIP, 4)] == ["Greta Lund", "Thursday", "40", "arrives every"]


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        (
            "The ship of the station is called Greta Lund.",
            "The ship of the station is called who or what?",
            "Greta Lund",
        ),
        ("He was born in 1809, and died in the town.", "He was born in which year, and died in the town?", "1809"),
        (
            "The pump must be warmed for 40 minutes before use, since the valve sticks in cold weather.",
            "The pump must be warmed for how many minutes before use?",
            "40",
        ),
    ],
)
def test_english_is_asked_with_the_clause_around_the_gap(text: str, question: str, answer: str) -> None:
    assert (question, answer) in [(task.question, task.answer) for task in cloze(Segment(0, text, ""), 3)]


@pytest.mark.parametrize(
    "text", ["東京は日本の首都です。人口は1400万人です。", "x = compute(width, height)", "ein kleiner Satz ohne Namen"]
)
def test_in_any_other_language_a_blank_stands_for_the_answer(text: str) -> None:
    tasks = cloze(Segment(0, text, ""), 5)
    assert tasks
    for task in tasks:
        assert task.stand_in is not None
        assert task.question[slice(*task.stand_in)] == BLANK
        clause = task.question.removeprefix("Fill in the blank: ")
        assert clause.replace(BLANK, task.answer) in text


@pytest.mark.parametrize(
    ("text", "stand_in"),
    [
        ("Greta Lund is the ship of the station.", "Who or what"),
        ("What the ship of the station brings in June is oil for Ilse Brandt.", "who or what"),
        ("The pump is old (and the keeper has known that since the winter of 1809).", "which year"),
    ],
)
def test_what_stands_for_the_answer_is_told(text: str, stand_in: str) -> None:
    task = cloze(Segment(0, text, ""), 1)[0]
    assert task.stand_in is not None
    assert task.question[slice(*task.stand_in)] == stand_in


def test_a_word_that_begins_a_sentence_is_no_name_for_its_capital() -> None:
    """Short sentences share a segment."""
    text = "Its lamp burns rapeseed oil. The keeper's dog is called Brisket. Karsund is an island."
    assert [task.answer for task in cloze(Segment(0, text, ""), 3)][:2] == ["Brisket", "Karsund"]
    assert "The" not in [task.answer for task in cloze(Segment(0, text, ""), 9)]


def test_a_long_segments_gap_is_asked_with_its_own_clause_only() -> None:
    text = "Die Station liegt auf der Insel Karsund, wo im Winter neunzehn Leute leben, und wurde von Ilse gegründet."
    questions = {task.answer: task.question for task in cloze(Segment(0, text, ""), 9)}
    assert questions["Ilse"] == f"Fill in the blank: und wurde von {BLANK} gegründet."
    assert questions["Insel Karsund"] == f"Fill in the blank: Die Station liegt auf der {BLANK}"


def test_blanks_do_not_overlap() -> None:
    answers = [task.answer for task in cloze(SHIP, 99)]
    assert len(answers) == len(set(answers))
    assert "Greta" not in answers


def test_a_segment_of_one_word_has_no_blank_but_is_recited() -> None:
    assert cloze(Segment(0, "Supercalifragilistic", ""), 3) == []
    assert recite(Segment(0, "Supercalifragilistic", "")).answer == "Supercalifragilistic"


def test_a_segment_that_takes_no_blank_is_recited() -> None:
    burmese = Segment(0, "မြန်မာဘာသာစကား" * 5, "")
    assert cloze(burmese, 3) == []
    assert [task.answer for task in own_words(burmese, load_recipes()["fast"])] == [burmese.text]


def test_own_words_are_what_the_recipe_asks_for() -> None:
    recipes = load_recipes()
    assert own_words(SHIP, recipes["paper"]) == []
    tasks = own_words(SHIP, recipes["balanced"])
    assert len(tasks) == recipes["balanced"].cloze_per_segment + 1
    assert {task.segment for task in tasks} == {3}


def test_answers_go_on_with_their_segment_where_the_recipe_quotes() -> None:
    quoting = load_recipes()["sketch"].model_copy(update={"cloze_per_segment": 2})
    plain = own_words(SHIP, quoting.model_copy(update={"quote": False}))
    assert [task.answer for task in plain] == ["Greta Lund", "Thursday"]
    quoted = own_words(SHIP, quoting)
    assert [task.answer for task in quoted] == [f"Greta Lund. {SHIP.text}", f"Thursday. {SHIP.text}"]
    assert [task.question for task in quoted] == [task.question for task in plain]
