"""The front end's overhead: the same streamed questions to the engine directly and through the server, by turns.

    .venv/bin/python scripts/bench_server.py --out server
    .venv/bin/python scripts/bench_server.py --fake --out server-fake

In: the product, started with a home and ports of its own; with `--fake` the server alone, in front of a stand-in that
emits vLLM's chunks as fast as asked. Client, server and engine are processes of their own. Out: times to first token,
tokens a second, the server's CPU seconds and memory: docs/benchmarks/<out>.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from bench_common import HOME, ROOT, free_ports, read_documents, stated, where, write
from bench_product import Client, process, started
from bench_server_client import Burst, Json, Plan, Way, burst, usage
from bench_server_parts import NAME, fake_engine, server
from bench_server_report import FIRST_TOKEN, Comparison, summary, tables
from lift_config.prompts import frame

INVENTED = ROOT / "tests" / "e2e" / "invented.json"
API_KEY = "known-to-the-benchmark"
THROUGHPUT = (Plan(streams=1, tokens=48), Plan(streams=8, tokens=32), Plan(streams=64, tokens=96))
AT_ONCE = (Plan(streams=1, tokens=30_000), Plan(streams=8, tokens=4000), Plan(streams=64, tokens=500))
PACED = tuple(Plan(streams=64, tokens=5 * rate, chunks_per_s=rate) for rate in (5, 20, 40))


def main() -> None:
    asyncio.run(bench(_arguments()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fake", action="store_true", help="a stand-in for vLLM, whose speed is no limit")
    parser.add_argument("--rounds", type=int, default=3, help="of every burst, each way")
    parser.add_argument("--questions", type=int, default=40, help="one by one, each way, for the time to first token")
    parser.add_argument("--held", type=int, default=1000, help="slow streams at the same moment, with --fake")
    parser.add_argument("--recipe", default="sketch", help="of the document's adapter; its speed, not its quality")
    parser.add_argument("--out", required=True, help="name of the table below docs/benchmarks")
    return parser.parse_args()


async def bench(arguments: argparse.Namespace) -> None:
    no_limit = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=no_limit, connector=aiohttp.TCPConnector(limit=0)) as http:
        if arguments.fake:
            measured, compared = where(NAME), await _fake(http, arguments)
        else:
            measured, compared = await _real(http, arguments)
    report(compared, measured, arguments)


async def _fake(http: aiohttp.ClientSession, arguments: argparse.Namespace) -> list[Comparison]:
    held = Plan(streams=arguments.held, tokens=15, chunks_per_s=1)
    async with fake_engine() as engine_url, server(engine_url) as (server_url, pid):
        body = _body(NAME, "What is the answer?")
        ways = Way(engine_url, body), Way(server_url, body, pid=pid)
        compared = [await compare(http, ways, FIRST_TOKEN, arguments.questions, "base model")]
        for plan in (*AT_ONCE, *PACED):
            compared.append(await compare(http, ways, plan, arguments.rounds, "base model"))
        return [*compared, await compare(http, ways, held, arguments.rounds, "base model")]


async def _real(http: aiohttp.ClientSession, arguments: argparse.Namespace) -> tuple[dict[str, str], list[Comparison]]:
    [document] = read_documents(INVENTED)
    question, compared = document["qa"][0]["question"], list[Comparison]()
    async with _product() as (server_url, engine_url, pid), aiohttp.ClientSession(server_url) as own:
        client = Client(own, arguments.recipe)
        model = await client.model()
        measured = where(model)
        document_id = await client.upload(document["title"], document["text"])
        adapter = (await client.finished(document_id))["adapter"]["id"]
        plain = _body(model, question)
        framed = plain | {"model": adapter, "messages": frame(plain["messages"], document["title"]), "min_tokens": 1}
        for asked, direct, served in (
            ("base model", plain, plain),
            ("document", framed, plain | {"document_id": document_id}),
        ):
            ways = Way(engine_url, direct, key=API_KEY), Way(server_url, served, pid=pid)
            compared.append(await compare(http, ways, FIRST_TOKEN, arguments.questions, asked))
            for plan in THROUGHPUT:
                compared.append(await compare(http, ways, plan, arguments.rounds, asked))
    return measured, compared


@asynccontextmanager
async def _product() -> AsyncIterator[tuple[str, str, int]]:
    """Addresses of server and engine, and the server's process."""
    [engine_port] = free_ports(1)
    settings = {"LIFT_ENGINE__API_KEY": API_KEY, "LIFT_ENGINE__PORT": engine_port}
    async with started(HOME / "bench-server", settings) as (url, home):
        yield url, f"http://127.0.0.1:{engine_port}", process(home, "server")


def _body(model: str, question: str) -> Json:
    """Greedy, of a fixed length, with the tokens counted by the engine."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def compare(
    http: aiohttp.ClientSession, ways: tuple[Way, Way], plan: Plan, rounds: int, asked: str
) -> Comparison:
    """Each way once uncounted, then `rounds` of both; which one comes first alternates too."""
    idle = usage(ways[1].pid)
    for way in ways:
        await burst(http, way, plan)
    done: tuple[list[Burst], list[Burst]] = [], []
    for number in range(rounds):
        for at in (0, 1) if number % 2 == 0 else (1, 0):
            done[at].append(await burst(http, ways[at], plan))
    compared = Comparison(asked, plan, *done, idle_bytes=idle.memory_bytes if idle else 0)
    print(compared.line(), flush=True)
    return compared


def report(compared: Sequence[Comparison], measured: dict[str, str], arguments: argparse.Namespace) -> None:
    command = f"scripts/bench_server.py {' '.join(sys.argv[1:])}"
    engine = "A FAKE engine, which computes nothing" if arguments.fake else "The product's own vLLM"
    lines = [
        f"# {arguments.out}: what the front end costs",
        "",
        f"`{command}`; {stated(measured)}",
        f"{engine}. The same streamed questions directly and through the server, by turns in one run; client, server",
        "and engine are three processes that share the cores, so the server's CPU seconds are the robust figure.",
        "",
        *tables(compared),
    ]
    values = {"where": measured, "command": command, "fake": arguments.fake}
    write(arguments.out, values | {"compared": [summary(one) for one in compared]}, lines)


if __name__ == "__main__":
    main()
