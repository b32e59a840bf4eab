"""Time to first token through the real product, over HTTP: cold, warm and with the text in the prompt.

    .venv/bin/python scripts/bench_ttft.py --lengths 512,1k,2k --runs 2 --together 8 --quality smoke --out ttft
    .venv/bin/python scripts/bench_ttft.py --url http://host:8000 --lengths 1k,8k,32k,128k --out ttft-gpu
    .venv/bin/python scripts/bench_ttft.py --shape llama-3-8b --tokenizer FOLDER --lengths 1k,4k --out ttft-8b

In: documents (JSON lines: title, text, qa), a running server or none, in which case one is started with its own
home and ports and the settings of the environment. Each text begins with a sentence of its own, so its content was
never seen. Cold: the upload, and the moment it is answered the streamed question (it needs the document's id); the
clock runs from the upload's first byte. With --shape the base model has random weights and the tasks are recorded ones
(bench_worker.py): speed only. Out: docs/benchmarks/<out>.json, .md and .svg, written after every run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import secrets
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
from transformers import AutoTokenizer

from bench_common import HOME, ROOT, SPEED_ONLY, TABLES, Document, prepared_model, read_documents, stated, where, write
from bench_product import Client, Json, Memory, RefusedError, product
from bench_shape import SHAPES, labelled, random_model
from bench_ttft_report import WORK, Crowd, Run, Together, covered, plot, quality, shifted, tables, uncovered

EVAL = ROOT.parent / "shared" / "eval"
DATA = [path for path in (EVAL / "dev.jsonl", EVAL / "large.jsonl") if path.exists()]
INVENTED = ROOT / "tests" / "e2e" / "invented.json"
WARM_UP_TOKENS = 256


@dataclass(frozen=True)
class Text:
    """`tokens` of real text, and questions to cycle through."""

    title: str
    text: str
    tokens: int
    questions: Sequence[str]

    def fresh(self) -> str:
        """The text as content never seen: two copies share nothing but what follows their first sentence."""
        return f"This is copy {secrets.token_hex(8)} of the text.\n\n{self.text}"

    def question(self, number: int) -> str:
        return self.questions[number % len(self.questions)]


def main() -> None:
    asyncio.run(bench(_arguments()))


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a running server, without /v1; default: start one")
    parser.add_argument("--home", type=Path, help="of that server, where it runs on this machine: for its memory")
    parser.add_argument("--data", type=Path, nargs="+", default=DATA or [INVENTED])
    parser.add_argument("--shape", help=f"a base model of random weights: {', '.join(SHAPES)}, or a config.json")
    parser.add_argument("--tokenizer", help="of --shape, and for lengths; default: the bundled base model's")
    parser.add_argument("--lengths", type=lengths, default=[512, 1024, 2048], help="in tokens: 512,1k,2k")
    parser.add_argument("--runs", type=int, default=1, help="documents of each length")
    parser.add_argument("--recipe", help="default: the server's")
    parser.add_argument("--questions", type=int, default=5, help="warm ones, and those in context")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[], help="questions at the same moment")
    parser.add_argument("--together", type=int, default=0, help="so many documents of the first length at once")
    parser.add_argument("--quality", nargs="*", default=[], help="evaluate.py's tables of the recipes used")
    parser.add_argument("--out", required=True, help="name of the table below docs/benchmarks")
    arguments = parser.parse_args(given)
    if arguments.shape and (arguments.url or arguments.quality):
        parser.error("--shape starts a server of its own, and random weights have no quality: no --url, no --quality")
    return arguments


def lengths(text: str) -> list[int]:
    """`512,1k` → [512, 1024]."""
    return [int(one.removesuffix("k")) * (1024 if one.endswith("k") else 1) for one in text.split(",")]


async def bench(arguments: argparse.Namespace) -> None:
    documents = [document for path in arguments.data for document in read_documents(path)]
    words = arguments.tokenizer or prepared_model().path_or_id
    tokenizer = AutoTokenizer.from_pretrained(words)
    folder = random_model(arguments.shape, words, HOME / "random") if arguments.shape else None
    no_limit = aiohttp.ClientTimeout(total=None)
    async with (
        product(arguments.url, arguments.home, folder) as (url, home),
        aiohttp.ClientSession(url, timeout=no_limit) as http,
    ):
        client = Client(http, arguments.recipe)
        model = await client.model()
        measured = where(labelled(arguments.shape) if arguments.shape else model)
        await cold(client, model, next(texts(documents, tokenizer, WARM_UP_TOKENS)))  # first uses cost more
        runs: list[Run] = []
        for length in arguments.lengths:
            for text in itertools.islice(texts(documents, tokenizer, length), arguments.runs):
                runs.append(await one_run(client, model, text, home, arguments))
                print(runs[-1], flush=True)
                report(runs, None, measured, arguments)
        if arguments.together:
            chosen = list(itertools.islice(texts(documents, tokenizer, arguments.lengths[0]), arguments.together))
            report(runs, await together(client, model, chosen), measured, arguments)


# ---- texts --------------------------------------------------------------------------------------------------------


def texts(documents: Sequence[Document], tokenizer: Any, tokens: int) -> Iterator[Text]:
    """One for each document in turn, for ever; where it is too short, the next ones follow it."""
    for first in itertools.count():
        joined, number = "", first
        while True:
            document = documents[number % len(documents)]
            joined = f"{joined}\n\n{document['text']}" if joined else document["text"]
            ends = [end for _, end in _offsets(tokenizer, joined)]
            if len(ends) >= tokens:
                break
            number += 1
        text = cut(joined, ends[tokens - 1])
        named = documents[first % len(documents)]
        questions = [qa["question"] for qa in named["qa"]]
        yield Text(named["title"], text, len(_offsets(tokenizer, text)), questions)


def cut(text: str, at: int) -> str:
    """The first `at` characters, less a sentence that does not end there, where that leaves one."""
    end = text.rfind(". ", 0, at + 1)
    return text[: end + 1] if end > 0 else text[:at]


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    offsets: list[tuple[int, int]] = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    return offsets


# ---- measuring ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cold:
    """A cold question, and its document once it was finished. `phases` from the upload's first byte;
    `server_ttft_s`: what the server says its time to first token was, the upload before it."""

    document: Json
    ttft_s: float
    server_ttft_s: float
    phases: dict[str, dict[str, float | None]]
    version: int

    @property
    def first_s(self) -> float:
        """The document's own work up to its first version."""
        return covered(self.document["timeline"], WORK, float("inf"))

    @property
    def all_s(self) -> float:
        """The same up to its last version."""
        return covered(self.document["timeline"], (*WORK, "refine"), float("inf"))

    @property
    def recipe(self) -> str:
        """Of the version that answered."""
        recipes: dict[int, str] = {version["version"]: version["recipe"] for version in self.document["adapters"]}
        return recipes[self.version]


