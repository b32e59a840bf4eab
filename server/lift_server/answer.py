"""A question's whole way: its document → the adapter, waited for → loaded → framed → the engine's answer.

In: a Question. Out: OpenAI's answer, whole or in chunks, that echoes the model asked for and says in `lift` how
it came about.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from redis.exceptions import RedisError

from lift_config.contract import AdapterRecord, AdapterState, DocumentRecord, JobRecord
from lift_config.phases import Phase, Timeline
from lift_server import documents, versions
from lift_server.context import Fitted, Prompt, full_text
from lift_server.errors import ApiError, DocumentOutdated
from lift_server.estimate import next_s, recipe_within
from lift_server.evidence import evidence
from lift_server.heard import Heard, Piece
from lift_server.observe import Observed
from lift_server.question import Json, Question
from lift_server.state import State

log = logging.getLogger(__name__)

T = TypeVar("T")

CONFLICT = 409  # the status of whatever keeps a document from being answered by its adapter now


@dataclass(frozen=True)
class Request:
    """What the engine is to be asked. `name` decides which engine; None: none has it nearer than another."""

    name: str | None
    body: Json
    adapter_id: str | None = None  # to be loaded first


class Answer:
    """Use as a context: while it lasts, the adapter is not removed and the engine's connection stays open."""

    def __init__(self, state: State, question: Question) -> None:
        self.question = question
        self.ttft_s: float | None = None
        self.observed = Observed(state, question)
        self._state = state
        self._job: JobRecord | None = None
        self._found: tuple[DocumentRecord, JobRecord] | None = None
        self._heard = Heard(question)
        self._adapter: AdapterRecord | None = None
        self._adapter_state = AdapterState.NONE
        self._answered_from = "base"
        self._is_excerpt = False
        self._timeline = Timeline()
        self._timeline.start(Phase.ACCEPT, question.received_s)
        self._events: AsyncIterator[list[bytes]] | None = None
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()
        self.observed.ended(
            error,
            self._timeline,
            ttft_s=self.ttft_s,
            state=self._adapter_state,
            adapter=self._adapter,
            job=self._job,
        )

    async def whole(self) -> Json:
        """The answer in one piece; `ttft_s` is then the time to all of it."""
        route = self.question.dialect.ROUTE

        async def ask(url: str, body: Json) -> Json:
            answer = await self._state.engine.ask(url, route, body, self.observed.headers)
            return self._heard.check(answer, body["model"])

        answer = await self._asked(ask)
        self._timeline.end(Phase.PREFILL)
        self.token_written()
        return self.last(self._heard.whole(answer), await self.finish())

    async def open(self) -> None:
        """Everything up to the engine's headers; ApiErrors are raised here as far as they can be."""
        route = self.question.dialect.ROUTE

        def stream(url: str, body: Json) -> Awaitable[AsyncIterator[list[bytes]]]:
            opening = self._state.engine.stream(url, route, self._heard.asks(body), self.observed.headers)
            return self._resources.enter_async_context(opening)

        self._events = await self._asked(stream)

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """What the client is to get, after `open`, as much at a time as has come from the engine."""
        assert self._events is not None
        async for events in self._events:
            began, pieces = self._heard.begun, self._heard.pieces(events)
            if self._heard.begun and not began:
                self._timeline.end(Phase.PREFILL)
            yield pieces
            if self._heard.failure:
                raise self._heard.failure

    def last(self, answer: Json, lift: Json) -> Json:
        """The answer, or its last chunk, with `lift`."""
        return self.question.dialect.with_lift(answer, self._heard.trailer | {"lift": lift})

    def token_written(self) -> None:
        """The client was sent a token; the first one sets `ttft_s`."""
        if self.ttft_s is None:
            self.ttft_s = time.time() - self.question.received_s

    async def finish(self) -> Json:
        """Count the answer; its `lift` object, with the evidence where it was asked for."""
        lift = self._finished() | await self._adapter_eta()
        if not self.question.lift.evidence:
            return lift
        messages = self.question.dialect.as_chat(self.question.body)["messages"]
        return lift | await evidence(self._state, self._found, messages, self._heard.said)

    def server_timing(self) -> dict[str, str]:
        """The header of that name, with the phases that have ended."""
        known = {phase: self._timeline.seconds(phase) for phase in self._timeline.spans}
        parts = [f"{phase.value};dur={1000 * seconds:.1f}" for phase, seconds in known.items() if seconds is not None]
        return {"Server-Timing": ", ".join(parts)} if parts else {}

    @property
    def tokens(self) -> int:
        """What the key is charged: as the engine counted; of a stream left before that, at least its chunks."""
        usage = self._heard.usage
        return usage.prompt_tokens + usage.completion_tokens if usage else self._heard.events

    @property
    def events(self) -> int:
        """How many came from the engine so far."""
        return self._heard.events

    @property
    def is_training(self) -> bool:
        """Whether this question is waiting for its adapter."""
        return Phase.WAIT in self._timeline.spans and self._timeline.seconds(Phase.WAIT) is None

    # ---- the way there ----

    async def _asked(self, ask: Callable[[str, Json], Awaitable[T]]) -> T:
        """`ask`, at the engine that is to answer; before its headers came, another may take over."""
        request = await self._request()

        async def at(url: str) -> T:
            if request.adapter_id is not None:
                await self._load(url, request.adapter_id)
            self._timeline.start(Phase.PREFILL)
            answer = await ask(url, request.body)
            if request.adapter_id is not None:
                self._state.metrics.placed(is_home=url == self._state.engine.home(request.adapter_id))
            return answer

        return await self._state.engine.somewhere(request.name, at)

    async def _request(self) -> Request:
        state, document_id = self._state, self.question.document_id
        if document_id is None:
            self._timeline.end(Phase.ACCEPT)
            return Request(None, self.question.body | {"model": state.settings.model_name})
        document, job = self._found = await documents.find(state, self.question.owner, document_id)
        self._timeline.end(Phase.ACCEPT)
        self._job = job
        mode = self.question.lift.mode
        if mode == "context":
            with self._timeline.during(Phase.FIT):
                return self._from_base(document, await full_text(state, job))
        if mode == "auto" and self.question.dialect.FRAMED and (request := await self._at_once(document, job)):
            return request
        return await self._in_time(document, job)

    async def _in_time(self, document: DocumentRecord, job: JobRecord) -> Request:
        """From the adapter, waited for as long as the question says."""
        patience_s = self.question.lift.max_wait_s
        if patience_s is None:
            patience_s = self._state.settings.server.max_wait_s
        try:
            return await self._from_adapter(document, job, patience_s)
        except versions.NotYet as missing:
            raise await versions.not_ready(self._state, missing) from missing

    async def _at_once(self, document: DocumentRecord, job: JobRecord) -> Request | None:
        """Without waiting for a training: from a version that is there, else from the text, as much of it as fits."""
        try:
            return await self._from_adapter(document, job, patience_s=0)
        except versions.NotYet:
            pass
        except ApiError as error:
            if error.status != CONFLICT:
                raise
        self._timeline.spans.pop(Phase.WAIT, None)  # it only looked
        with self._timeline.during(Phase.FIT):
            fitted = await self._fitted(document, job)
        return None if fitted is None else self._from_base(document, fitted.text)

    def _from_base(self, document: DocumentRecord, text: str) -> Request:
        self._answered_from = "context"
        body = self.question.dialect.frame(self.question.body, document.title, text)
        return Request(document.job_key, body | {"model": self._state.settings.model_name})

    async def _from_adapter(self, document: DocumentRecord, job: JobRecord, patience_s: float) -> Request:
        settings = self._state.settings
        if (job.base_model, job.base_revision) != (settings.model_name, settings.base_revision):
            raise DocumentOutdated(f"{job.base_model}, {job.base_revision}")
        adapter = self._adapter = await self._version(job, patience_s)
        self._resources.enter_context(self._state.hotload.in_use(adapter.id))
        self._answered_from, fitted = "adapter", None
        if self.question.lift.mode == "hybrid":
            with self._timeline.during(Phase.FIT):
                fitted = await self._fitted(document, job)
            self._answered_from = "hybrid" if fitted else "adapter"
        dialect, text = self.question.dialect, fitted.text if fitted else None
        body = dialect.with_defaults(dialect.frame(self.question.body, document.title, text))
        return Request(adapter.id, body | {"model": adapter.id}, adapter.id)

    async def _fitted(self, document: DocumentRecord, job: JobRecord) -> Fitted | None:
        """Counted by any engine: all have the same tokenizer."""
        question = self.question

        async def fit(url: str) -> Fitted | None:
            prompt = Prompt(self._state, url, question.dialect, question.body, document.title)
            return await prompt.as_much_as_fits(job)

        fitted = await self._state.engine.somewhere(job.key, fit)
        self._is_excerpt = fitted is not None and fitted.is_excerpt
        return fitted

    async def _version(self, job: JobRecord, patience_s: float) -> AdapterRecord:
        """The one asked for, or the best, waited for where it is not there yet."""
        versions.refuse_stopped(job)
        recipe, budget_s = self.question.lift.recipe, self.question.lift.ttft_budget_s
        if budget_s is not None:
            recipe = await recipe_within(self._state, job, budget_s)
            self._timeline.end(Phase.ACCEPT)  # choosing is part of it
        adapter = versions.version(job, recipe)
        if adapter is None:
            adapter = await self._wait(job, recipe, patience_s)
        return adapter

    async def _wait(self, job: JobRecord, recipe: str | None, patience_s: float) -> AdapterRecord:
        self._timeline.start(Phase.WAIT)
        self._job, adapter = await versions.wait(self._state, job, recipe, patience_s, self.question.received_s)
        self._timeline.end(Phase.WAIT)
        self._adapter_state = AdapterState.TRAINING
        return adapter

    async def _load(self, url: str, adapter_id: str) -> None:
        self._timeline.start(Phase.LOAD)
        state = await self._state.engine.load(url, adapter_id)
        self._timeline.end(Phase.LOAD)
        if self._adapter_state is not AdapterState.TRAINING:
            self._adapter_state = state

    # ---- what is said about it ----

    async def _adapter_eta(self) -> Json:
        """Where the text answered while an adapter is on its way: how long that will take, as far as is known."""
        if self._found is None or self._answered_from != "context":
            return {}
        try:
            job = await self._state.records.job(self._found[1].key)
            eta_s = await next_s(self._state, job, self.question.lift.recipe) if job and job.unfinished else None
        except (RedisError, ApiError) as error:  # the answer is there and must not be lost
            log.warning("no time told for %s: %s", self.question.document_id, error)
            return {}
        return {"adapter_eta_s": round(eta_s, 1)} if eta_s else {}

    def _finished(self) -> Json:
        self.token_written()  # an answer without a single token: all there is was sent
        self._state.metrics.answered(
            self.ttft_s or 0.0,
            self._timeline,
            model=self._state.settings.model_name,
            endpoint=self.question.dialect.ROUTE,
            state=self._adapter_state,
            stream=self.question.stream,
        )
        return {
            "document_id": self.question.document_id,
            **({"document_ids": self._found[0].document_ids} if self._found and self._found[0].document_ids else {}),
            "adapter_id": self._adapter.id if self._adapter else None,
            "adapter_version": self._adapter.version if self._adapter else None,
            "answered_from": self._answered_from,
            **({"excerpt": True} if self._is_excerpt else {}),
            "ttft_s": round(self.ttft_s or 0.0, 4),
            "phases": self._whole_timeline().relative_to(self.question.received_s),
        }

    def _whole_timeline(self) -> Timeline:
        """With the document's own phases where the question saw them happen; better versions may still follow."""
        if self._adapter_state is AdapterState.TRAINING and self._job is not None:
            seen = {phase: span for phase, span in self._job.timeline.spans.items() if span[1] is not None}
            return Timeline(seen | self._timeline.spans)
        return self._timeline
