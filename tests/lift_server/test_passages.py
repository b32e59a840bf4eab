"""Passages: which are found, in which scripts, where they stand, and how many documents are kept."""

from __future__ import annotations

import pytest

from lift_config.segment import segment
from lift_server.convert.converter import Converted
from lift_server.passages import CUT, Index, Passages, words

CHINESE = (
    "卡伦灯塔建于一八七四年，由埃达霍尔姆建造，至今仍在使用。"
    "灯塔的灯烧的是菜籽油，由港口每周运来一次。"
    "看守人的狗叫布里斯克，它每天早晨在海滩上奔跑。"
)
LONG = " ".join(f"Keeper number {number} of the lighthouse at Orvel has {number} bees." for number in range(50))


class Texts:
    """A store of one text, which counts how often it is read."""

    def __init__(self, text: str) -> None:
        self.text, self.read = text, 0

    async def __call__(self) -> Converted:
        self.read += 1
        return Converted(self.text, {})


def test_words() -> None:
    assert words("Edda's Lamp_2, 3.5 Ärger") == ["edda", "s", "lamp_2", "3", "5", "ärger"]
    assert words("灯塔的灯 lamp 塔") == ["灯塔", "塔的", "的灯", "lamp", "塔"]
    assert words("ランプはlampだ") == ["ラン", "ンプ", "プは", "lamp", "だ"]
    assert words("등대의 불빛") == ["등대의", "불빛"]  # Korean has spaces
    assert words("?! …") == []


def test_the_segment_that_shares_the_rarest_words_comes_first() -> None:
    first, *rest = Index(Converted(LONG, {})).best("Who has bees?", "Keeper number 33", 4)
    assert first.number == 33
    assert LONG[first.start : first.end] == first.text == segment(LONG)[33].text
    assert len(rest) == 3


def test_every_passage_stands_where_it_says() -> None:
    text = "Same words here, in a sentence of some length.\n" * 5 + LONG
    found = Index(Converted(text, {})).best("same words", "bees", 100)
    assert {one.number for one in found} == {one.number for one in segment(text)}
    assert all(text[one.start : one.end] == one.text for one in found)
    assert [one.start for one in sorted(found, key=lambda one: one.number)] == sorted(one.start for one in found)


def test_a_script_without_spaces() -> None:
    best = Index(Converted(CHINESE, {})).best("看守人的狗叫什么名字？", "布里斯克", 3)
    assert "布里斯克" in best[0].text
    assert best[0].nearness == 1


def test_nearness_is_to_the_question() -> None:
    text = (
        "The keeper of the lighthouse is called Edda Holm by all.\n\nRapeseed oil is carried there by a cart and horse."
    )
    nearness = {
        one.number: one.nearness
        for one in Index(Converted(text, {})).best("Who is the lighthouse keeper?", "horse cart", 2)
    }
    assert nearness[0] == 1 > 0.5 > nearness[1]


@pytest.mark.parametrize("text", ["", "?! … ---", "A single sentence about nothing at all, of course."])
@pytest.mark.parametrize("question", ["", "?", "Where are the bees?"])
def test_nothing_in_common_is_nothing_found(text: str, question: str) -> None:
    assert Index(Converted(text, {})).best(question, "", 3) == []


async def test_a_document_is_read_once() -> None:
    passages, texts = Passages(), Texts(LONG)
    for _ in range(2):
        assert (await passages.best("a", texts, "bees", "", 2))[0].text in LONG
    assert texts.read == 1


async def test_the_documents_last_searched_are_kept() -> None:
    passages = Passages(kept_chars=2 * len(LONG))
    texts = {key: Texts(LONG) for key in "abc"}
    for key in "abacab":  # "c" drops "b", whose return drops "c"
        await passages.best(key, texts[key], "bees", "", 1)
    assert {key: one.read for key, one in texts.items()} == {"a": 1, "b": 2, "c": 1}


async def test_one_document_above_the_limit_is_kept() -> None:
    passages, texts = Passages(kept_chars=1), Texts(LONG)
    for _ in range(2):
        await passages.best("a", texts, "bees", "", 1)
    assert texts.read == 1


async def test_a_deleted_document_is_forgotten() -> None:
    passages, texts = Passages(), Texts(LONG)
    await passages.best("a", texts, "bees", "", 1)
    await passages.forget("a")
    await passages.forget("b")
    await passages.best("a", texts, "bees", "", 1)
    assert texts.read == 2


# ---- excerpts -------------------------------------------------------------------------------------------------


def test_an_excerpt_has_the_beginning_and_what_was_asked_with_its_neighbours() -> None:
    excerpt = Index(Converted(LONG, {})).excerpt("Who has 33 bees?", 500)
    assert len(excerpt) <= 500
    parts = excerpt.split(CUT)
    assert parts[0].startswith("Keeper number 0 ")
    assert any(all(f"has {number} bees." in part for number in (32, 33, 34)) for part in parts)
    assert all(part in LONG for part in parts)
    assert [LONG.index(part) for part in parts] == sorted(LONG.index(part) for part in parts)


def test_an_excerpt_of_everything_is_the_text() -> None:
    assert Index(Converted(LONG, {})).excerpt("bees", 10 * len(LONG)) == LONG


@pytest.mark.parametrize("question", ["", "?!", "zzz", "灯塔的灯"])
def test_without_a_word_in_common_an_excerpt_is_the_beginning(question: str) -> None:
    excerpt = Index(Converted(LONG, {})).excerpt(question, 500)
    assert LONG.startswith(excerpt)
    assert 400 < len(excerpt) <= 500


def test_no_room_no_excerpt() -> None:
    assert Index(Converted(LONG, {})).excerpt("bees", 10) == ""
    assert Index(Converted("", {})).excerpt("bees", 100) == ""


def test_an_excerpt_of_a_script_without_spaces() -> None:
    excerpt = Index(Converted(CHINESE * 30, {})).excerpt("看守人的狗叫什么名字？", 200)
    assert "布里斯克" in excerpt