async def cold(client: Client, model: str, text: Text) -> Cold:
    began_s = time.monotonic()
    document_id = await client.upload(text.title, text.fresh())
    uploaded_s = time.monotonic() - began_s
    reply = await client.ask(model, document_id, text.question(0))
    phases = shifted(reply.lift["phases"], reply.sent_s - began_s)
    upload: dict[str, float | None] = {"start_s": 0.0, "end_s": round(uploaded_s, 4)}
    return Cold(
        await client.finished(document_id),
        reply.first_token_s - began_s,
        uploaded_s + reply.lift["ttft_s"],
        {"upload": upload} | phases,
        reply.lift["adapter_version"],
    )


async def one_run(client: Client, model: str, text: Text, home: Path | None, arguments: argparse.Namespace) -> Run:
    async with Memory(home) as memory:
        first = await cold(client, model, text)
        document_id = first.document["id"]
        await client.ask(model, document_id, text.question(0))  # the last version may be in no slot yet
        warm = [(await client.ask(model, document_id, text.question(i + 1))).ttft_s for i in range(arguments.questions)]
        context = await in_context(client, model, document_id, text, arguments.questions)
        modes = ["adapter", "context"] if context else ["adapter"]
        crowds = [
            await crowd(client, model, document_id, text, mode, at_once)
            for mode in modes
            for at_once in arguments.concurrency
        ]
    return Run(
        title=text.title,
        tokens=first.document["tokens"] or text.tokens,
        recipe=first.recipe,
        ttft_s=first.ttft_s,
        server_ttft_s=first.server_ttft_s,
        phases=first.phases,
        uncovered_s=uncovered(first.phases, first.ttft_s),
        versions=first.document["adapters"],
        synthesis=first.document["synthesis"],
        timeline=first.document["timeline"],
        warm_s=warm,
        context_s=context,
        crowds=crowds,
        memory_mb=memory.peak_mb,
    )


async def in_context(client: Client, model: str, document_id: str, text: Text, questions: int) -> list[float]:
    """Times to first token; the first one finds nothing of the text in the engine's prefix cache. Empty: too long."""
    try:
        return [
            (await client.ask(model, document_id, text.question(i), "context")).ttft_s for i in range(questions + 1)
        ]
    except RefusedError as refused:
        if refused.code != "context_length_exceeded":
            raise
        return []


async def crowd(client: Client, model: str, document_id: str, text: Text, mode: str, at_once: int) -> Crowd:
    replies = await asyncio.gather(*(client.ask(model, document_id, text.question(i), mode) for i in range(at_once)))
    times_s = [reply.ttft_s for reply in replies]
    return Crowd(mode, at_once, statistics.median(times_s), max(times_s))


async def together(client: Client, model: str, chosen: Sequence[Text]) -> Together:
    """Each alone, then all of them in the same moment, as content never seen both times."""
    alone = [await cold(client, model, text) for text in chosen]
    all_ = await asyncio.gather(*(cold(client, model, text) for text in chosen))
    return Together(
        tokens=[one.document["tokens"] for one in alone],
        alone_first_s=[one.first_s for one in alone],
        alone_all_s=[one.all_s for one in alone],
        alone_ttft_s=[one.ttft_s for one in alone],
        together_first_s=max(one.document["adapters"][0]["ready_s"] for one in all_),
        together_all_s=max(one.document["adapters"][-1]["ready_s"] for one in all_),
        together_ttft_s=[one.ttft_s for one in all_],
    )


# ---- the files ----------------------------------------------------------------------------------------------------


def report(
    runs: Sequence[Run],
    all_: Together | None,
    measured: dict[str, str],
    arguments: argparse.Namespace,
    folder: Path = TABLES,
) -> None:
    command, label = f"scripts/bench_ttft.py {' '.join(sys.argv[1:])}", SPEED_ONLY if arguments.shape else ""
    lines = [
        f"# {arguments.out}: time to first token{label and f' ({label})'}",
        "",
        f"`{command}`; {stated(measured)}",
        "Cold: the upload, and once it is answered the streamed question, with aiohttp; the clock runs from the",
        "upload's first byte to the first token read. One document before, not counted. Warm and context: medians.",
        "",
        f"![TTFT against the document's length]({arguments.out}.svg)",
        "",
        *tables(runs, all_, None if label else quality(arguments.quality)),
    ]
    values = {"where": measured, "command": command, "runs": [asdict(run) for run in runs]}
    extra = ({"label": label} if label else {}) | ({"together": asdict(all_)} if all_ else {})
    write(arguments.out, values | extra, lines, folder)
    plot(runs, folder / f"{arguments.out}.svg", label)


if __name__ == "__main__":
    main()
