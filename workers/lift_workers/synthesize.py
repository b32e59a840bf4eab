"""Synthesize: segments in, synthetic tasks out, in the order the engine finishes them.

The base model itself writes the tasks, through the engine's own completions API: few-shot, since small models
follow an example better than an instruction, and the shared part first, so that vLLM's prefix cache serves it.
Questions are sampled, for variety; each is then answered greedily from its segment, for truth. Filters keep a
task only where its question speaks of the segment and its answer stands there; a bad reply costs only itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from lift_config.recipe import Recipe
from lift_workers.jobs import JobFailed
from lift_workers.segment import Segment

MAX_QUESTION_TOKENS = 40
MAX_ANSWER_TOKENS = 32
TEMPERATURE = 0.7  # of questions
MAX_SAME_ANSWER = 3  # tasks of one segment; a small model asks for the first name it sees again and again
QUESTION_MARKS = ("?", "？", "؟")
CONNECT_S = 10.0
ATTEMPTS = 20  # of one request, about three minutes: an engine may be restarting
RETRY_S = 2.0  # times the attempt, up to
MAX_RETRY_S = 10.0
POLL_S = 1.0  # between two looks whether an engine is up
IDLE_S = 3.0  # vLLM closes idle connections after 5 s; a request sent into that moment would be lost
WRONG_ENGINE = (401, 403, 404)  # not this request's fault: key, route or model are wrong for all of them

FEW_SHOT = """Write a question about the text and answer it in the text's own words.

Before: The bridge crosses the Thames.
Text: It was opened in 1832 and was designed by the engineer William Tierney Clark.
Question: Who designed the bridge?
Answer: William Tierney Clark

Before: All sales are subject to these terms.
Text: Refunds are paid within 14 days, except for opened software, which cannot be returned.
Question: Within how many days are refunds paid?
Answer: 14 days

Before: The museum has four halls.
Text: Its oldest painting is called The Miller's Daughter and hangs in the north hall.
Question: What is the museum's oldest painting called?
Answer: The Miller's Daughter

Before:
Text: Because the valve sticks in cold weather, the pump must be warmed before use.
Question: Why must the pump be warmed before use?
Answer: Because the valve sticks in cold weather

