"""A question's whole way: its document → the adapter, waited for → loaded → framed → the engine's answer.

In: a Question. Out: OpenAI's answer, whole or in chunks, that echoes the model asked for and says in `lift` how
it came about.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from lift_config.contract import AdapterRecord, AdapterState, DocumentRecord, JobRecord
from lift_config.phases import Phase, Timeline
from lift_config.prompts import frame
from lift_server import documents, versions
from lift_server.context import Prompt, full_text
from lift_server.engine import CHAT_ROUTE
from lift_server.errors import ApiError, DocumentOutdated
from lift_server.estimate import recipe_within
from lift_server.evidence import evidence
from lift_server.observe import Observed
from lift_server.question import Json, Question
from lift_server.state import State

NOT_EMPTY = {"min_tokens": 1}  # an adapter that is unsure may end its answer before the first word
CONFLICT = 409  # the status of whatever keeps a document from being answered by its adapter now


class Answer:
    """Use as a context: while it lasts, the adapter stays loaded and the engine's connection open."""

    def __init__(self, state: State, question: Question) -> None:
        self.question = question
        self.ttft_s: float | None = None
        self.observed = Observed(state, question)
        self._state = state
        self._job: JobRecord | None = None
        self._found: tuple[DocumentRecord, JobRecord] | None = None
        self._said: dict[int, str] = {}  # by choice
        self._adapter: AdapterRecord | None = None
        self._adapter_state = AdapterState.NONE
        self._answered_from = "base"
        self._timeline = Timeline()
        self._timeline.start(Phase.ACCEPT, question.received_s)
        self._chunks: AsyncIterator[Json] | None = None
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
        url, body = await self._request()
        self._timeline.start(Phase.PREFILL)
        answer = await self._state.engine.chat(url, body, self.observed.headers)
        self._timeline.end(Phase.PREFILL)
        self.token_written()
        self._hear(answer, "message")
        return answer | {"model": self.question.model, "lift": await self.finish()}

    async def open(self) -> None:
        """Everything up to the engine's headers; ApiErrors are raised here as far as they can be."""
        url, body = await self._request()
        self._timeline.start(Phase.PREFILL)
        opening = self._state.engine.chat_stream(url, body, self.observed.headers)
        self._chunks = await self._resources.enter_async_context(opening)

    async def chunks(self) -> AsyncIterator[Json]:
        """The engine's chunks, after `open`."""
        assert self._chunks is not None
        async for chunk in self._chunks:
            if self._timeline.seconds(Phase.PREFILL) is None and has_token(chunk):
                self._timeline.end(Phase.PREFILL)
            self._hear(chunk, "delta")
            yield chunk | {"model": self.question.model}

    def token_written(self) -> None:
        """The client was sent a token; the first one sets `ttft_s`."""
        if self.ttft_s is None:
            self.ttft_s = time.time() - self.question.received_s

    async def finish(self) -> Json:
        """Count the answer; its `lift` object, with the evidence where it was asked for."""
        lift = self._finished()
        if not self.question.lift.evidence:
            return lift
        said = next((text for _, text in sorted(self._said.items()) if text.strip()), "")
        return lift | await evidence(self._state, self._found, self.question.body["messages"], said)

    def server_timing(self) -> dict[str, str]:
        """The header of that name, with the phases that have ended."""
        known = {phase: self._timeline.seconds(phase) for phase in self._timeline.spans}
        parts = [f"{phase.value};dur={1000 * seconds:.1f}" for phase, seconds in known.items() if seconds is not None]
        return {"Server-Timing": ", ".join(parts)} if parts else {}

    @property
    def is_training(self) -> bool:
        """Whether this question is waiting for its adapter."""
        return Phase.WAIT in self._timeline.spans and self._timeline.seconds(Phase.WAIT) is None

    # ---- the way there ----

    async def _request(self) -> tuple[str, Json]:
        """The engine to ask, and the body to send."""
        state, document_id = self._state, self.question.document_id
        if document_id is None:
            self._timeline.end(Phase.ACCEPT)
            return state.engine.place(secrets.token_hex(4)), self.question.body | {"model": state.settings.model_name}
        document, job = self._found = await documents.find(state, self.question.owner, document_id)
        self._timeline.end(Phase.ACCEPT)
        self._job = job
        mode, patience_s = self.question.lift.mode, self.question.lift.max_wait_s
        if mode == "context":
            with self._timeline.during(Phase.FIT):
                return self._from_base(document, await full_text(state, job))
        if mode == "auto" and (request := await self._at_once(document, job)):
            return request
        return await self._from_adapter(
            document, job, state.settings.server.max_wait_s if patience_s is None else patience_s
        )

    async def _at_once(self, document: DocumentRecord, job: JobRecord) -> tuple[str, Json] | None:
        """Without waiting for a training: from a version that is there, else from the text where all of it fits."""
        try:
            return await self._from_adapter(document, job, patience_s=0)
        except ApiError as error:
            if error.status != CONFLICT:
                raise
        self._timeline.spans.pop(Phase.WAIT, None)  # it only looked
        with self._timeline.during(Phase.FIT):
            text = await self._prompt(self._state.engine.place(job.key), document).whole(job)
        return None if text is None else self._from_base(document, text)

    def _from_base(self, document: DocumentRecord, text: str) -> tuple[str, Json]:
        self._answered_from = "context"
        model, engine = self._state.settings.model_name, self._state.engine
        messages = frame(self.question.body["messages"], document.title, text)
        return engine.place(document.job_key), self.question.body | {"model": model, "messages": messages}

    async def _from_adapter(self, document: DocumentRecord, job: JobRecord, patience_s: float) -> tuple[str, Json]:
        settings = self._state.settings
        if (job.base_model, job.base_revision) != (settings.model_name, settings.base_revision):
            raise DocumentOutdated(f"{job.base_model}, {job.base_revision}")
        adapter = self._adapter = await self._version(job, patience_s)
        await self._load(adapter)
        self._answered_from = "adapter"
        url, text = self._state.engine.place(adapter.id), None
        if self.question.lift.mode == "hybrid":
            with self._timeline.during(Phase.FIT):
                text = await self._prompt(url, document).as_much_as_fits(job)
            self._answered_from = "hybrid" if text else "adapter"
        messages = frame(self.question.body["messages"], document.title, text)
        return url, NOT_EMPTY | self.question.body | {"model": adapter.id, "messages": messages}

    def _prompt(self, url: str, document: DocumentRecord) -> Prompt:
        return Prompt(self._state, url, self.question.body, document.title)

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

    async def _load(self, adapter: AdapterRecord) -> None:
        self._timeline.start(Phase.LOAD)
        state = await self._resources.enter_async_context(self._state.hotload.resident(adapter.id))
        self._timeline.end(Phase.LOAD)
        if self._adapter_state is AdapterState.NONE:
            self._adapter_state = state

    # ---- what is said about it ----

    def _hear(self, answer: Json, part: str) -> None:
        """Keep what the answer, or a chunk of it, says."""
        for choice in (answer.get("choices") or ()) if self.question.lift.evidence else ():
            text = (choice.get(part) or {}).get("content") or ""
            index = choice.get("index", 0)
            self._said[index] = self._said.get(index, "") + text

    def _finished(self) -> Json:
        self.token_written()  # an answer without a single token: all there is was sent
        self._state.metrics.answered(
            self.ttft_s or 0.0,
            self._timeline,
            model=self._state.settings.model_name,
            endpoint=CHAT_ROUTE,
            state=self._adapter_state,
            stream=self.question.stream,
        )
        return {
            "document_id": self.question.document_id,
            "adapter_id": self._adapter.id if self._adapter else None,
            "adapter_version": self._adapter.version if self._adapter else None,
            "answered_from": self._answered_from,
            "ttft_s": round(self.ttft_s or 0.0, 4),
            "phases": self._whole_timeline().relative_to(self.question.received_s),
        }

    def _whole_timeline(self) -> Timeline:
        """With the document's own phases where the question saw them happen; better versions may still follow."""
        if self._adapter_state is AdapterState.TRAINING and self._job is not None:
            seen = {phase: span for phase, span in self._job.timeline.spans.items() if span[1] is not None}
            return Timeline(seen | self._timeline.spans)
        return self._timeline


def has_token(chunk: Json) -> bool:
    """Whether a chunk carries anything a reader would see: text, reasoning or a tool call."""
    deltas: list[dict[str, Any]] = [choice.get("delta") or {} for choice in chunk.get("choices") or ()]
    return any(
        delta.get(name) for delta in deltas for name in ("content", "reasoning", "reasoning_content", "tool_calls")
    )
