"""One question under observation: how it ended, told to the metrics and, where traces are wanted, as spans."""

from __future__ import annotations

import logging
import secrets
import time

from starlette.requests import ClientDisconnect

from lift_config.contract import AdapterRecord, AdapterState, JobRecord
from lift_config.phases import Phase, Timeline
from lift_server.errors import ApiError, told_as
from lift_server.metrics import Objective
from lift_server.middleware import request_id
from lift_server.question import Question
from lift_server.state import State

log = logging.getLogger(__name__)


class Observed:
    """`failure` is set where an error went to the client and nowhere else: in a stream already begun."""

    def __init__(self, state: State, question: Question) -> None:
        self.failure: ApiError | None = None
        self._question = question
        self._metrics = state.metrics
        self._span = state.traces.question(question, state.settings.model_name) if state.traces else None

    @property
    def headers(self) -> dict[str, str]:
        """For the engine, so that its span and its log join ours. Of the id it makes the answer's, which must be
        another for each, whatever a client sends; one that the body has would give way to it."""
        is_named = "request_id" in self._question.body
        ids = {} if is_named else {"X-Request-Id": f"{request_id()}-{secrets.token_hex(4)}"}
        return ids | ({"traceparent": self._span.traceparent} if self._span else {})

    def ended(
        self,
        error: BaseException | None,
        timeline: Timeline,
        *,
        ttft_s: float | None,
        state: AdapterState,
        adapter: AdapterRecord | None,
        job: JobRecord | None,
    ) -> None:
        """Call once. `ttft_s` is None where no token was written."""
        failure = self.failure or _failure(error)
        outcome = failure.code if failure else "disconnected" if error else "ok"
        self._metrics.ended(outcome, endpoint=self._question.dialect.ROUTE)
        level = logging.WARNING if failure and failure.status >= 500 else logging.INFO
        named = (job and job.key, adapter and adapter.id)
        log.log(level, "question to job %s, adapter %s: %s", *named, outcome)
        if not self._question.stream:
            ttft_s = None  # what is known is the time to the whole answer
        elif objective := _objective(timeline):
            self._metrics.promised(
                objective,
                time.time() - self._question.received_s if ttft_s is None else ttft_s,
                is_answered=ttft_s is not None,
                is_our_fault=failure is not None and failure.status >= 500,
            )
        if self._span:
            self._span.end(timeline, outcome, ttft_s=ttft_s, state=state, adapter=adapter, job=job)


def _objective(timeline: Timeline) -> Objective | None:
    """None for what got as far as no adapter, and needed none."""
    if Phase.WAIT in timeline.spans:
        return Objective.COLD_TTFT
    return Objective.WARM_TTFT if Phase.LOAD in timeline.spans else None


def _failure(error: BaseException | None) -> ApiError | None:
    """None also for a client that went: it raises ClientDisconnect, or cancels."""
    if isinstance(error, ClientDisconnect) or not isinstance(error, Exception):
        return None
    return told_as(error)