"""
STARTS = ("What", "Who", "Where", "When", "How many", "Which", "What is the name of", "How", "", "Why")
"""Beginnings of the questions asked for, in turn: left alone, a small model asks the same one every time."""

SEED_STRIDE = 7_919_017  # keeps the samples of two recipe seeds apart
BEFORE_CHARS = 160  # of a segment's context; enough for "it" and "he", little to prefill


logger = logging.getLogger(__name__)


class SampleRefused(Exception):
    """The engine will not take this one request, for example since its prompt is too long."""


@dataclass(frozen=True)
class SyntheticTask:
    """One question and its answer, written about segment `segment`."""

    segment: int
    question: str
    answer: str


class Generator:
    """The LLM that writes the tasks: the base model behind the engines' completions API.

    An async context manager. `concurrency` bounds the samples in flight over all requests.
    """

    def __init__(self, engine_urls: Sequence[str], api_key: str, model_name: str, concurrency: int) -> None:
        self._urls = engine_urls
        self._api_key = api_key
        self._model_name = model_name
        self.concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._sent = 0

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def question(self, prompt: str, seed: int) -> str | None:
        """One sampled continuation of `prompt` up to a question mark; None where none comes."""
        body = {
            "prompt": prompt,
            "seed": seed,
            "max_tokens": MAX_QUESTION_TOKENS,
            "temperature": TEMPERATURE,
            "stop": [*QUESTION_MARKS, "\n"],
            "include_stop_str_in_output": True,
        }
        choice = await self._choice(body)
        text = str(choice["text"]).strip() if choice else ""
        return text if text.endswith(QUESTION_MARKS) else None

    async def answer(self, prompt: str) -> tuple[str, float]:
        """The likeliest rest of the line, and its mean log-probability per token; an empty one where none comes."""
        body = {"prompt": prompt, "max_tokens": MAX_ANSWER_TOKENS, "temperature": 0, "stop": ["\n"], "logprobs": 0}
        choice = await self._choice(body)
        logprobs = choice["logprobs"]["token_logprobs"] if choice else []
        return (str(choice["text"]).strip() if choice else ""), sum(logprobs) / max(1, len(logprobs))

    async def count_tokens(self, text: str) -> int:
        """Tokens of `text` under the base model's tokenizer (vLLM's /tokenize), however many; or SampleRefused."""
        reply = await self._post("/tokenize", {"prompt": text, "add_special_tokens": False})
        return int(reply["count"])

    async def until_up(self) -> None:
        """Return once an engine answers; it may take minutes to start."""
        while not any([await self._is_up(url) for url in self._urls]):
            await asyncio.sleep(POLL_S)  # nothing announces that an engine is there

    async def _is_up(self, url: str) -> bool:
        try:
            async with self._session.get(f"{url}/health") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def _choice(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The one completion, None where this request was refused: a bad sample costs only itself."""
        async with self._slots:
            try:
                reply = await self._post("/v1/completions", body)
            except SampleRefused as refused:
                logger.warning("a synthesis request was refused: %s", refused)
                return None
        choice: dict[str, Any] = reply["choices"][0]
        return choice

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Engines in turn; waits for one that restarts. JobFailed where none answers or all would refuse."""
        for attempt in range(1, ATTEMPTS + 1):
            self._sent += 1
            url = self._urls[self._sent % len(self._urls)]
            try:
                async with self._session.post(url + path, json={"model": self._model_name, **body}) as response:
                    if response.status == 200:
                        reply: dict[str, Any] = await response.json()
                        return reply
                    said = (await response.text())[:300]
                    if response.status in WRONG_ENGINE:
                        raise JobFailed("engine_refused", f"The engine refuses synthesis: {said}", retry=False)
                    if response.status < 500:
                        raise SampleRefused(said)
            except aiohttp.ClientError as error:
                said = str(error)
            if attempt < ATTEMPTS:
                await asyncio.sleep(min(MAX_RETRY_S, RETRY_S * attempt))  # nothing announces that an engine is back
        raise JobFailed("engine_unavailable", f"No engine wrote the synthetic tasks: {said}", retry=True)


async def synthesize(
    segments: Sequence[Segment],
    recipe: Recipe,
    generator: Generator,
    *,
    title: str | None,
    on_segment: Callable[[int], None],
) -> AsyncIterator[SyntheticTask]:
    """Tasks for every segment, those of one segment together, in the order segments are finished.

    `on_segment` hears each finished segment's number, also of one that got no task. As many segments are under way
    as samples may be in flight, in reading order: the first tasks come soon, and a long document costs no memory.
    """
    waiting = iter(segments)
    first = itertools.islice(waiting, generator.concurrency)
    running = {asyncio.ensure_future(_about(segment, recipe, generator, title)) for segment in first}
    try:
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for segment in itertools.islice(waiting, len(done)):
                running.add(asyncio.ensure_future(_about(segment, recipe, generator, title)))
            for number, tasks in [finished.result() for finished in done]:
                on_segment(number)
                for task in tasks:
                    yield task
    finally:
        for unfinished in running:
            unfinished.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _about(
    segment: Segment, recipe: Recipe, generator: Generator, title: str | None
) -> tuple[int, list[SyntheticTask]]:
    """Sample until the recipe's number of different good tasks is reached, or its number of samples spent."""
    asked: set[str] = set()
    kept: list[tuple[float, SyntheticTask]] = []
    budget = round(recipe.tasks_per_segment * recipe.samples_per_task)
    for first in range(0, budget, len(STARTS)):
        samples = range(first, min(budget, first + len(STARTS)))
        sampled = await asyncio.gather(*(_question(segment, sample, recipe.seed, generator) for sample in samples))
        new = {_words_only(q): q for q in sampled if q and is_grounded(q, segment, title)}
        answered = await asyncio.gather(*(_answered(segment, new[q], generator) for q in new if q not in asked))
        asked |= new.keys()
        kept += [scored for scored in answered if is_supported(*scored, segment)]
        if len(kept) >= recipe.tasks_per_segment:
            break
    return segment.number, _varied(kept)[: recipe.tasks_per_segment]


