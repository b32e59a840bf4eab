"""The engines, over HTTP: load and remove an adapter, count a prompt, put a request, read its answer, score it.

With engine_reply.py all that knows vLLM's HTTP (our plug-in's routes: contract.py). In: OpenAI request bodies
that name an adapter or the base model. Out: OpenAI answers, token counts, likelihoods, and ApiErrors in our envelope.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import aiohttp

from lift_config.contract import ENGINE_ADAPTERS_ROUTE, ENGINE_ALIVE_ROUTE, AdapterState
from lift_server.breaker import PROBE_S, Breaker
from lift_server.engine_reply import as_object, engine_error, events, load_error
from lift_server.errors import EngineFailure, EngineUnavailable, NotOffered
from lift_server.placement import Load, lightest, order, ranked

CHAT_ROUTE = "/v1/chat/completions"
COMPLETIONS_ROUTE = "/v1/completions"
RESPONSES_ROUTE = "/v1/responses"
CONNECT_S = 5.0
CONTROL_S = 120.0  # loading may fetch an adapter from far away
HEALTH_S = 2.0
SILENT_S = 600.0  # a stream without a word for so long is given up, though the core answers. It may queue for minutes
IDLE_S = 3.0  # vLLM closes idle connections after 5 s; a request sent into that moment would be lost
# What of a chat request shapes its prompt, by the names that /tokenize knows (vLLM's TokenizeChatRequest).
PROMPT_FIELDS = (
    "model", "messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt",
    "continue_final_message", "add_special_tokens",
)  # fmt: skip
NO_HEADERS: Mapping[str, str] = {}
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

Json = dict[str, Any]
T = TypeVar("T")

log = logging.getLogger(__name__)


class Engine:
    """All engines. An adapter's questions go to the one that `home` names, or elsewhere by placement.py."""

    def __init__(self, urls: Sequence[str], api_key: str) -> None:
        self._urls: Sequence[str] = urls
        self._breakers = {url: self._breaker(url) for url in urls}  # also of those that are known no more, while asked
        self._in_flight: Counter[str] = Counter()  # this server's requests, whatever they ask
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        )

    async def close(self) -> None:
        for breaker in self._breakers.values():
            await breaker.close()
        await self._session.close()

    def know(self, urls: Sequence[str]) -> None:
        """These from now on; what is being asked of others goes on there, and is given up where they hang."""
        for url in set(self._urls) - set(urls):
            self._breakers[url].retire()
        for url in set(urls) - set(self._urls):
            self._breakers.setdefault(url, self._breaker(url)).restore()
        self._urls = urls
        for url in [one for one in self._breakers if one not in urls and not self._in_flight[one]]:
            del self._breakers[url]

    def home(self, name: str) -> str:
        """The engine that `name` belongs to, whether it can be asked or not; empty where there is none."""
        return next(iter(ranked(name, self._urls)), "")

    async def somewhere(self, name: str | None, work: Callable[[str], Awaitable[T]]) -> T:
        """`work` at the engine for `name`, at the least busy one where that is None; at the next one where it fails,
        as long as nothing of the answer is out. Once at most where an engine may have begun with it: a question that
        ends engines must not end them all."""
        if not self._urls:
            raise EngineUnavailable
        place = lightest if name is None else order
        *urls, last = place(name or secrets.token_hex(4), self._loads())
        began = False
        for url in urls:
            try:
                return await work(url)
            except EngineFailure as failure:
                if began and failure.may_have_begun:
                    raise
                began = began or failure.may_have_begun
                log.warning("%s failed, the next engine is asked: %s", url, failure.message)
        return await work(last)

    async def load(self, url: str, adapter_id: str) -> AdapterState:
        """Make the adapter resident there; where it was found. Fast where there is nothing to do."""
        timeout = aiohttp.ClientTimeout(total=CONTROL_S, sock_connect=CONNECT_S)
        async with self._reply("POST", f"{url}{ENGINE_ADAPTERS_ROUTE}/{adapter_id}", timeout=timeout) as reply:
            if reply.status != 200:
                raise load_error(reply.status, await as_object(reply))
            return AdapterState((await as_object(reply))["state"])

    async def remove(self, adapter_id: str) -> None:
        """Take the adapter out of every engine: routing may have changed since it was loaded."""
        timeout = aiohttp.ClientTimeout(total=CONTROL_S, sock_connect=CONNECT_S)
        removals = [self._remove(f"{url}{ENGINE_ADAPTERS_ROUTE}/{adapter_id}", timeout) for url in self._urls]
        for result in await asyncio.gather(*removals, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def adapters(self) -> AsyncIterator[str]:
        """What lies in the engines' memory or folders, engine by engine; one that does not answer is passed over."""
        timeout = aiohttp.ClientTimeout(total=CONTROL_S, sock_connect=CONNECT_S)
        for url in self._urls:
            try:
                told = await self._call("GET", url + ENGINE_ADAPTERS_ROUTE, timeout=timeout)
            except EngineUnavailable:
                continue
            for adapter in told["adapters"]:
                yield adapter["adapter_id"]

    async def slots(self, url: str) -> int:
        """How many adapters that engine answers from at once."""
        return int((await self._call("GET", url + ENGINE_ADAPTERS_ROUTE))["max_loras"])

    async def prompt_size(self, url: str, body: Json) -> tuple[int, int]:
        """The tokens that a chat request's prompt takes, and those of the context window."""
        reply = await self._tokenized(url, body)
        return reply["count"], reply["max_model_len"]

    async def prompt_tokens(self, url: str, body: Json) -> tuple[list[int], int]:
        """A chat request's prompt, and the length of the context window."""
        reply = await self._tokenized(url, body)
        return reply["tokens"], reply["max_model_len"]

    async def tokens(self, url: str, model: str, text: str) -> list[int]:
        plain = {"model": model, "prompt": text, "add_special_tokens": False}
        tokens: list[int] = (await self._call("POST", f"{url}/tokenize", json=plain))["tokens"]
        return tokens

    async def log_likelihoods(self, url: str, model: str, prompts: list[list[int]], count: int) -> list[list[float]]:
        """Of each prompt's last `count` tokens, given those before them. The prefix cache does not help here."""
        body = {"model": model, "prompt": prompts, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        choices = (await self._call("POST", url + COMPLETIONS_ROUTE, json=body))["choices"]
        in_order = sorted(choices, key=lambda choice: int(choice["index"]))
        return [
            [
                float(at[str(token)]["logprob"])
                for at, token in zip(choice["prompt_logprobs"][-count:], prompt[-count:], strict=True)
            ]
            for choice, prompt in zip(in_order, prompts, strict=True)
        ]

    async def ask(self, url: str, route: str, body: Json, headers: Mapping[str, str] = NO_HEADERS) -> Json:
        """The whole answer."""
        return await self._call("POST", url + route, json=body, headers=headers)

    @asynccontextmanager
    async def stream(
        self, url: str, route: str, body: Json, headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """The answer's events. Leaving the block closes the connection, upon which vLLM aborts the request."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
        async with self._reply("POST", url + route, json=body, headers=headers, timeout=timeout) as reply:
            if reply.status != 200:
                raise engine_error(reply.status, await as_object(reply))
            with self._breakers[url].listening(reply) as heard:
                yield events(reply, heard)

    @asynccontextmanager
    async def forward(self, url: str, route: str, **sent: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request that the server knows nothing of. NotOffered where this engine has no such route for its model."""
        async with self._reply("POST", url + route, **sent) as reply:
            if reply.status in (404, 405, 501):
                raise NotOffered(route)
            if reply.status != 200:
                raise engine_error(reply.status, await as_object(reply))
            yield reply

    async def healthy(self) -> list[bool]:
        """For each engine, whether it answers, and is asked."""
        statuses = await asyncio.gather(*(self._status(f"{url}/health", HEALTH_S) for url in self._urls))
        return [told == 200 and not self._breakers[url].is_open for url, told in zip(self._urls, statuses, strict=True)]

    def hanging(self) -> int:
        """How many engines are asked nothing, for they take requests and do not answer."""
        return sum(self._breakers[url].is_open for url in self._urls)

    def away(self) -> int:
        """How many are asked only where no other is left: these, and those that take no connections."""
        return sum(self._breakers[url].is_away for url in self._urls)

    async def served(self, url: str) -> list[str] | None:
        """The names of the models that this engine answers to; None where it refuses our key."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_S)
        async with self._reply("GET", f"{url}/v1/models", timeout=timeout) as reply:
            if reply.status == 401:
                return None
            answer = await as_object(reply)
            if reply.status != 200:
                raise engine_error(reply.status, answer)
            return [model["id"] for model in answer["data"]]

    def _loads(self) -> dict[str, Load]:
        return {url: Load(self._in_flight[url], self._breakers[url].is_away) for url in self._urls}

    def _breaker(self, url: str) -> Breaker:
        return Breaker(url, partial(self._is_alive, url))

    async def _tokenized(self, url: str, body: Json) -> Json:
        prompt = {name: body[name] for name in PROMPT_FIELDS if name in body}
        return await self._call("POST", f"{url}/tokenize", json=prompt)

    async def _call(self, method: str, url: str, **options: Any) -> Json:
        async with self._reply(method, url, **options) as reply:
            answer = await as_object(reply)
            if reply.status != 200:
                raise engine_error(reply.status, answer)
            return answer

    async def _remove(self, url: str, timeout: aiohttp.ClientTimeout) -> None:
        async with self._reply("DELETE", url, timeout=timeout) as reply:
            if reply.status not in (200, 404):
                raise engine_error(reply.status, await as_object(reply))

    async def _is_alive(self, url: str) -> bool:
        """Its core, which is another process than its HTTP. Older engines of ours have no such route: 404."""
        status = await self._status(url + ENGINE_ALIVE_ROUTE, PROBE_S)
        return status is not None and status < 500

    async def _status(self, url: str, within_s: float) -> int | None:
        """Asked also where the engine is asked nothing else; None where no answer comes in time."""
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=within_s)) as reply:
                return reply.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    @asynccontextmanager
    async def _reply(self, method: str, url: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """EngineUnavailable for whatever goes wrong on the way there and back, and at once where the engine hangs."""
        base, breaker = next((one for one in self._breakers.items() if url.startswith(f"{one[0]}/")), ("", None))
        if breaker is None:
            raise EngineUnavailable  # it was forgotten between two requests
        self._in_flight[base] += 1
        try:
            async with breaker.patience():
                reply = await self._session.request(method, url, **options)
            async with reply:
                yield reply
        except NOT_SENT as error:
            breaker.refused()
            raise EngineUnavailable from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineUnavailable(may_have_begun=True) from error
        finally:
            self._in_flight[base] -= 1
