"""The front end on a loopback port, with a real Valkey, a folder as store, and two stand-ins: an engine that
speaks vLLM's HTTP and a worker that writes what the contract says a worker writes."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from aiohttp import web
from tests.lift_server import answers
from uvicorn.loops.auto import auto_loop_factory

from lift_config.contract import (
    CHANGED_CHANNEL,
    DEAD_LETTERS_KEY,
    ENGINE_ADAPTERS_ROUTE,
    JOBS_STREAM,
    REFINE_STREAM,
    AdapterRecord,
    Failure,
    JobRecord,
    LearningRecord,
    Progress,
    Status,
    adapter_id,
    adapter_path,
    adapter_redis_key,
    job_learning_redis_key,
    job_redis_key,
)
from lift_config.phases import Phase
from lift_config.settings import Settings
from lift_server.app import create_app
from lift_server.evidence import OWN_ANSWER_TOKENS
from lift_server.heads import BoundedProtocol


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that uvicorn serves with. uvloop comes with vLLM, and does not take all that asyncio takes."""
    return {"uvicorn": auto_loop_factory()}


BASE = "smollm2-135m-instruct"
FRAME_TOKENS = 3
LIKELY, UNLIKELY = -1.0, -5.0  # log-probabilities
WORD = re.compile(r"\s*\S+|\s+")


