"""Synthesize: segments in, synthetic tasks out, in the order the engine finishes them; over a recipe's stages.

The base model itself writes the tasks, through the engine's own completions API: few-shot, since small models
follow an example better than an instruction, and the shared part first, so that vLLM's prefix cache serves it.
Questions are sampled, for variety; each is then answered greedily from its segment, for truth. Filters keep a
task only where its question speaks of the segment and its answer stands there; a bad reply costs only itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import aiohttp

from lift_config.contract import SynthesisUsage, cache_salt
from lift_config.recipe import Recipe
from lift_config.segment import Segment
from lift_workers.filters import is_grounded, is_supported, words_only
from lift_workers.jobs import JobFailed

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


@dataclass(frozen=True)
class Completion:
    """What the generator wrote (empty: nothing of use), its mean log-probability per token, and what that cost."""

    text: str = ""
    score: float = 0.0
    usage: SynthesisUsage = field(default_factory=SynthesisUsage)


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

    async def question(self, prompt: str, seed: int, salt: str | None) -> Completion:
        """One sampled continuation of `prompt` up to a question mark. `salt`: contract.cache_salt."""
        body = {
            "prompt": prompt,
            "seed": seed,
            "max_tokens": MAX_QUESTION_TOKENS,
            "temperature": TEMPERATURE,
            "stop": [*QUESTION_MARKS, "\n"],
            "include_stop_str_in_output": True,
        }
        written = await self._complete(body, salt)
        return written if written.text.endswith(QUESTION_MARKS) else replace(written, text="")

    async def answer(self, prompt: str, salt: str | None) -> Completion:
        """The likeliest rest of the line."""
        body = {"prompt": prompt, "max_tokens": MAX_ANSWER_TOKENS, "temperature": 0, "stop": ["\n"], "logprobs": 0}
        return await self._complete(body, salt)

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

    async def _complete(self, body: dict[str, Any], salt: str | None) -> Completion:
        """An empty one where this request was refused: a bad sample costs only itself."""
        if salt:
            body["cache_salt"] = salt
        async with self._slots:
            try:
                reply = await self._post("/v1/completions", body)
            except SampleRefused as refused:
                logger.warning("a synthesis request was refused: %s", refused)
                return Completion()
        choice = reply["choices"][0]
        logprobs = (choice.get("logprobs") or {}).get("token_logprobs", [])
        return Completion(choice["text"].strip(), sum(logprobs) / max(1, len(logprobs)), _usage(reply["usage"]))

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


def _usage(told: dict[str, Any]) -> SynthesisUsage:
    """vLLM leaves the details out where nothing was cached."""
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return SynthesisUsage(1, told["prompt_tokens"], told["prompt_tokens"] - cached, told["completion_tokens"])


@dataclass
class _Written:
    """What there is about one segment: questions asked, samples spent, good tasks with their scores, those given."""

    asked: set[str] = field(default_factory=set)
    samples: int = 0
    good: list[tuple[float, SyntheticTask]] = field(default_factory=list)
    given: list[SyntheticTask] = field(default_factory=list)


class Synthesis:
    """The writing of one document's tasks, over several stages: a later one asks only for what earlier ones have not
    got. `usage` grows with every reply; what other owners' texts cost is not to be seen in it."""

    def __init__(
        self, segments: Sequence[Segment], generator: Generator, *, owner: str, title: str | None, seed: int
    ) -> None:
        self._segments, self._generator, self._title, self._seed = segments, generator, title, seed
        self._salt = cache_salt(owner)
        self._written = {segment.number: _Written() for segment in segments}
        self.usage = SynthesisUsage()

    async def tasks(self, recipe: Recipe, on_segment: Callable[[int], None]) -> AsyncGenerator[SyntheticTask]:
        """New tasks, until each segment has been given the recipe's number of them, counting earlier stages; those of
        one segment together, in the order segments are finished.

        `on_segment` hears each finished segment's number, also of one that got no task. As many segments are under
        way as samples may be in flight, in reading order: the first tasks come soon, and a long document costs no
        memory. Left early, it keeps what was written about finished segments; the others are begun again next time.
        """
        waiting = iter(self._segments)
        first = itertools.islice(waiting, self._generator.concurrency)
        running = {asyncio.ensure_future(self._write(segment, recipe)) for segment in first}
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for segment in itertools.islice(waiting, len(done)):
                    running.add(asyncio.ensure_future(self._write(segment, recipe)))
                for number in [finished.result() for finished in done]:
                    on_segment(number)
                    written = self._written[number]
                    for task in _varied(written)[: max(0, recipe.tasks_per_segment - len(written.given))]:
                        written.given.append(task)
                        yield task
        finally:
            for unfinished in running:
                unfinished.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _write(self, segment: Segment, recipe: Recipe) -> int:
        """Sample until the recipe's number of different good tasks is there, or its number of samples spent, in all
        stages together. Remembered only at the end, so that a cancelled one leaves nothing half done."""
        before = self._written[segment.number]
        written = _Written(set(before.asked), before.samples, list(before.good), before.given)
        budget = round(recipe.tasks_per_segment * recipe.samples_per_task)
        while len(written.good) < recipe.tasks_per_segment and written.samples < budget:
            samples = range(written.samples, min(budget, written.samples + len(STARTS)))
            written.samples = samples.stop
            sampled = await asyncio.gather(*(self._question(segment, sample) for sample in samples))
            new = {words_only(q): q for q in sampled if is_grounded(q, segment, self._title)}
            unasked = [new[q] for q in new if q not in written.asked]
            answered = await asyncio.gather(*(self._answered(segment, question) for question in unasked))
            written.asked |= new.keys()
            written.good += [scored for scored in answered if scored]
        self._written[segment.number] = written
        return segment.number

    async def _question(self, segment: Segment, sample: int) -> str:
        """Seeded, so that the same document gives much the same tasks (batching still moves the last bits)."""
        start = STARTS[sample % len(STARTS)]
        begun = f" {start}" if start else ""
        own_seed = (self._seed * SEED_STRIDE + segment.number * len(STARTS) ** 3 + sample) % 2**31
        rest = self._counted(await self._generator.question(f"{_prompt(segment)}{begun}", own_seed, self._salt)).text
        return f"{start} {rest}".strip() if rest else ""

    async def _answered(self, segment: Segment, question: str) -> tuple[float, SyntheticTask] | None:
        """None where the answer is no good."""
        told = self._counted(await self._generator.answer(f"{_prompt(segment)} {question}\nAnswer:", self._salt))
        answer = told.text.rstrip(".").strip(" \"“”'")
        good = is_supported(answer, told.score, question, segment)
        return (told.score, SyntheticTask(segment.number, question, answer)) if good else None

    def _counted(self, written: Completion) -> Completion:
        pairs = zip(astuple(self.usage), astuple(written.usage), strict=True)
        self.usage = SynthesisUsage(*(before + now for before, now in pairs))
        return written


def _varied(written: _Written) -> list[SyntheticTask]:
    """Good tasks not given yet. Surest first, but one of each answer before a second one of any, and no more than
    MAX_SAME_ANSWER of it, counting those given."""
    best_first = [task for _, task in sorted(written.good, key=lambda entry: -entry[0]) if task not in written.given]
    seen = Counter(words_only(task.answer) for task in written.given)
    rounds = []
    for task in best_first:
        answer = words_only(task.answer)
        rounds.append(seen[answer])
        seen[answer] += 1
    ordered = sorted(zip(rounds, best_first, strict=True), key=lambda entry: entry[0])
    return [task for round_, task in ordered if round_ < MAX_SAME_ANSWER]


def _prompt(segment: Segment) -> str:
    before = segment.context[-BEFORE_CHARS:].replace("\n", " ")
    return f"{FEW_SHOT}Before: {before}\nText: {segment.text.replace(chr(10), ' ')}\nQuestion:"
