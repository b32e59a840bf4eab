import copy
from typing import Any

import pytest

from lift_config.prompts import Message, document_line, frame

QUESTION: Message = {"role": "user", "content": "Who?"}
LINE = 'Answer from the document "T".'


def test_the_line_names_the_document_where_it_has_a_title() -> None:
    assert document_line("T") == LINE
    assert document_line(None) == document_line("") == "Answer from the document."


def test_a_system_message_is_made_where_there_is_none() -> None:
    assert frame([QUESTION], "T") == [{"role": "system", "content": LINE}, QUESTION]
    assert frame([], "T") == [{"role": "system", "content": LINE}]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_line_comes_first_in_the_callers_own(role: str) -> None:
    framed = frame([{"role": role, "content": "Be brief.", "name": "n"}, QUESTION], "T")
    assert framed == [{"role": role, "content": f"{LINE}\n\nBe brief.", "name": "n"}, QUESTION]


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_system_message_becomes_the_line(empty: str | None) -> None:
    assert frame([{"role": "system", "content": empty}, QUESTION], "T")[0]["content"] == LINE
    assert frame([{"role": "system"}, QUESTION], "T")[0]["content"] == LINE


def test_content_parts_get_one_more_part() -> None:
    parts = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    framed = frame([{"role": "system", "content": parts}, QUESTION], "T")
    assert framed[0]["content"] == [{"type": "text", "text": LINE}, *parts]


def test_the_whole_text_follows_the_line() -> None:
    assert frame([QUESTION], "T", "The text.")[0]["content"] == f"{LINE}\n\nThe text."
    system: Message = {"role": "system", "content": "Be brief."}
    assert frame([system, QUESTION], "T", "The text.")[0]["content"] == f"{LINE}\n\nThe text.\n\nBe brief."


@pytest.mark.parametrize("content", ["Be brief.", [{"type": "text", "text": "Be brief."}], None])
def test_the_callers_messages_are_left_as_they_are(content: Any) -> None:
    messages: list[Message] = [
        {"role": "system", "content": content},
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "system", "content": "A later one."},
    ]
    before = copy.deepcopy(messages)
    framed = frame(messages, "T", "The text.")
    assert messages == before
    assert framed[1:] == before[1:]