async def _question(segment: Segment, sample: int, seed: int, generator: Generator) -> str | None:
    """Seeded, so that the same document gives much the same tasks (batching still moves the last bits)."""
    start = STARTS[sample % len(STARTS)]
    begun = f" {start}" if start else ""
    own_seed = (seed * SEED_STRIDE + segment.number * len(STARTS) ** 3 + sample) % 2**31
    rest = await generator.question(f"{_prompt(segment)}{begun}", own_seed)
    return f"{start} {rest}".strip() if rest else None


async def _answered(segment: Segment, question: str, generator: Generator) -> tuple[float, SyntheticTask]:
    answer, score = await generator.answer(f"{_prompt(segment)} {question}\nAnswer:")
    return score, SyntheticTask(segment.number, question, answer.rstrip(".").strip(' "“”'))


def _varied(scored: list[tuple[float, SyntheticTask]]) -> list[SyntheticTask]:
    """Surest first, but one of each answer before a second one of any, and no more than MAX_SAME_ANSWER of it."""
    best_first = [task for _, task in sorted(scored, key=lambda entry: -entry[0])]
    seen: Counter[str] = Counter()
    rounds = []
    for task in best_first:
        answer = _words_only(task.answer)
        rounds.append(seen[answer])
        seen[answer] += 1
    ordered = sorted(zip(rounds, best_first, strict=True), key=lambda entry: entry[0])
    return [task for round_, task in ordered if round_ < MAX_SAME_ANSWER]


def _prompt(segment: Segment) -> str:
    before = segment.context[-BEFORE_CHARS:].replace("\n", " ")
    return f"{FEW_SHOT}Before: {before}\nText: {segment.text.replace(chr(10), ' ')}\nQuestion:"


# ---- filters ----------------------------------------------------------------------------------------------

MAX_ANSWER_SHARE = 0.7  # of the segment: an answer that repeats it whole answers nothing
MIN_ANSWER_SCORE = -1.0  # mean log-probability below which an answer is a guess
MIN_GROUNDED = 0.6  # of a question's own words that must occur in its segment, context or title
STEM = 5  # characters two forms of a word share
_WORD = re.compile(r"[^\W_]+")
_ASKING = frozenset(
    _WORD.findall(
        "a an the of in on at to is was are were be been by for and or with from that this which who whom whose what "
        "when where how why did does do it its as many much name named called"
    )
)


def is_grounded(question: str, segment: Segment, title: str | None) -> bool:
    """Whether a question asks about something the segment, its context or the title speaks of."""
    known = _words_only(f"{segment.text} {segment.context} {title or ''}")
    stems = {word[:STEM] for word in known.split()}
    own = [word for word in _words_only(question).split() if word not in _ASKING]
    found = sum(word[:STEM] in stems or (not word.isascii() and _shares_run(word, known)) for word in own)
    return bool(own) and found >= MIN_GROUNDED * len(own)


def is_supported(score: float, task: SyntheticTask, segment: Segment) -> bool:
    """Whether the answer stands in the segment, is not given away by its question, and is more than a guess."""
    text, question, answer = map(_words_only, (segment.text, task.question, task.answer))
    if not answer or score < MIN_ANSWER_SCORE or len(answer) > MAX_ANSWER_SHARE * len(text):
        return False
    return _within(answer, text) and not _within(answer, question)


def _words_only(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _within(part: str, whole: str) -> bool:
    """On word boundaries, but within a word where the script has no spaces."""
    return f" {part} " in f" {whole} " or (not part.isascii() and part in whole)


def _shares_run(word: str, known: str) -> bool:
    """Two characters running: what a word is where a script writes none."""
    return any(word[i : i + 2] in known for i in range(len(word) - 1))