class FakeEngine:
    """vLLM and our plug-in as the front end sees them. `gate` holds a stream after its first token.

    Its tokens are words, each with the blanks before it; a message's frame takes FRAME_TOKENS. A word that stands in
    the prompt is LIKELY as part of an answer; `own_answer` is what it reads in a segment by itself.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.traceparents: list[str | None] = []  # that came with them
        self.request_ids: list[str | None] = []  # likewise
        self.window = 2048
        self.slots = 4
        self.serves = BASE
        self.key = ""  # that /v1/models wants
        self.listed = 0
        self.takes_s = 0.0  # for loading, counting and a first token: time that a phase must account for
        self.refuses_loads = False
        self.vocabulary: list[str] = []
        self.tokenized: list[str] = []
        self.tokenize_error: dict[str, Any] | None = None
        self.loads: list[str] = []
        self.removed: list[str] = []
        self.in_use: set[str] = set()  # by another server
        self.known: set[str] = set()
        self.error: tuple[int, dict[str, Any]] | None = None
        self.stream_error: dict[str, Any] | None = None
        self.dies_when_asked = False
        self.dies_in_the_stream = False
        self.gate: asyncio.Event | None = None
        self.streaming = asyncio.Event()
        self.loaded = asyncio.Event()
        self.aborted = asyncio.Event()
        self.words = ["The", " answer", " is", " 42."]
        self.answers_from = ""  # another model than is asked for
        self.before: list[str | None] = []  # choices before the one that says these words
        self.own_answer = ""
        self.refuses: Callable[[str, dict[str, Any]], str | None] = lambda route, body: None
        self.offers: dict[str, dict[str, Any]] = {}  # answers by route
        self.passed: list[bytes] = []
        self.scored: list[dict[str, Any]] = []
        self.scoring_error: tuple[int, dict[str, Any]] | None = None
        self.scoring_gate: asyncio.Event | None = None
        self.scoring = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        one = f"{ENGINE_ADAPTERS_ROUTE}/{{adapter_id}}"
        return [
            web.get("/health", self._health),
            web.get("/v1/models", self._models),
            web.get(ENGINE_ADAPTERS_ROUTE, self._list),
            web.post("/tokenize", self._tokenize),
            web.post(one, self._load),
            web.delete(one, self._remove),
            web.post("/v1/chat/completions", self._generate),
            web.post("/v1/completions", self._complete),
            web.post("/v1/responses", self._generate),
            web.post("/{route:.*}", self._offered),  # last: whatever else this engine may offer
        ]

    def _refusal(self, request: web.Request, body: dict[str, Any]) -> web.Response | None:
        message = self.refuses(request.path, body)
        error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
        return web.json_response({"error": error}, status=400) if message else None

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return web.json_response({"object": "list", "data": [{"id": self.serves, "object": "model"}]})

    async def _list(self, _: web.Request) -> web.Response:
        self.listed += 1
        here = [{"adapter_id": one, "state": "fetched"} for one in sorted({*self.loads} - {*self.removed})]
        return web.json_response({"adapters": here, "max_loras": self.slots})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(self.takes_s)
        assert body["model"] == BASE
        if refusal := self._refusal(request, body):
            return refusal
        if self.tokenize_error is not None:
            return web.json_response(self.tokenize_error, status=400)
        texts = [str(message.get("content")) for message in body.get("messages", ())] or [body["prompt"]]
        frames = len(body.get("messages", ())) * FRAME_TOKENS
        self.tokenized += texts
        words = [word for text in texts for word in WORD.findall(text)]
        self.vocabulary += sorted(set(words) - set(self.vocabulary))
        tokens = [self.vocabulary.index(word) for word in words]
        return web.json_response({"tokens": tokens, "count": len(tokens) + frames, "max_model_len": self.window})

    async def _load(self, request: web.Request) -> web.Response:
        wanted = request.match_info["adapter_id"]
        self.loads.append(wanted)
        await asyncio.sleep(self.takes_s)
        if wanted not in self.known or self.refuses_loads:
            return web.json_response({"error": {"message": "unknown", "type": "NotFound", "code": 404}}, status=404)
        self.loaded.set()
        state = "resident" if self.loads.count(wanted) > 1 else "fetched"
        return web.json_response({"adapter_id": wanted, "state": state, "load_s": 0.01})

    async def _remove(self, request: web.Request) -> web.Response:
        if request.match_info["adapter_id"] in self.in_use:
            return web.json_response({"error": {"message": "in use", "code": "adapter_in_use"}}, status=409)
        self.removed.append(request.match_info["adapter_id"])
        return web.json_response({})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("max_tokens") == OWN_ANSWER_TOKENS:
            return web.json_response({"choices": [{"index": 0, "message": {"content": self.own_answer}}]})
        self.asked.append(body)
        await asyncio.sleep(self.takes_s)
        if self.dies_when_asked:
            return self._dead(request)
        self.traceparents.append(request.headers.get("traceparent"))
        self.request_ids.append(request.headers.get("X-Request-Id"))
        if self.error is not None:
            return web.json_response(self.error[1], status=self.error[0])
        if refusal := self._refusal(request, body):
            return refusal
        body = body | {"model": self.answers_from or body["model"]}
        if body.get("stream"):
            return await self._stream(request, body)
        if self.gate is not None:
            self.streaming.set()
            await self._held(self.gate.wait())
        return web.json_response(answers.whole(request.path, body, [*self.before, "".join(self.words)]))

    async def _offered(self, request: web.Request) -> web.Response:
        self.passed.append(await request.read())
        if request.path not in self.offers:
            return web.json_response({"error": {"message": "Not Found", "type": "NotFound", "code": 404}}, status=404)
        answer = self.offers[request.path]
        return web.json_response(answer, status=400 if "error" in answer else 200)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        """An answer, or log-probabilities of the prompts' tokens."""
        body = await request.json()
        if "prompt_logprobs" not in body:
            return await self._generate(request)
        assert (body["model"], body["prompt_logprobs"]) == (BASE, 0)
        self.scored.append(body)
        self.scoring.set()
        if self.scoring_gate is not None:
            await self._held(self.scoring_gate.wait())
        if self.scoring_error is not None:
            return web.json_response(self.scoring_error[1], status=self.scoring_error[0])
        choices = [{"index": at, "prompt_logprobs": self._logprobs(one)} for at, one in enumerate(body["prompt"])]
        return web.json_response({"choices": choices[::-1]})

    def _logprobs(self, prompt: list[int]) -> list[dict[str, Any] | None]:
        said = [self.vocabulary[token].strip(" .?") for token in prompt]
        values = [LIKELY if word in said[:at] else UNLIKELY for at, word in enumerate(said)]
        return [None, *({str(token): {"logprob": one}} for token, one in zip(prompt[1:], values[1:], strict=True))]

    def _dead(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _held(self, waiting: Awaitable[Any]) -> None:
        try:
            await waiting
        except asyncio.CancelledError:
            self.aborted.set()
            raise

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in answers.first(request.path, body):
            await response.write(event)
        for word in self.words:
            await response.write(answers.word(request.path, body, word))
            if self.dies_in_the_stream:
                return self._dead(request)
            if self.gate is not None:
                self.streaming.set()
                await self._held(self.gate.wait())
        if self.stream_error is not None:
            await response.write(answers.data(self.stream_error) + b"data: [DONE]\n\n")
            return response
        for event in answers.last(request.path, body, "".join(self.words)):
            await response.write(event)
        return response


class FakeWorker:
    """Writes a job's fields as lift_workers does, without training anything."""

    def __init__(self, redis: Any, store: Path, engine: FakeEngine) -> None:
        self.redis, self.store, self.engine = redis, store, engine

    async def job(self, job_key: str) -> JobRecord:
        fields = await self.redis.hgetall(job_redis_key(job_key))
        return JobRecord.from_redis({name.decode(): value.decode() for name, value in fields.items()})

    async def newest_job(self, stream: str = JOBS_STREAM) -> JobRecord:
        _, fields = (await self.redis.xrevrange(stream, count=1))[0]
        return await self.job(fields[b"job"].decode())

    async def write(self, job: JobRecord) -> None:
        await self.redis.hset(job_redis_key(job.key), mapping=job.to_redis())
        await self.redis.publish(CHANGED_CHANNEL, job.key)

    async def claim(self, job: JobRecord) -> JobRecord:
        if job.adapters:
            job.timeline.start(Phase.REFINE)
        else:
            job.timeline.end(Phase.QUEUE)
            job.timeline.start(Phase.TRAIN)
        status = Status.READY if job.adapters else Status.TRAINING
        job = job.changed(status=status, fence=job.fence + 1, progress=Progress("train", 0.5, 7.0, 3, 12, 40))
        await self.write(job)
        return job

    async def tell(
        self,
        job: JobRecord,
        *tasks: tuple[str, str],
        losses: tuple[float, ...] = (),
        spans: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """What its owner may see of the training."""
        told = LearningRecord(tasks, tuple(enumerate(losses, 1)), spans)
        await self.redis.set(job_learning_redis_key(job.key), told.to_json())
        await self.redis.publish(CHANGED_CHANNEL, job.key)

    async def train(self, recipe: str | None = None, stream: str = JOBS_STREAM) -> AdapterRecord:
        """The newest job, claimed and published."""
        return await self.publish(await self.claim(await self.newest_job(stream)), recipe)

    async def publish(self, job: JobRecord, recipe: str | None = None, tokens: int = 11) -> AdapterRecord:
        """A version of `recipe`, or of the job's own, which is its last: the weights, the record in the store, then
        the one in Redis."""
        recipe = recipe or job.recipe
        weights = f"weights of {job.key} by {recipe}".encode()
        new_id = adapter_id(job.key, hashlib.sha256(weights).hexdigest())
        for name in ("adapter_model.safetensors", "adapter_config.json", "manifest.json"):
            path = self.store / adapter_path(new_id, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(weights)
        await self.redis.hset(adapter_redis_key(new_id), "manifest", b"{}")
        self.engine.known.add(new_id)
        version = len(job.adapters) + 1
        adapter = AdapterRecord(new_id, version, job.base_model, recipe, 16, len(weights), time.time(), 12, 40)
        is_last, spans = recipe == job.recipe, job.timeline.spans
        job = job.changed(status=Status.READY, unfinished=not is_last, tokens=tokens, adapters=(*job.adapters, adapter))
        for phase in spans.keys() & {Phase.TRAIN, Phase.REFINE}:
            job.timeline.end(phase)
        if not is_last:
            job.timeline.start(Phase.REFINE)
            await self._move(job.key)
        (self.store / f"jobs/{job.key}.json").write_text(job.to_json())
        await self.write(job)
        return adapter

    async def _move(self, job_key: str) -> None:
        """Its entry to the refinements."""
        for entry, fields in await self.redis.xrange(JOBS_STREAM):
            if fields[b"job"].decode() == job_key:
                await self.redis.xdel(JOBS_STREAM, entry)
        await self.redis.xadd(REFINE_STREAM, {"job": job_key})

    async def fail(self, job: JobRecord, message: str, attempts: int = 0) -> None:
        status = Status.READY if job.adapters else Status.FAILED
        error = Failure("no_tasks", message, attempts, time.time())
        job = job.changed(status=status, unfinished=False, error=error)
        await self.write(job)
        if attempts:
            await self.redis.zadd(DEAD_LETTERS_KEY, {job.key: error.failed_s})
        (self.store / f"jobs/{job.key}.json").write_text(job.to_json())


class FrontEnd:
    """A running server."""

    def __init__(self, url: str, settings: Settings, app: Any) -> None:
        self.url, self.settings, self.app = url, settings, app
        self.client = httpx2.AsyncClient(base_url=url, timeout=20)

    async def upload(self, text: str, **fields: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/documents", json={"text": text, **fields})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def waits(self) -> None:
        """Until a question waits for a document."""
        async with asyncio.timeout(5):
            while not self.app.state.lift.watcher._waiting:
                await asyncio.sleep(0)

    async def ask(self, content: str = "What is the answer?", **fields: Any) -> httpx2.Response:
        messages = [{"role": "user", "content": content}]
        return await self.client.post("/v1/chat/completions", json={"model": BASE, "messages": messages, **fields})


@asynccontextmanager
async def served(fake: FakeEngine, port: int = 0) -> AsyncIterator[FakeEngine]:
    """As long as the block lasts."""
    app = web.Application()
    app.add_routes(fake.routes())
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with served(FakeEngine()) as fake:
        yield fake


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def worker(redis: Any, store: Path, engine: FakeEngine) -> FakeWorker:
    return FakeWorker(redis, store, engine)


@pytest.fixture
async def start(
    valkey_url: str, redis: Any, tmp_path: Path, engine: FakeEngine
) -> AsyncIterator[Callable[..., Awaitable[FrontEnd]]]:
    """Start a front end with settings of one's own."""
    async with AsyncExitStack() as running:

        async def run(**overrides: Any) -> FrontEnd:
            given = {"redis_url": valkey_url, "home": tmp_path, "engine": {"urls": [engine.url]}, **overrides}
            settings = Settings(**given)
            app = create_app(settings)
            config = uvicorn.Config(
                app,
                port=0,
                log_config=None,
                http=BoundedProtocol,
                ws="none",
                lifespan="on",
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            config.load()
            server.lifespan = config.lifespan_class(config)
            await server.startup()
            port = server.servers[0].sockets[0].getsockname()[1]
            front_end = FrontEnd(f"http://127.0.0.1:{port}", settings, app)

            async def stop() -> None:
                await front_end.client.aclose()
                await server.shutdown()

            running.push_async_callback(stop)
            return front_end

        yield run


@pytest.fixture
async def front_end(start: Callable[..., Awaitable[FrontEnd]]) -> FrontEnd:
    return await start()
