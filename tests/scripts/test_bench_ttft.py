"""scripts/bench_ttft.py: what its measurements come to, and the whole of it against a stand-in for the server."""

import json
import subprocess
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import bench_ttft
from bench_common import SPEED_ONLY, where
from bench_product import Client, Memory, RefusedError, resident_mb
from bench_shape import labelled
from bench_ttft_report import Run, Together, covered, line, plot, quality, shifted, tables, uncovered
from lift_server.launcher.processes import mark, write_marks

PHASES = {
    "queue": {"start_s": 0.0, "end_s": 1.0},
    "synthesize": {"start_s": 1.5, "end_s": 4.0},
    "train": {"start_s": 2.0, "end_s": 6.0},
    "wait": {"start_s": 0.0, "end_s": 7.0},
    "refine": {"start_s": 6.5, "end_s": None},
}


def test_overlapping_phases_are_counted_once() -> None:
    assert covered(PHASES, ("synthesize", "train"), 100.0) == pytest.approx(4.5)
    assert covered(PHASES, ("queue", "train"), 100.0) == pytest.approx(5.0)
    assert covered(PHASES, ("load",), 100.0) == 0.0


def test_a_phase_within_another_adds_nothing() -> None:
    phases = {"train": {"start_s": 0.0, "end_s": 9.0}, "synthesize": {"start_s": 1.0, "end_s": 2.0}}
    assert covered(phases, ("train", "synthesize"), 100.0) == pytest.approx(9.0)


def test_phases_count_up_to_the_first_token_only() -> None:
    assert covered(PHASES, ("train",), 3.0) == pytest.approx(1.0)
    assert covered(PHASES, ("train",), 1.0) == 0.0
    assert covered(PHASES, ("refine",), 8.0) == pytest.approx(1.5)


def test_waiting_explains_nothing() -> None:
    assert uncovered(PHASES, 6.5) == pytest.approx(1.0)  # 1.0 to 1.5 and 6.0 to 6.5
    assert uncovered({"wait": {"start_s": 0.0, "end_s": 6.5}}, 6.5) == pytest.approx(6.5)


def test_phases_move_to_an_earlier_origin() -> None:
    moved = shifted(PHASES, 0.25)
    assert moved["queue"] == {"start_s": 0.25, "end_s": 1.25}
    assert moved["refine"] == {"start_s": 6.75, "end_s": None}


def test_a_straight_line_is_found_and_called_straight() -> None:
    fit = line([(1000, 3.0), (2000, 5.0), (4000, 9.0)])
    assert fit
    assert (fit.fixed_s, fit.per_1k_s, fit.r2) == pytest.approx((1.0, 2.0, 1.0))
    bent = line([(1000, 1.0), (2000, 4.0), (4000, 16.0)])
    assert bent
    assert bent.r2 < 0.99


def test_one_length_makes_no_line() -> None:
    assert line([(1000, 3.0), (1000, 4.0)]) is None


def test_quality_is_told_by_recipe_drafts_among_them(tmp_path: Path) -> None:
    def column(contained: float, nll: float | None) -> dict[str, Any]:
        metrics = {"contained": {"value": contained, "count": 40}} | ({} if nll is None else {"nll": {"value": nll}})
        return {"metrics": metrics}

    columns = {
        "closed book": column(0.025, 4.0),
        "in context": column(0.5, None),
        "LIFT balanced/fast": column(0.075, 2.5),
        "LIFT max": column(0.25, 1.0),
        "hybrid max": column(0.5, 0.5),
    }
    (tmp_path / "smoke.json").write_text(json.dumps({"columns": columns}))
    found = quality(["smoke"], tmp_path)
    beside = "(closed book 1 of 40 right, 4.00 nats a token; in context 20 of 40 right)"
    assert found == {
        "fast": f"[smoke](smoke.md): 3 of 40 right, 2.50 nats a token {beside}",
        "max": f"[smoke](smoke.md): 10 of 40 right, 1.00 nats a token {beside}",
    }


def run(tokens: int, ttft_s: float, **values: Any) -> Run:
    version = {"version": 1, "recipe": "fast", "ready_s": ttft_s}
    return Run("A", tokens, "fast", ttft_s, ttft_s, PHASES, 0.5, [version], {"prompt_tokens": 7}, PHASES, **values)


