"""scripts/bench_server.py: what its bursts come to, and a burst against the stand-in for vLLM that it starts."""

import json
import math
import os
from argparse import Namespace
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import bench_server
from bench_server_client import BrokenStreamError, Burst, Plan, Way, _count, _Stream, burst, usage
from bench_server_parts import fake_engine
from bench_server_report import FIRST_TOKEN, HELD, Comparison, percentile, summary, tables

BODY = {"model": "base", "messages": [{"role": "user", "content": "?"}], "stream": True}


def made(wall_s: float, chunks: int = 100, cpu_s: float | None = None, memory_bytes: int | None = None) -> Burst:
    return Burst(wall_s, chunks, chunks, [wall_s / 10], [0.001, 0.002], cpu_s, memory_bytes)


def compared(plan: Plan, direct: list[Burst], served: list[Burst]) -> Comparison:
    return Comparison("base model", plan, direct, served, idle_bytes=2**20)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 95) == 4.0
    assert percentile([7.0], 50) == 7.0
    assert percentile(list(range(1, 101)), 95) == 95
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_ratios_compare_bursts_that_followed_each_other() -> None:
    one = compared(Plan(8, 100), [made(1.0), made(2.0)], [made(2.0), made(2.0)])
    assert one.ratios == [0.5, 1.0]


def test_cpu_is_counted_over_all_rounds_by_the_chunk() -> None:
    one = compared(
        Plan(8, 100), [made(1.0)] * 2, [made(1.0, cpu_s=0.25, chunks=1000), made(1.0, cpu_s=0.15, chunks=1000)]
    )
    assert one.cpu_s_per_1k_chunks == pytest.approx(0.2)
    assert one.chunks_per_core_s == pytest.approx(5000)


def test_a_server_too_quick_for_the_clock_has_no_limit_rather_than_no_figure() -> None:
    assert compared(Plan(1, 1), [made(1.0)], [made(1.0, cpu_s=0.0)]).chunks_per_core_s == math.inf


def test_memory_is_what_came_to_an_idle_server() -> None:
    one = compared(Plan(HELD, 1), [made(1.0)], [made(1.0, memory_bytes=2**20 + HELD * 10 * 1024)])
    assert one.memory_kib_per_stream == 10


def test_each_comparison_stands_in_the_table_of_its_kind() -> None:
    served = made(2.0, cpu_s=0.01, memory_bytes=2**20 + HELD * 3 * 1024)
    lines = tables(
        [
            compared(FIRST_TOKEN, [made(1.0)] * 5, [served] * 5),
            compared(Plan(64, 100), [made(1.0)], [served]),
            compared(Plan(HELD, 5, chunks_per_s=20), [made(1.0)], [served]),
        ]
    )
    assert "| base model | 5 | 100.0 | 200.0 | +100.0 | 100.0 | 200.0 | +100.0 |" in lines
    assert "| base model | 64 | 100 | 1 | 100 | 50 | 50.0 % | 50.0 to 50.0 % | 0.100 | 10000 |" in lines
    assert f"| {HELD} | 20 | 1.0 | 1.0 | +0.0 | 2.0 | 2.0 | +0.0 | 0.100 | 10000 | 3 |" in lines


def test_memory_is_told_round_by_round() -> None:
    rounds = [
        replace(made(1.0, cpu_s=1.0, memory_bytes=9_000_000), before_bytes=4_000_000, after_bytes=6_000_000),
        replace(made(1.0, cpu_s=1.0, memory_bytes=9_500_000), before_bytes=6_000_000, after_bytes=6_100_000),
        replace(made(1.0, cpu_s=1.0, memory_bytes=9_400_000), before_bytes=6_100_000, after_bytes=5_900_000),
    ]
    lines = tables([compared(Plan(HELD, 5, chunks_per_s=1), [made(1.0)] * 3, rounds)])
    assert lines[-3:] == [
        f"| {HELD} | 1 | 4.0 | 9.0 | 6.0 | +0.0 |",
        f"| {HELD} | 2 | 6.0 | 9.5 | 6.1 | +0.1 |",
        f"| {HELD} | 3 | 6.1 | 9.4 | 5.9 | -0.1 |",
    ]
    assert "most within it, after its last. Before the first, uncounted burst: 1.0." in lines


def test_memory_of_few_streams_is_not_told() -> None:
    lines = tables([compared(Plan(64, 5, chunks_per_s=20), [made(1.0)], [made(1.0, cpu_s=1.0, memory_bytes=2**21)])])
    assert lines[-1].endswith("| - |")


@pytest.mark.parametrize("cut", range(1, 60))
def test_an_event_that_comes_in_pieces_is_one_chunk(cut: int) -> None:
    raw = b'data: {"a":{"content":" 1.5"}}\n\ndata: {"a":{}}\n\ndata: [DONE]\n\n'
    seen = _Stream()
    _count(seen, b"", raw[:cut], 2.0)
    _count(seen, raw[:cut][-2:], raw[cut:], 2.0)
    assert seen.chunks == 2
    assert seen.delays_s in ([0.5], [])  # in two pieces, it is left out


def test_comments_are_no_chunks() -> None:
    seen = _Stream()
    _count(seen, b"", b": training\n\n: loading\n\n", 1.0)
    assert seen.chunks == 0


