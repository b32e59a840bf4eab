"""The one framing of a question about a document, for training and for answering.

In: chat messages and the document's title. Out: the same messages with one system line that names the
document. Drift between what an adapter was trained on and what it is asked with is the classic LIFT bug,
so both sides call this and nothing else. The user's turns are never touched.
"""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]

PROMPT_VERSION = "2"  # part of a job's key: raise it when the framing or the synthesis prompts change


def document_line(title: str | None) -> str:
    """The system line; the title is all a question needs to know of a document."""
    return f'Answer from the document "{title}".' if title else "Answer from the document."


def frame(messages: list[Message], title: str | None, text: str | None = None) -> list[Message]:
    """Put the document's line first in the system message (a new one where there is none).

    With `text` the whole document follows the line: mode `context`, the comparison.
    """
    line = document_line(title)
    if text is not None:
        line = f"{line}\n\n{text}"
    if messages and messages[0].get("role") in ("system", "developer"):
        first, rest = messages[0], messages[1:]
        return [{**first, "content": _prepend(line, first.get("content"))}, *rest]
    return [{"role": "system", "content": line}, *messages]


def _prepend(line: str, content: Any) -> Any:
    """`content` is a string, a list of content parts (OpenAI's chat format), or missing."""
    if isinstance(content, list):
        return [{"type": "text", "text": line}, *content]
    return f"{line}\n\n{content}" if content else line