def test_the_tables_state_recipe_quality_gaps_and_the_line() -> None:
    together = Together([9, 9], [2.0, 3.0], [4.0, 6.0], [2.5, 3.5], 5.5, 11.0, [5.0, 2.75])
    runs = [run(1000, 3.0, warm_s=[0.1, 0.3, 0.2]), run(2000, 5.0, context_s=[1.0, 0.5, 0.7])]
    text = "\n".join(tables(runs, together, {"fast": "3 of 40 right"}))
    assert "| 1000 | fast | **3.00** | 3.00 | 0.500 | 0.200 | - | - |" in text
    assert "| 2000 | fast | **5.00** | 5.00 | 0.500 | - | 1.000 | 0.600 |" in text
    assert "Cold TTFT ≈ 1.00 s + 2.00 s for 1,000 tokens (R² 1.000)." in text
    assert "Quality of `fast`: 3 of 40 right." in text
    assert "| all first versions | 5.00 | 5.50 | 1.10 |" in text
    assert "| all last versions | 10.00 | 11.00 | 1.10 |" in text
    assert "| cold TTFT of the first one | 3.50 | 2.75 | 0.79 |" in text


def test_a_recipe_without_a_table_says_so() -> None:
    assert "Quality of `fast`: not measured." in list(tables([run(1000, 3.0)], None, {}))


def test_random_weights_have_no_quality() -> None:
    text = "\n".join(tables([run(1000, 3.0)], None, None))
    assert "Quality: none (speed only, random weights)." in text
    assert "Quality of" not in text


@pytest.mark.parametrize("more", [["--url", "http://127.0.0.1:1"], ["--quality", "smoke"]])
def test_a_shape_goes_with_neither_a_running_server_nor_a_quality(more: list[str]) -> None:
    with pytest.raises(SystemExit):
        bench_ttft._arguments(["--out", "x", "--shape", "llama-3-8b", *more])


@pytest.mark.parametrize("shape", ["models/smollm2-135m-instruct/config.json", None])
def test_random_weights_are_said_in_table_and_json(shape: str | None, tmp_path: Path) -> None:
    measured = where(labelled(shape) if shape else "smollm2-135m-instruct")
    bench_ttft.report([run(1000, 3.0)], None, measured, Namespace(out="x", shape=shape, quality=[]), tmp_path)
    values, text = json.loads((tmp_path / "x.json").read_text()), (tmp_path / "x.md").read_text()
    plain = "SmolLM2-135M-Instruct (Q4_1, dequantised)"
    assert values["where"]["model"] == (f"{shape} ({SPEED_ONLY})" if shape else plain)
    assert values.get("label") == (SPEED_ONLY if shape else None)
    assert text.startswith(f"# x: time to first token ({SPEED_ONLY})\n" if shape else "# x: time to first token\n")


