"""A language model as judge: whether an answer says what a gold answer says.

In: any OpenAI-compatible address, a question, gold answers, an answer. Out: right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from openai import OpenAI

PROMPT = """You grade answers. Decide whether the answer to the question means the same as one of the reference answers.
More detail than the reference is fine as long as nothing contradicts it. An answer that avoids the question is wrong.

Question: {question}
Reference answers: {golds}
Answer: {answer}

Reply with one digit: 1 if the answer is right, 0 if it is wrong."""


class LlmJudge:
    """Greedy, one question a request."""

    def __init__(self, url: str, model: str, key: str) -> None:
        self._client = OpenAI(base_url=url, api_key=key or "none", max_retries=4)
        self._model = model

    def __call__(self, question: str, golds: Sequence[str], answer: str) -> bool:
        content = PROMPT.format(question=question, golds=" | ".join(golds), answer=answer)
        reply = self._client.chat.completions.create(
            model=self._model, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=8
        )
        return verdict(reply.choices[0].message.content or "")


def verdict(reply: str) -> bool:
    """The first digit decides. ValueError where there is no verdict: no answer is counted as wrong by mistake."""
    for character in reply:
        if character in "01":
            return character == "1"
    raise ValueError(f"the judge's reply is no verdict: {reply!r}")