def test_usage_is_of_a_process() -> None:
    now = usage(os.getpid())
    assert now
    assert now.cpu_s > 0
    assert now.memory_bytes > 2**20
    assert usage(None) is None


async def test_a_burst_against_the_stand_in() -> None:
    async with fake_engine() as url, aiohttp.ClientSession() as http:
        at_once = await burst(http, Way(url, BODY), Plan(streams=3, tokens=5))
        paced = await burst(http, Way(url, BODY, pid=os.getpid()), Plan(streams=2, tokens=4, chunks_per_s=40))
    assert (at_once.tokens, at_once.chunks, len(at_once.ttft_s)) == (15, 3 * 7, 3)  # the role, five tokens, the usage
    assert (at_once.cpu_s, at_once.memory_bytes) == (None, None)
    assert paced.wall_s >= 3 / 40  # the first token has to wait for a step, the others a step each
    assert len(paced.delays_s) == 8
    assert all(0 <= delay < 1 for delay in paced.delays_s)
    assert paced.cpu_s is not None
    assert paced.memory_bytes
    assert paced.before_bytes
    assert paced.after_bytes


async def test_the_stand_in_says_what_vllm_says() -> None:
    """The fields and their order are those of vLLM 0.32.0."""
    async with fake_engine() as url, aiohttp.ClientSession() as http:
        body = BODY | {"max_tokens": 2}
        async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
            events = [line.removeprefix("data: ") for line in (await answer.text()).split("\n\n") if line]
    first, middle, last, counted = (json.loads(event) for event in events[:-1])
    assert list(first) == ["id", "object", "created", "model", "choices"]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert list(first["choices"][0]) == ["index", "delta", "logprobs", "finish_reason"]
    assert list(middle["choices"][0]) == ["index", "delta", "logprobs", "finish_reason", "token_ids"]
    assert (middle["choices"][0]["finish_reason"], last["choices"][0]["finish_reason"]) == (None, "length")
    assert (counted["choices"], counted["usage"]["completion_tokens"], events[-1]) == ([], 2, "[DONE]")


async def test_a_stream_that_ends_early_is_no_measurement() -> None:
    async def short(_: web.Request) -> web.Response:
        return web.Response(text='data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n')

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", short)])
    async with TestServer(app) as there, aiohttp.ClientSession() as http:
        with pytest.raises(BrokenStreamError, match="0 of 9 tokens"):
            await burst(http, Way(str(there.make_url("")).rstrip("/"), BODY), Plan(1, 9))


async def test_ways_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((await request.json())["model"])
        usage = '"usage":{"completion_tokens":4}'
        return web.Response(text=f'data: {{"choices":[{{"delta":{{"content":"x"}}}}],{usage}}}\n\ndata: [DONE]\n\n')

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", answer)])
    async with TestServer(app) as there, aiohttp.ClientSession() as http:
        url = str(there.make_url("")).rstrip("/")
        ways = Way(url, {"model": "direct"}), Way(url, {"model": "served"}, pid=os.getpid())
        one = await bench_server.compare(http, ways, FIRST_TOKEN, 3, "base model")
    first, again = ["direct", "served"], ["served", "direct"]
    assert asked == [*first, *first, *again, *first]  # the first two are not counted
    assert (len(one.direct), len(one.served)) == (3, 3)
    assert "% of direct" in capsys.readouterr().out


def test_a_table_of_the_stand_in_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("table")
    arguments = Namespace(out=folder / "x", fake=True)
    one = compared(Plan(64, 100), [made(1.0)], [made(2.0, cpu_s=0.01)])
    bench_server.report([one], {"commit": "abc"}, arguments)
    assert "FAKE engine" in (folder / "x.md").read_text()
    values = json.loads((folder / "x.json").read_text())
    assert values["fake"] is True
    assert values["compared"] == [summary(one)]


def test_what_is_kept_has_the_tables_figures_and_no_single_chunk() -> None:
    served = [made(2.0, cpu_s=0.01, memory_bytes=2**21), made(4.0, cpu_s=0.03, memory_bytes=2**20)]
    kept = summary(compared(Plan(64, 100), [made(1.0), made(2.0)], served))
    assert kept["plan"] == {"streams": 64, "tokens": 100, "chunks_per_s": None}
    assert kept["of_direct"] == {"min": 0.5, "median": 0.5, "max": 0.5}
    assert kept["served"] == {
        "rounds": 2, "wall_s": 6.0, "chunks": 200, "tokens": 200, "cpu_s": 0.04, "memory_bytes": 2**21,
        "tokens_per_s": {"min": 25.0, "median": 37.5, "max": 50.0},
        "ttft_s": {"count": 2, "p50": 0.2, "p95": 0.4, "p99": 0.4, "p100": 0.4},
        "delays_s": {"count": 4, "p50": 0.001, "p95": 0.002, "p99": 0.002, "p100": 0.002},
        "memory_by_round": [
            {"before": None, "most": 2**21, "after": None}, {"before": None, "most": 2**20, "after": None}
        ],
    }  # fmt: skip
    assert (kept["direct"]["cpu_s"], kept["direct"]["memory_bytes"]) == (None, None)
    assert summary(compared(Plan(1, 1), [made(1.0)], [Burst(1.0, 1, 1, [1.0], [])]))["served"]["delays_s"] is None
