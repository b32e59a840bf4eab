"""scripts/evaluate_columns.py: what stands in a prompt, how a text is cut, what BM25 finds."""

from collections.abc import Sequence
from typing import Any

import pytest

import evaluate_columns
from evaluate_columns import (
    ANSWER_TOKENS,
    BM25,
    CLOSED_BOOK,
    CUT,
    CUT_TOKENS,
    FEW_SHOT,
    HYBRID,
    IN_CONTEXT,
    SHOTS,
    ask,
    cut,
    texts,
)
from evaluate_scorer import Answered, Tokens
from lift_config.prompts import Message
from lift_server import context


class Letters:
    """A model whose tokens are letters, and which says what it is told to say."""

    window = 1000

    def __init__(self, said: str = "") -> None:
        self._said = said

    def prompt(self, title: str, question: str, text: str | None, shots: Sequence[Message] = ()) -> Tokens:
        turns = "".join(turn["content"] for turn in shots)
        return self.tokens(f"{title}{text or ''}{turns}{question}")

    def tokens(self, text: str) -> Tokens:
        return [ord(letter) for letter in text]

    def text(self, tokens: Tokens) -> str:
        return "".join(map(chr, tokens))

    def answers(self, prompts: Sequence[Tokens], endings: Sequence[Sequence[Tokens]], limit: int) -> list[Answered]:
        """Every ending's likelihood is its length squared."""
        return [Answered([(float(len(one) ** 2), len(one)) for one in own], self.tokens(self._said)) for own in endings]


def document(text: str, **more: Any) -> dict[str, Any]:
    return {"title": "Log", "text": text, "qa": [{"question": "Who built it?", "answers": ["Edda"]} | more]}


def test_the_room_for_an_answer_is_the_products() -> None:
    assert ANSWER_TOKENS == context.ANSWER_TOKENS


def test_hybrid_reads_the_products_excerpt_where_the_text_does_not_fit() -> None:
    text = " ".join(f"The lamp of Orvel was lit {number} times a year." for number in range(200))
    asked = document(text) | {"qa": [{"question": f"Who lit it {n} times?", "answers": ["Edda"]} for n in (17, 150)]}
    first, second = texts(HYBRID, asked, Letters(), 1000)
    assert first is not None
    assert second is not None
    assert "lit 17 times" in first
    assert "lit 150 times" in second
    assert max(len(first), len(second)) <= 1000 - ANSWER_TOKENS - len("LogWho lit it 150 times?")


def test_hybrid_reads_what_is_near_behind_a_long_text_as_the_product() -> None:
    text = " ".join(f"The lamp of Orvel was lit {number} times a year." for number in range(200))
    asked = document(text) | {"qa": [{"question": "Who lit it 150 times?", "answers": ["Edda"]}]}
    (found,) = texts(HYBRID, asked, Letters(), len(text) + 1000)
    assert found is not None
    whole, _, near = found.partition(CUT)
    assert whole == text
    assert "lit 150 times" in near
    assert len(near) <= context.NEAR_TOKENS


def test_a_text_is_cut_to_its_beginning_and_end_in_equal_parts() -> None:
    text = "a" * 50 + "m" * 900 + "z" * 50
    assert cut(text, 100 + CUT_TOKENS, Letters()) == "a" * 50 + CUT + "z" * 50
    assert cut(text, CUT_TOKENS + 1, Letters()) is None


def test_half_letters_go() -> None:
    assert cut("\ufffdab" + "m" * 90 + "yz\ufffd", CUT_TOKENS + 6, Letters()) == "ab" + CUT + "yz"


FRAMING = len("".join(turn["content"] for turn in SHOTS)) + len("LogWho built it?")


@pytest.mark.parametrize("column", [IN_CONTEXT, FEW_SHOT, HYBRID])
def test_the_text_stands_whole_where_question_and_answer_have_room(column: str) -> None:
    fits = document("x" * (1000 - ANSWER_TOKENS - FRAMING))
    assert texts(column, fits, Letters(), 1000) == [fits["text"]]
    assert texts(column, document(fits["text"] + "x"), Letters(), 1000) != [fits["text"] + "x"]


def test_what_does_not_fit_a_context_is_cut() -> None:
    longer = document("x" * (1000 - ANSWER_TOKENS - FRAMING + 1))
    (found,) = texts(IN_CONTEXT, longer, Letters(), 1000)
    half = (1000 - ANSWER_TOKENS - FRAMING - CUT_TOKENS) // 2
    assert found == "x" * half + CUT + "x" * half


def test_a_long_choice_takes_room_from_the_text() -> None:
    answer = "y" * (ANSWER_TOKENS + 10)
    text = "x" * (1000 - ANSWER_TOKENS - FRAMING)
    (found,) = texts(IN_CONTEXT, document(text, choices=["no", answer], gold=0), Letters(), 1000)
    assert found is not None
    assert CUT in found


def test_closed_book_has_no_text() -> None:
    assert texts(CLOSED_BOOK, document("x"), Letters(), 1000) == [None]


def test_bm25_finds_the_passage_and_keeps_reading_order() -> None:
    filler = [f"Sentence {number} speaks of rain and of nothing else at all today. " * 10 for number in range(20)]
    filler[4] = "The lighthouse was built by Edda Holm of Ostrelle in the year of the great storm. "
    filler[15] = "Who built it again was Tobias, after the fire took the roof and the lamp. "
    (found,) = texts(BM25, document("\n\n".join(filler)), Letters(), 1000)
    assert found is not None
    assert found.index("Edda Holm") < found.index("Tobias")
    assert len(evaluate_columns.words(found)) < 600


def test_a_question_of_unknown_words_gets_passages_all_the_same() -> None:
    only = document("Moss grows here. " * 5, question="¿?")
    assert texts(BM25, only, Letters(), 1000) == [("Moss grows here. " * 5).strip()]


def test_passages_are_of_about_a_hundred_words_and_leave_nothing_out() -> None:
    text = " ".join(f"This sentence has the number {number} and some more words in it." for number in range(60))
    found = evaluate_columns.passages(text)
    assert " ".join(found) == text
    assert all(100 <= len(evaluate_columns.words(passage)) <= 170 for passage in found[:-1])


def test_a_record_has_likelihoods_and_what_the_answer_gives() -> None:
    qa: list[dict[str, Any]] = [
        {"question": "Who?", "answers": ["Edda", "E."]},
        {"question": "Which?", "answers": ["long one"], "choices": ["long one", "one"], "gold": 0},
    ]
    first, second = ask(
        Letters("Edda it is"), "Log", qa, [None, None], 8, lambda question, golds, said: golds[0] in said
    )
    assert (first["nll"], first["tokens"], first["contained"], first["judge"]) == (16.0, 4, 1.0, 1.0)
    assert first["prompt_tokens"] == len("LogWho?")
    assert "choice" not in first
    assert (second["choice"], second["judge"], second["nll"]) == (0.0, 0.0, 64.0)
