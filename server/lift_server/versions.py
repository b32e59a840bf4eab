"""Which version of a document's adapter answers a question, and the wait for it.

In: a job and the recipe asked for, if any. Out: the version; where there is none, DocumentStopped, or NotYet, which is
told as DocumentNotReady.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial

from lift_config.contract import AdapterRecord, JobRecord, Status
from lift_server.errors import DocumentNotFound, DocumentNotReady, DocumentStopped
from lift_server.estimate import next_s, will_bring
from lift_server.quota import Quota
from lift_server.state import State
from lift_server.writes import STOPPED


class NotYet(Exception):
    """There is no version of `recipe` after `waited_s`; not_ready() has what is said of it."""

    def __init__(self, job: JobRecord, recipe: str | None, waited_s: float) -> None:
        super().__init__(job.key)
        self.job, self.recipe, self.waited_s = job, recipe, waited_s


def version(job: JobRecord, recipe: str | None) -> AdapterRecord | None:
    """The one there is: of `recipe`, or else the best."""
    return job.version_of(recipe) if recipe else job.best()


def refuse_stopped(job: JobRecord) -> None:
    if job.status in STOPPED:
        raise _stopped(job, "document")


async def wait(
    state: State, job: JobRecord, recipe: str | None, patience_s: float, asked_s: float
) -> tuple[JobRecord, AdapterRecord]:
    """The job once it has the version. Where nothing under way brings it, it is trained for this question, which
    came at `asked_s`, as soon as what is under way has ended; a refinement no worker has goes ahead of others. NotYet
    after `patience_s`."""
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + patience_s
    while (found := version(job, recipe)) is None:
        job = await _wanted(state, job, recipe, asked_s)
        is_coming, is_refined = will_bring(job, recipe), job.status is Status.READY
        try:
            job = await state.watcher.until(job.key, partial(_is_told, recipe, is_refined), deadline_s - clock())
        except TimeoutError as error:
            raise NotYet(job, recipe, patience_s) from error
        refuse_stopped(job)
        if version(job, recipe) is None and not job.unfinished and (is_coming or recipe is None):
            raise _stopped(job, f"version of recipe {recipe!r}")
    return job, found


def _is_told(recipe: str | None, is_refined: bool, job: JobRecord) -> bool:
    """Whether waiting longer for what is under way tells nothing more, or the refinement that was to come begins."""
    begins = job.status is Status.READY and not is_refined
    return version(job, recipe) is not None or not job.unfinished or begins


async def _wanted(state: State, job: JobRecord, recipe: str | None, asked_s: float) -> JobRecord:
    if recipe is None or job.status is not Status.READY:
        return job
    if not job.unfinished:
        await Quota(state.records.redis, job.owner, state.settings.limits).train()
    wanted = await state.records.want(job.key, recipe, asked_s)
    if wanted is None:
        raise DocumentNotFound
    return wanted


async def not_ready(state: State, missing: NotYet) -> DocumentNotReady:
    """With how long it will take, as the worker tells, or as far as it can be foretold."""
    job, recipe = await state.records.job(missing.job.key) or missing.job, missing.recipe
    progress, eta_s = job.progress, job.progress.eta_s or await next_s(state, job, recipe)
    what = f"document's version of recipe {recipe!r}" if recipe else "document"
    message = (
        f"The {what} is not ready after waiting {missing.waited_s:g} s: {job.status.value}, "
        f"phase {progress.phase}, {progress.fraction:.0%} done{f', about {math.ceil(eta_s)} s left' if eta_s else ''}."
    )
    return DocumentNotReady(message, retry_after_s=min(120, max(1, math.ceil(eta_s or 5))))


def _stopped(job: JobRecord, what: str) -> DocumentStopped:
    if job.status is Status.FAILED or job.error:
        reason = job.error.message if job.error else "no reason was recorded"
        return DocumentStopped(f"The {what}'s training failed: {reason}", code="document_failed")
    advice = " Upload it again to train it." if job.status is Status.CANCELLED else ""
    return DocumentStopped(f"The {what}'s training was cancelled.{advice}", code="document_cancelled")
