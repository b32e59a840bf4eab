"""The generator: the LLM that writes a document's tasks, over vLLM's completions API.

In: a prompt. Out: a sampled question, a greedy answer with its score, and what they cost. A request that the engine
will not take costs only itself; an engine that is away, hangs or refuses all is passed over or waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import aiohttp

from lift_config.contract import SynthesisUsage
from lift_workers.filters import QUESTION_MARKS
from lift_workers.jobs import JobFailed
from lift_workers.race import ended
from lift_workers.registry import LookUp

MAX_QUESTION_TOKENS = 40
MAX_ANSWER_TOKENS = 32
TEMPERATURE = 0.7  # of questions
CONNECT_S = 10.0
ANSWER_S = 120.0  # a CPU engine may take a minute under load; half a `worker.stall_s` would be too long
HEALTH_S = 2.0  # of /health, which computes nothing
ATTEMPTS = 20  # of one request, about three minutes: an engine may be restarting
RETRY_S = 2.0  # times the attempt, up to
MAX_RETRY_S = 10.0
POLL_S = 1.0  # between two looks whether an engine is up
IDLE_S = 3.0  # vLLM closes idle connections after 5 s; a request sent into that moment would be lost
WRONG_ENGINE = (401, 403, 404)  # not this request's fault: key, route or model are wrong, perhaps while one rolls out

logger = logging.getLogger(__name__)


class SampleRefused(Exception):
    """The engine will not take this one request, for example since its prompt is too long."""


class EngineFailed(Exception):
    """It, or what is before it, could not answer; another one may."""


class EngineRefuses(EngineFailed):
    """It answers all requests like this one with WRONG_ENGINE."""


@dataclass(frozen=True)
class Completion:
    """What the generator wrote (empty: nothing of use), its mean log-probability per token, and what that cost."""

    text: str = ""
    score: float = 0.0
    usage: SynthesisUsage = field(default_factory=SynthesisUsage)


class Generator:
    """The LLM that writes the tasks: the base model behind the engines' completions API.

    An async context manager. `concurrency` bounds the samples in flight over all requests. `look_up` tells where the
    engines are now, before each round through them.
    """

    def __init__(self, look_up: LookUp, api_key: str, model_name: str, concurrency: int) -> None:
        self._look_up = look_up
        self._api_key = api_key
        self._model_name = model_name
        self.concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._sent = 0
        self._hang_until_s: dict[str, float] = {}  # engines that did not answer in time; monotonic

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
        while not await self._is_any_up(await self._look_up()):
            await asyncio.sleep(POLL_S)  # nothing announces that an engine is there

    async def _is_any_up(self, urls: Sequence[str]) -> bool:
        """All are asked at once, and the first good answer does: one that never answers is waited for by nobody."""
        asked = [asyncio.ensure_future(self._is_up(url)) for url in urls]
        try:
            for answer in asyncio.as_completed(asked):
                if await answer:
                    return True
            return False
        finally:
            await ended(*asked)

    async def _is_up(self, url: str) -> bool:
        try:
            async with asyncio.timeout(HEALTH_S), self._session.get(f"{url}/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
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
        """Engines in turn; where none of them answers, all again, since one may be restarting or getting its key.
        JobFailed where none ever does."""
        failed: Exception = EngineFailed("none is known")
        for attempt in range(1, ATTEMPTS + 1):
            urls = await self._look_up()
            for _ in urls:
                try:
                    return await self._asked(self._next(urls), path, body)
                except (aiohttp.ClientError, EngineFailed) as error:
                    failed = error
            if attempt < ATTEMPTS:
                await asyncio.sleep(min(MAX_RETRY_S, RETRY_S * attempt))  # nothing announces that an engine is back
        code = "engine_refused" if isinstance(failed, EngineRefuses) else "engine_unavailable"
        raise JobFailed(code, f"No engine wrote the synthetic tasks: {failed}", retry=True) from failed

    def _next(self, urls: Sequence[str]) -> str:
        """Passes over those that hang, where others are known, but for a single request now and then that looks
        whether one still does."""
        self._sent += 1
        now_s = time.monotonic()
        able = [url for url in urls if self._hang_until_s.get(url, 0.0) <= now_s] or urls
        url = able[self._sent % len(able)]
        if url in self._hang_until_s:
            self._hang_until_s[url] = now_s + ANSWER_S
        return url

    async def _asked(self, url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(ANSWER_S):
                reply = await self._answer_of(url + path, body)
        except TimeoutError as error:
            self._hang_until_s[url] = time.monotonic() + ANSWER_S
            logger.warning("engine %s does not answer in time", url)
            raise EngineFailed("it does not answer in time") from error
        self._hang_until_s.pop(url, None)
        return reply

    async def _answer_of(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(url, json={"model": self._model_name, **body}) as response:
            if response.status == 200:
                reply: dict[str, Any] = await response.json()
                return reply
            said = (await response.text())[:300]
        if response.status in WRONG_ENGINE:
            raise EngineRefuses(f"{response.status} {said}")
        raise SampleRefused(said) if response.status < 500 else EngineFailed(said)


def _usage(told: dict[str, Any]) -> SynthesisUsage:
    """vLLM leaves the details out where nothing was cached."""
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return SynthesisUsage(1, told["prompt_tokens"], told["prompt_tokens"] - cached, told["completion_tokens"])
