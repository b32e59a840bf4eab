"""Tasks out of an engine's replies: tolerant parsing, filters, bounded work, an engine that comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from lift_workers.jobs import JobFailed
from lift_workers.segment import Segment
from lift_workers.synthesize import STARTS, Generator, SyntheticTask, is_useful, parse, synthesize

from lift_config.recipe import Recipe, load_recipes

SHIP = Segment(0, "The supply ship Greta Lund arrives every second Thursday and carries fuel.", "They wait for mail.")
TITLE = "Velmora handbook"


@pytest.mark.parametrize(
    ("reply", "question", "answer"),
    [
        ("What is the ship called?\nAnswer: Greta Lund", "What is the ship called?", "Greta Lund"),
        ('Who comes?\n  Answer:  "Greta Lund". \nQuestion: next', "Who comes?", "Greta Lund"),
        ("いつ着きますか？\nAnswer: 木曜日", "いつ着きますか？", "木曜日"),
    ],
)
def test_parse_takes_the_task(reply: str, question: str, answer: str) -> None:
    assert parse(SHIP, reply) == SyntheticTask(0, question, answer)


@pytest.mark.parametrize("reply", ["", "no question mark\nAnswer: x", "What?", "What?\nAnswer:", "What?\nAnswer: .", "\n"])
def test_parse_of_a_useless_reply_is_none(reply: str) -> None:
    assert parse(SHIP, reply) is None


@pytest.mark.parametrize(
    ("question", "answer", "useful"),
    [
        ("What is the name of the supply ship?", "Greta Lund", True),
        ("When does the ship arrive?", "every second Thursday", True),
        ("What is the ship in the Velmora handbook called?", "Greta Lund", True),
        ("Where does the ship go?", "Ostrelle", False),  # not in the segment
        ("When does the Greta Lund arrive?", "Greta Lund", False),  # given away
        ("What is the capital of Poland?", "Greta Lund", False),  # not about the segment
        ("What?", "Greta Lund", False),  # about nothing
        ("What arrives?", "The supply ship Greta Lund arrives every second Thursday and carries fuel", False),
    ],
)
def test_filters(question: str, answer: str, useful: bool) -> None:
    assert is_useful(SyntheticTask(0, question, answer), SHIP, TITLE) is useful


def test_filters_know_scripts_without_spaces() -> None:
    tokyo = Segment(0, "東京は日本の首都です。", "")
    assert is_useful(SyntheticTask(0, "東京は日本の首都です？", "首都"), tokyo, None) is False  # given away
    assert is_useful(SyntheticTask(0, "東京は日本の首都です。何？", "東京は"), tokyo, None) is False


# ---- an engine, faked by what it replies ----------------------------------------------------------------------

Handler = Callable[[dict[str, object]], tuple[int, dict[str, object]]]


class FakeEngine:
    """vLLM's completions route; `handler` gets the body and gives status and reply."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.running = self.most_running = self.requests = 0

    async def completions(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        body = await request.json()
        await asyncio.sleep(0)  # let others in, so that `most_running` can show them
        self.running -= 1
        status, reply = self.handler(body)
        return web.json_response(reply, status=status)


@pytest.fixture
async def start() -> AsyncIterator[Callable[[Handler], object]]:
    servers: list[TestServer] = []

    async def begin(handler: Handler) -> tuple[FakeEngine, str]:
        engine = FakeEngine(handler)
        app = web.Application()
        app.router.add_post("/v1/completions", engine.completions)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return engine, str(server.make_url("")).rstrip("/")

    yield begin
    for server in servers:
        await server.close()


def text(reply: str) -> tuple[int, dict[str, object]]:
    return 200, {"choices": [{"text": reply}]}


def recipe(**changes: object) -> Recipe:
    return load_recipes()["fast"].model_copy(update=changes)


async def tasks_of(url: str, segments: list[Segment], recipe: Recipe, concurrency: int = 4) -> list[SyntheticTask]:
    done: list[int] = []
    async with Generator([url], "", "base", concurrency) as generator:
        tasks = [t async for t in synthesize(segments, recipe, generator, title=TITLE, on_segment=done.append)]
    assert sorted(done) == [one.number for one in segments]
    return tasks


async def test_bad_replies_cost_only_themselves(start: Callable[[Handler], object]) -> None:
    def handler(body: dict[str, object]) -> tuple[int, dict[str, object]]:
        good = str(body["prompt"]).endswith(" Who")
        return text(" brings fuel with the supply ship?\nAnswer: Greta Lund" if good else "###{]\x00")

    _, url = await start(handler)  # type: ignore[misc]
    tasks = await tasks_of(url, [SHIP], recipe(tasks_per_segment=3, samples_per_task=4))
    assert tasks == [SyntheticTask(0, "Who brings fuel with the supply ship?", "Greta Lund")]


async def test_sampling_ends_with_enough_tasks_or_the_budget(start: Callable[[Handler], object]) -> None:
    engine, url = await start(lambda body: text(" is the supply ship called?\nAnswer: Greta Lund"))  # type: ignore[misc]
    await tasks_of(url, [SHIP], recipe(tasks_per_segment=2, samples_per_task=50))
    assert engine.requests == len(STARTS)  # one round was enough
    engine, url = await start(lambda body: text("nothing"))  # type: ignore[misc]
    assert await tasks_of(url, [SHIP], recipe(tasks_per_segment=4, samples_per_task=6)) == []
    assert engine.requests == 24


async def test_samples_in_flight_are_bounded(start: Callable[[Handler], object]) -> None:
    engine, url = await start(lambda body: text("nothing"))  # type: ignore[misc]
    many = [Segment(i, SHIP.text, "") for i in range(30)]
    await tasks_of(url, many, recipe(tasks_per_segment=4, samples_per_task=1), concurrency=3)
    assert 1 < engine.most_running <= 3


async def test_a_refusal_fails_the_job_for_good(start: Callable[[Handler], object]) -> None:
    _, url = await start(lambda body: (400, {"error": {"message": "too long"}}))  # type: ignore[misc]
    with pytest.raises(JobFailed, match="too long") as failed:
        await tasks_of(url, [SHIP], recipe())
    assert failed.value.retry is False


async def test_a_restarting_engine_is_waited_for(
    start: Callable[[Handler], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lift_workers.synthesize.RETRY_S", 0.0)
    replies = iter([(503, {}), (503, {})])
    engine, url = await start(lambda body: next(replies, text("nothing")))  # type: ignore[misc]
    await tasks_of(url, [SHIP], recipe(samples_per_task=1))
    assert engine.requests == 3
    _, url = await start(lambda body: (503, {}))  # type: ignore[misc]
    with pytest.raises(JobFailed) as failed:
        await tasks_of(url, [SHIP], recipe(samples_per_task=1))
    assert failed.value.retry is True
