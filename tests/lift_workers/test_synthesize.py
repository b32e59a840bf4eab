"""Tasks out of an engine's replies: tolerant parsing, filters, bounded work, an engine that comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lift_config.recipe import Recipe, load_recipes
from lift_workers.jobs import JobFailed
from lift_workers.segment import Segment
from lift_workers.synthesize import STARTS, Generator, SyntheticTask, is_grounded, is_supported, synthesize

SHIP = Segment(0, "The supply ship Greta Lund arrives every second Thursday and carries fuel.", "They wait for mail.")
TITLE = "Velmora handbook"


@pytest.mark.parametrize(
    ("question", "grounded"),
    [
        ("What is the name of the supply ship?", True),
        ("When does the ship arrive?", True),
        ("What is the ship in the Velmora handbook called?", True),  # the title counts
        ("What do they wait for?", True),  # so does what stands before
        ("What is the capital of Poland?", False),
        ("What?", False),
    ],
)
def test_a_question_must_be_about_the_segment(question: str, grounded: bool) -> None:
    assert is_grounded(question, SHIP, TITLE) is grounded


@pytest.mark.parametrize(
    ("question", "answer", "score", "supported"),
    [
        ("What is the supply ship called?", "Greta Lund", -0.1, True),
        ("When does it come?", "every second thursday", -0.1, True),
        ("What is the supply ship called?", "Greta Lund", -2.0, False),  # a guess
        ("Where does the ship go?", "Ostrelle", -0.1, False),  # not in the segment
        ("When does the Greta Lund arrive?", "Greta Lund", -0.1, False),  # given away
        ("What?", "", -0.1, False),
        ("What arrives?", "The supply ship Greta Lund arrives every second Thursday and carries fuel", -0.1, False),
    ],
)
def test_an_answer_must_stand_in_the_segment(question: str, answer: str, score: float, supported: bool) -> None:
    assert is_supported(score, SyntheticTask(0, question, answer), SHIP) is supported


def test_filters_know_scripts_without_spaces() -> None:
    tokyo = Segment(0, "東京は日本の首都です。人口は1400万人です。", "")
    assert is_grounded("日本の首都はどこですか？", tokyo, None)
    assert not is_grounded("猫は何を食べますか？", tokyo, None)
    assert is_supported(-0.1, SyntheticTask(0, "日本の首都はどこですか？", "東京"), tokyo)
    assert not is_supported(-0.1, SyntheticTask(0, "東京は何ですか？", "東京"), tokyo)


# ---- an engine, faked by what it replies ----------------------------------------------------------------------

Reply = tuple[int, dict[str, object]]
Handler = Callable[[dict[str, object]], Reply]
Start = Callable[[Handler], Awaitable[tuple["FakeEngine", str]]]


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
async def start() -> AsyncIterator[Start]:
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


def text(question: str, answer: str = "Greta Lund", score: float = -0.1) -> Callable[[dict[str, object]], Reply]:
    """An engine that goes on with `question`, and answers `answer` to whatever is asked."""

    def handler(body: dict[str, object]) -> Reply:
        said = answer if body["temperature"] == 0 else question
        return 200, {"choices": [{"text": said, "logprobs": {"token_logprobs": [score, score]}}]}

    return handler


def recipe(**changes: object) -> Recipe:
    return load_recipes()["fast"].model_copy(update=changes)


async def tasks_of(url: str, segments: list[Segment], recipe: Recipe, concurrency: int = 4) -> list[SyntheticTask]:
    done: list[int] = []
    async with Generator([url], "", "base", concurrency) as generator:
        tasks = [t async for t in synthesize(segments, recipe, generator, title=TITLE, on_segment=done.append)]
    assert sorted(done) == [one.number for one in segments]
    return tasks


async def test_bad_replies_cost_only_themselves(start: Start) -> None:
    def handler(body: dict[str, object]) -> Reply:
        good = body["temperature"] == 0 or str(body["prompt"]).endswith(" Who")
        return text(" brings fuel with the supply ship?" if good else "###{]\x00")(body)

    _, url = await start(handler)
    tasks = await tasks_of(url, [SHIP], recipe(tasks_per_segment=3, samples_per_task=4))
    assert tasks == [SyntheticTask(0, "Who brings fuel with the supply ship?", "Greta Lund")]


async def test_each_answer_gets_a_task_before_any_gets_a_second(start: Start) -> None:
    def handler(body: dict[str, object]) -> Reply:
        prompt = str(body["prompt"])
        if body["temperature"] != 0:
            return text(" brings the fuel to this second ship?")(body)
        sure = "Which" not in prompt.rsplit("Question:", 1)[1]
        return text("", "Greta Lund" if sure else "fuel", -0.1 if sure else -0.9)(body)

    _, url = await start(handler)
    tasks = await tasks_of(url, [SHIP], recipe(tasks_per_segment=2, samples_per_task=5))
    assert [task.answer for task in tasks] == ["Greta Lund", "Greta Lund"]  # "fuel" is given away by its question


async def test_sampling_ends_with_enough_tasks_or_the_budget(start: Start) -> None:
    engine, url = await start(text(" is the supply ship called?"))
    await tasks_of(url, [SHIP], recipe(tasks_per_segment=2, samples_per_task=50))
    assert len(STARTS) < engine.requests <= 2 * len(STARTS)  # one round of questions and their answers was enough
    engine, url = await start(text("nothing"))
    assert await tasks_of(url, [SHIP], recipe(tasks_per_segment=4, samples_per_task=6)) == []
    assert engine.requests == 24


async def test_samples_in_flight_are_bounded(start: Start) -> None:
    engine, url = await start(text("nothing"))
    many = [Segment(i, SHIP.text, "") for i in range(30)]
    await tasks_of(url, many, recipe(tasks_per_segment=4, samples_per_task=1), concurrency=3)
    assert 1 < engine.most_running <= 3


async def test_a_refused_sample_costs_only_itself(start: Start) -> None:
    def handler(body: dict[str, object]) -> Reply:
        too_long = str(body["prompt"]).endswith(" What")
        return (400, {"error": {"message": "too long"}}) if too_long else text(" is the supply ship called?")(body)

    _, url = await start(handler)
    assert await tasks_of(url, [SHIP], recipe(tasks_per_segment=2, samples_per_task=5))


async def test_first_tasks_come_before_the_last_questions(start: Start) -> None:
    engine, url = await start(text(" is the supply ship called?"))
    many = [Segment(i, SHIP.text, "") for i in range(100)]
    async with Generator([url], "", "base", 2) as generator:
        tasks = synthesize(many, recipe(samples_per_task=1), generator, title=TITLE, on_segment=lambda _: None)
        await anext(tasks)
        assert engine.requests < 20
        await tasks.aclose()


async def test_a_wrong_engine_fails_the_job_for_good(start: Start) -> None:
    _, url = await start(lambda body: (404, {"error": {"message": "no such model"}}))
    with pytest.raises(JobFailed, match="no such model") as failed:
        await tasks_of(url, [SHIP], recipe())
    assert failed.value.retry is False


async def test_a_restarting_engine_is_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_workers.synthesize.RETRY_S", 0.0)
    broken: list[Reply] = [(503, {}), (503, {})]
    engine, url = await start(lambda body: broken.pop() if broken else text("nothing")(body))
    await tasks_of(url, [SHIP], recipe(samples_per_task=1))
    assert engine.requests == 3
    _, url = await start(lambda body: (503, {}))
    with pytest.raises(JobFailed) as failed:
        await tasks_of(url, [SHIP], recipe(samples_per_task=1))
    assert failed.value.retry is True