def test_the_plot_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    runs = [run(1000, 3.0, warm_s=[0.1], memory_mb={"server": 90.0}), run(2000, 5.0, context_s=[1.0, 0.5])]
    plot(runs, tmp_path / "a.svg")
    plot(runs, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_lengths() -> None:
    assert bench_ttft.lengths("512,1k,128k") == [512, 1024, 131072]


class Words:
    """A tokenizer whose tokens are words."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[tuple[int, int]]]:
        ends, at = [], 0
        for word in text.split(" "):
            ends.append((at, at + len(word)))
            at += len(word) + 1
        return {"offset_mapping": ends}


DOCUMENTS = [
    {"title": "A", "text": "One two three. Four five six. Seven.", "qa": [{"question": "A?"}]},
    {"title": "B", "text": "Eight nine. Ten.", "qa": [{"question": "B?"}, {"question": "C?"}]},
]


def test_texts_end_with_a_sentence_within_their_length() -> None:
    first, second = (text for text, _ in zip(bench_ttft.texts(DOCUMENTS, Words(), 5), range(2), strict=False))
    assert (first.title, first.text, first.tokens) == ("A", "One two three.", 3)
    assert second.text.startswith("Eight nine.")
    assert second.question(3) == "C?"


def test_a_short_document_is_followed_by_the_next() -> None:
    text = next(bench_ttft.texts(DOCUMENTS, Words(), 9))
    assert text.text == "One two three. Four five six. Seven.\n\nEight nine."


def test_a_text_is_new_each_time() -> None:
    text = bench_ttft.Text("A", "One.", 1, ["?"])
    assert text.fresh() != text.fresh()


# ---- against a server ---------------------------------------------------------------------------------------------


class StandIn:
    """Trains at once, refuses context, answers with one token. What it was sent is kept."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.asked: list[dict[str, Any]] = []

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/documents", self._upload),
                web.get("/v1/documents/{id}", self._document),
                web.post("/v1/chat/completions", self._chat),
            ]
        )
        return application

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def _upload(self, request: web.Request) -> web.Response:
        self.texts.append((await request.json())["text"])
        return web.json_response({"id": f"doc_{len(self.texts)}"})

    async def _document(self, request: web.Request) -> web.Response:
        version = {"version": 1, "recipe": "fast", "ready_s": 2.0}
        span = {"start_s": 0.0, "end_s": 1.5}
        return web.json_response(
            {"id": request.match_info["id"], "status": "ready", "unfinished": False, "tokens": 12, "error": None,
             "adapters": [version], "synthesis": {"prompt_tokens": 7}, "timeline": {"train": span}}
        )  # fmt: skip

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        if body["lift"]["mode"] == "context":
            error = {"code": "context_length_exceeded", "message": "too long"}
            return web.json_response({"error": error}, status=400)
        answer = web.StreamResponse()
        await answer.prepare(request)
        lift = {"ttft_s": 0.1, "adapter_version": 1, "phases": {"prefill": {"start_s": 0.0, "end_s": 0.1}}}
        events: Sequence[Any] = [
            {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
            {"choices": [{"delta": {"content": "Yes"}}]},
            {"choices": [{"delta": {}}], "lift": lift},
        ]
        await answer.write(b": training\n\n")
        for event in events:
            await answer.write(f"data: {json.dumps(event)}\n\n".encode())
        await answer.write(b"data: [DONE]\n\n")
        return answer


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
async def client(stand_in: StandIn) -> AsyncIterator[Client]:
    runner = web.AppRunner(stand_in.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession(site.name.replace(":0", f":{runner.addresses[0][1]}")) as http:
        yield Client(http, None)
    await runner.cleanup()


TEXT = bench_ttft.Text("A", "One two three.", 3, ["A?", "B?"])


async def test_a_run_is_cold_warm_and_without_context_where_it_does_not_fit(
    client: Client, stand_in: StandIn, tmp_path: Path
) -> None:
    arguments = Namespace(questions=3, concurrency=[2])
    done = await bench_ttft.one_run(client, "tiny", TEXT, None, arguments)
    assert (done.tokens, done.recipe, len(done.warm_s), done.context_s) == (12, "fast", 3, [])
    assert [(crowd.mode, crowd.at_once) for crowd in done.crowds] == [("adapter", 2)]
    assert list(done.phases) == ["upload", "prefill"]
    assert done.phases["upload"]["start_s"] == 0.0
    assert [body["lift"]["mode"] for body in stand_in.asked].count("adapter") == 1 + 1 + 3 + 2
    assert stand_in.texts[0].endswith("One two three.")


async def test_together_takes_new_copies_of_the_same_texts(client: Client, stand_in: StandIn) -> None:
    all_ = await bench_ttft.together(client, "tiny", [TEXT, TEXT])
    assert len(set(stand_in.texts)) == 4
    assert (all_.alone_first_s, all_.together_first_s, len(all_.together_ttft_s)) == ([1.5, 1.5], 2.0, 2)


async def test_a_refusal_keeps_the_servers_code(client: Client) -> None:
    with pytest.raises(RefusedError, match="400 context_length_exceeded: too long"):
        await client.ask("tiny", "doc_1", "?", "context")


async def test_the_clock_of_an_answer_stops_at_its_first_token(client: Client) -> None:
    reply = await client.ask("tiny", "doc_1", "?")
    assert 0 < reply.ttft_s <= time.monotonic() - reply.sent_s


async def test_the_memory_of_a_part_is_that_of_its_processes(tmp_path: Path) -> None:
    with subprocess.Popen(("cat",), stdin=subprocess.PIPE, start_new_session=True) as part:
        write_marks(tmp_path / "pids.json", [mark("server", part.pid)])
        assert resident_mb(tmp_path / "pids.json")["server"] > 0
    assert resident_mb(tmp_path / "pids.json") == {}


async def test_without_a_home_no_memory_is_known() -> None:
    async with Memory(None) as memory:
        pass
    assert memory.peak_mb == {}
