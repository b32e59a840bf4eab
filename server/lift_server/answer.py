"""A question's whole way: its document → the adapter, waited for → loaded → framed → the engine's answer.

In: a Question. Out: OpenAI's answer, whole or in chunks, that echoes the model asked for and says in `lift` how
it came about.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from lift_config.contract import AdapterRecord, AdapterState, JobRecord, Status
from lift_config.phases import Phase, Timeline
from lift_config.prompts import frame
from lift_server import documents
from lift_server.engine import CHAT_ROUTE
from lift_server.errors import DocumentNotFound, DocumentNotReady, DocumentOutdated, DocumentStopped
from lift_server.question import Json, Question
from lift_server.records import STOPPED
from lift_server.state import State


class Answer:
    """Use as a context: while it lasts, the adapter stays loaded and the engine's connection open."""

    def __init__(self, state: State, question: Question) -> None:
        self.question = question
        self.ttft_s: float | None = None
        self._state = state
        self._job: JobRecord | None = None
        self._adapter: AdapterRecord | None = None
        self._adapter_state = AdapterState.NONE
        self._timeline = Timeline()
        self._chunks: AsyncIterator[Json] | None = None
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def whole(self) -> Json:
        """The answer in one piece; `ttft_s` is then the time to all of it."""
        url, body = await self._request()
        self._timeline.start(Phase.PREFILL)
        answer = await self._state.engine.chat(url, body)
        self._timeline.end(Phase.PREFILL)
        self.token_written()
        return answer | {"model": self.question.model, "lift": self.finish()}

    async def open(self) -> None:
        """Everything up to the engine's headers; ApiErrors are raised here as far as they can be."""
        url, body = await self._request()
        self._timeline.start(Phase.PREFILL)
        self._chunks = await self._resources.enter_async_context(self._state.engine.chat_stream(url, body))

    async def chunks(self) -> AsyncIterator[Json]:
        """The engine's chunks, after `open`."""
        assert self._chunks is not None
        async for chunk in self._chunks:
            if self._timeline.seconds(Phase.PREFILL) is None and has_token(chunk):
                self._timeline.end(Phase.PREFILL)
            yield chunk | {"model": self.question.model}

    def token_written(self) -> None:
        """The client was sent a token; the first one sets `ttft_s`."""
        if self.ttft_s is None:
            self.ttft_s = time.time() - self.question.received_s

    def finish(self) -> Json:
        """Count the answer; its `lift` object."""
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
            "answered_from": self._answered_from(),
            "ttft_s": round(self.ttft_s or 0.0, 4),
            "phases": self._whole_timeline().relative_to(self.question.received_s),
        }

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
        body, base_name = self.question.body, self._state.settings.model_name
        if self.question.document_id is None:
            return self._state.engine.place(secrets.token_hex(4)), body | {"model": base_name}
        document, job = await documents.find(self._state, self.question.document_id)
        self._job = job
        if self.question.lift.mode == "context":
            text = await self._state.records.text(document.job_key)
            if text is None:
                raise DocumentNotFound
            messages = frame(body["messages"], document.title, text)
            return self._state.engine.place(job.key), body | {"model": base_name, "messages": messages}
        settings = self._state.settings
        if (job.base_model, job.base_revision) != (base_name, settings.base_revision):
            raise DocumentOutdated(f"{job.base_model}, {job.base_revision}")
        adapter = self._adapter = await self._ready_adapter(job)
        await self._load(adapter)
        messages = frame(body["messages"], document.title)
        return self._state.engine.place(adapter.id), body | {"model": adapter.id, "messages": messages}

    async def _ready_adapter(self, job: JobRecord) -> AdapterRecord:
        """The newest version, waited for where there is none yet."""
        if job.status is not Status.READY:
            _refuse_stopped(job)
            job = self._job = await self._wait(job)
        return job.adapters[-1]

    async def _wait(self, job: JobRecord) -> JobRecord:
        patience_s = self.question.lift.max_wait_s
        max_wait_s = self._state.settings.server.max_wait_s if patience_s is None else patience_s
        self._timeline.start(Phase.WAIT)
        try:
            job = await self._state.watcher.finished(job.key, max_wait_s)
        except TimeoutError as error:
            raise await self._not_ready(job, max_wait_s) from error
        self._timeline.end(Phase.WAIT)
        _refuse_stopped(job)
        self._adapter_state = AdapterState.TRAINING
        return job

    async def _not_ready(self, job: JobRecord, waited_s: float) -> DocumentNotReady:
        job = await self._state.records.job(job.key) or job
        progress = job.progress
        message = (
            f"The document is not ready after waiting {waited_s:g} s: {job.status.value}, "
            f"phase {progress.phase}, {progress.fraction:.0%} done."
        )
        return DocumentNotReady(message, retry_after_s=min(120, max(1, math.ceil(progress.eta_s or 5))))

    async def _load(self, adapter: AdapterRecord) -> None:
        self._timeline.start(Phase.LOAD)
        state = await self._resources.enter_async_context(self._state.hotload.resident(adapter.id))
        self._timeline.end(Phase.LOAD)
        if self._adapter_state is AdapterState.NONE:
            self._adapter_state = state

    # ---- what is said about it ----

    def _answered_from(self) -> str:
        if self.question.document_id is None:
            return "base"
        return "adapter" if self._adapter else "context"

    def _whole_timeline(self) -> Timeline:
        """With the document's own phases where the question saw them happen."""
        if self._adapter_state is AdapterState.TRAINING and self._job is not None:
            return Timeline(self._job.timeline.spans | self._timeline.spans)
        return self._timeline


def has_token(chunk: Json) -> bool:
    """Whether a chunk carries anything a reader would see: text, reasoning or a tool call."""
    deltas: list[dict[str, Any]] = [choice.get("delta") or {} for choice in chunk.get("choices") or ()]
    return any(
        delta.get(name) for delta in deltas for name in ("content", "reasoning", "reasoning_content", "tool_calls")
    )


def _refuse_stopped(job: JobRecord) -> None:
    if job.status not in STOPPED:
        return
    if job.status is Status.CANCELLED:
        message = "The document's training was cancelled. Upload it again to train it."
    else:
        reason = job.error.message if job.error else "no reason was recorded"
        message = f"The document's training failed: {reason}"
    raise DocumentStopped(message, code=f"document_{job.status.value}")
