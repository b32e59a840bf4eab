"""Segments cover the text, in every kind of writing, within their bounds and in little time."""

import time

import pytest

from lift_config.segment import CONTEXT_CHARS, MAX_CHARS, Segment, segment

CODE = "def area(w, h):\n    # in metres\n    return w * h\n\n\nclass Box:\n    lid = None\n" * 30
TEXTS = {
    "one line": "The mill burned in 1802. Mr. Bly rebuilt it, at a cost of 3.5 million. It stands today. " * 40,
    "paragraphs": "First paragraph of some length, it is.\n\nSecond one, which is not much longer.\n\n" * 20,
    "wrapped": "A text that was wrapped at some column so that its sentences go\nover the ends of lines, as "
    "in e-mail and in old plain text files, and\nstill are sentences. Here is another one.\n\n" * 5,
    "japanese": "東京は日本の首都です。人口は1400万人です。桜は春に咲きます。" * 50,
    "thai": "ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ" * 60,
    "arabic": "ولد في مدينة صغيرة عام ١٩٢٠. هل درس الطب؟ نعم، درس الطب في القاهرة. " * 30,
    "code": CODE,
    "markdown": "# Title\n\n- first item\n- second item\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nA sentence at the end.\n",
    "one word": "a" * 5000,
    "stops": ". " * 3000,
    "wide spaces": "Elle prit de la vitamine C\u00a0. Puis elle partit\u2009; il resta\u3000. Fin de l'histoire ici.\n"
    * 20,
    "crammed": "\n" * 5000 + "The end of it, finally." + " \n\t" * 3000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_character_lies_in_one_segment_in_order(name: str) -> None:
    segments = segment(TEXTS[name])
    assert squeezed("".join(one.text for one in segments)) == squeezed(TEXTS[name])
    assert [one.number for one in segments] == list(range(len(segments)))


@pytest.mark.parametrize("name", TEXTS)
def test_segments_keep_their_bounds(name: str) -> None:
    for one in segment(TEXTS[name]):
        assert 0 < len(one.text) <= MAX_CHARS
        assert one.text == one.text.strip() or len(one.text) == MAX_CHARS or one.text[-1].isspace()
        assert len(one.context) <= CONTEXT_CHARS


def test_sentences_are_segments() -> None:
    texts = [one.text for one in segment(TEXTS["one line"])]
    assert texts[0] == "The mill burned in 1802. Mr. Bly rebuilt it, at a cost of 3.5 million."
    assert "東京は日本の首都です。人口は1400万人です。" in {one.text for one in segment(TEXTS["japanese"])}


def test_hard_wrapped_lines_are_not_boundaries() -> None:
    assert any("sentences go\nover the ends" in one.text for one in segment(TEXTS["wrapped"]))


def test_context_is_the_text_just_before() -> None:
    first, second = segment("The harbour master lives in the old tower by the quay. He keeps eleven grey geese there.")
    assert first == Segment(0, "The harbour master lives in the old tower by the quay.", "")
    assert second.context == first.text


@pytest.mark.parametrize("name", TEXTS)
def test_a_segment_knows_where_it_stands(name: str) -> None:
    assert [TEXTS[name][slice(*one.span)] for one in segment(TEXTS[name])] == [one.text for one in segment(TEXTS[name])]


def test_context_begins_with_a_whole_word() -> None:
    last = segment("Extraordinarily " * 100 + "they left. Nobody had expected such a thing to happen.")[-1]
    assert last.context.startswith("Extraordinarily ")


def test_white_space_has_no_segments() -> None:
    assert segment(" \n\t \n") == []


@pytest.mark.parametrize("unit", ["word ", "東京は日本の首都です。", "x=1\n", "a", ". ", "ภาษาไทย"])
def test_a_megabyte_is_linear_work(unit: str) -> None:
    """Not a benchmark: a quadratic step would take minutes, not part of these 20 s."""
    began_s = time.process_time()
    assert segment((unit * 2**20)[: 2**20])
    assert time.process_time() - began_s < 20


def squeezed(text: str) -> str:
    return "".join(text.split())
