"""Tasks out of an engine's replies: tolerant parsing, bounded work, stages, an engine that comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lift_config.contract import DEFAULT_OWNER, SynthesisUsage, cache_salt
from lift_config.recipe import Recipe, load_recipes
from lift_config.segment import Segment
from lift_workers.generator import Generator
from lift_workers.jobs import JobFailed
from lift_workers.registry import fixed
from lift_workers.synthesize import STARTS, Synthesis, SyntheticTask

SHIP = Segment(0, "The supply ship Greta Lund arrives every second Thursday and carries fuel.", "They wait for mail.")
TITLE = "Velmora handbook"

# ---- an engine, faked by what it replies ----------------------------------------------------------------------

Reply = tuple[int, dict[str, object]]
Handler = Callable[[dict[str, object]], Reply]
Start = Callable[[Handler], Awaitable[tuple["FakeEngine", str]]]


class FakeEngine:
    """vLLM's completions route; `handler` gets the body and gives status and reply. It hangs while `answers` is not
    set; `looks` counts those at its health."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.running = self.most_running = self.requests = self.looks = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def health(self, request: web.Request) -> web.Response:
        self.looks += 1
        await self.answers.wait()
        return web.Response()

    async def completions(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        body = await request.json()
        await self.answers.wait()
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
        app.router.add_get("/health", engine.health)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return engine, str(server.make_url("")).rstrip("/")

    yield begin
    for server in servers:
        await server.close()


USAGE = {"prompt_tokens": 300, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 256}}


def text(question: str, answer: str = "Greta Lund", score: float = -0.1) -> Callable[[dict[str, object]], Reply]:
    """An engine that goes on with `question`, and answers `answer` to whatever is asked."""

    def handler(body: dict[str, object]) -> Reply:
        said = answer if body["temperature"] == 0 else question
        logprobs = {"token_logprobs": [score, score]} if "logprobs" in body else None
        return 200, {"choices": [{"text": said, "logprobs": logprobs}], "usage": USAGE}

    return handler


def recipe(**changes: object) -> Recipe:
    """Bare answers, where a test does not want the segment behind them."""
    return load_recipes()["fast"].model_copy(update={"quote": False, **changes})


def of(segments: list[Segment], generator: Generator, owner: str = DEFAULT_OWNER) -> Synthesis:
    return Synthesis(segments, generator, owner=owner, title=TITLE, seed=0)


async def tasks_of(url: str, segments: list[Segment], recipe: Recipe, concurrency: int = 4) -> list[SyntheticTask]:
    done: list[int] = []
    async with Generator(fixed([url]), "", "base", concurrency) as generator:
        tasks = [task async for task in of(segments, generator).tasks(recipe, done.append)]
    assert sorted(done) == [one.number for one in segments]
    return tasks


async def test_bad_replies_cost_only_themselves(start: Start) -> None:
    def handler(body: dict[str, object]) -> Reply:
        good = body["temperature"] == 0 or str(body["prompt"]).endswith(" Who")
        return text(" brings fuel with the supply ship?" if good else "###{]\x00")(body)

    _, url = await start(handler)
    tasks = await tasks_of(url, [SHIP], recipe(tasks_per_segment=3, samples_per_task=4))
    assert tasks == [SyntheticTask(0, "Who brings fuel with the supply ship?", "Greta Lund")]


async def test_an_answer_goes_on_with_its_segment_where_the_recipe_quotes(start: Start) -> None:
    """And counts as the same answer without it, for all stages."""
    _, url = await start(text(" brings fuel with the supply ship?"))
    async with Generator(fixed([url]), "", "base", 4) as generator:
        synthesis = of([SHIP], generator)
        first = [task async for task in synthesis.tasks(recipe(quote=True), lambda _: None)]
        again = [task async for task in synthesis.tasks(recipe(quote=True), lambda _: None)]
    assert [task.answer for task in first] == [f"Greta Lund. {SHIP.text}"]
    assert again == []


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


async def test_without_filters_all_that_is_written_is_trained(start: Start) -> None:
    """As LIFT's authors do: three questions of one answer beside each other, and an answer that nobody supports."""
    _, url = await start(text(" is the capital of France?", "Paris", -3.0))
    wanted = recipe(filter=False, tasks_per_segment=5, samples_per_task=1)
    assert await tasks_of(url, [SHIP], wanted.model_copy(update={"filter": True})) == []
    tasks = await tasks_of(url, [SHIP], wanted)
    assert [task.question for task in tasks] == [f"{start} is the capital of France?" for start in STARTS[:5]]
    assert {task.answer for task in tasks} == {"Paris"}


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
    async with Generator(fixed([url]), "", "base", 2) as generator:
        tasks = of(many, generator).tasks(recipe(samples_per_task=1), lambda _: None)
        await anext(tasks)
        assert engine.requests < 20
        await tasks.aclose()  # type: ignore[attr-defined] # an AsyncGenerator, promised as an AsyncIterator


async def test_each_owner_has_the_engines_prefix_cache_to_itself(start: Start) -> None:
    """Else the usage would tell that somebody else's document has the same text."""
    salts: list[object] = []

    def handler(body: dict[str, object]) -> Reply:
        salts.append(body.get("cache_salt"))
        return text(" is the supply ship called?")(body)

    _, url = await start(handler)
    seen = {}
    async with Generator(fixed([url]), "", "base", 4) as generator:
        for owner in ("owner_a", "owner_b", DEFAULT_OWNER):
            salts.clear()
            assert [task async for task in of([SHIP], generator, owner).tasks(recipe(), lambda _: None)]
            seen[owner] = set(salts)
    assert seen == {owner: {cache_salt(owner)} for owner in seen}
    assert len(set.union(*seen.values())) == 3


async def test_an_engine_that_refuses_all_is_waited_for_as_for_a_rollout(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it ends the attempt only, so that the document can become a dead letter."""
    monkeypatch.setattr("lift_workers.generator.RETRY_S", 0.0)
    wrong: list[Reply] = [(401, {}), (404, {})]
    engine, url = await start(lambda body: wrong.pop() if wrong else text("nothing")(body))
    await tasks_of(url, [SHIP], recipe(samples_per_task=1))
    assert engine.requests == 3
    _, url = await start(lambda body: (404, {"error": {"message": "no such model"}}))
    with pytest.raises(JobFailed, match="no such model") as failed:
        await tasks_of(url, [SHIP], recipe(samples_per_task=1))
    assert (failed.value.failure.code, failed.value.retry) == ("engine_refused", True)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_wrong_engine_among_good_ones_fails_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("lift_workers.generator.RETRY_S", 1e6)
    wrong, wrong_url = await start(lambda body: (status, {}))
    engine, url = await start(text("nothing"))
    async with Generator(fixed([wrong_url, url]), "", "base", 4) as generator:
        for seed in range(3):
            await generator.question("Who", seed, None)
    assert (wrong.requests > 0, engine.requests) == (True, 3)


async def test_a_restarting_engine_is_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_workers.generator.RETRY_S", 0.0)
    broken: list[Reply] = [(503, {}), (503, {})]
    engine, url = await start(lambda body: broken.pop() if broken else text("nothing")(body))
    await tasks_of(url, [SHIP], recipe(samples_per_task=1))
    assert engine.requests == 3
    _, url = await start(lambda body: (503, {}))
    with pytest.raises(JobFailed) as failed:
        await tasks_of(url, [SHIP], recipe(samples_per_task=1))
    assert failed.value.retry is True


async def test_another_engine_takes_over_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_workers.generator.RETRY_S", 1e6)
    broken, broken_url = await start(lambda body: (503, {}))
    engine, url = await start(text("nothing"))
    async with Generator(fixed([broken_url, "http://127.0.0.1:9", url]), "", "base", 4) as generator:
        for seed in range(4):
            await generator.question("Who", seed, None)
    assert (broken.requests, engine.requests) == (3, 4)  # in turn: after one that answered comes the first again


async def test_one_that_hangs_is_passed_over_and_looked_at_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_workers.generator.ANSWER_S", 1.0)
    hanging, hanging_url = await start(text("nothing"))
    hanging.answers.clear()
    engine, url = await start(text("nothing"))
    async with Generator(fixed([url, hanging_url]), "", "base", 4) as generator:
        await generator.question("Who", 0, None)
        assert (hanging.requests, engine.requests) == (1, 1)
        monkeypatch.setattr("lift_workers.generator.ANSWER_S", 1e6)
        hanging.answers.set()
        while hanging.requests == 1:  # its second is over
            await generator.question("Who", 0, None)
        for seed in range(4):
            await generator.question("Who", seed, None)
    assert hanging.requests > 2  # it has answered, so it has its turn again


async def test_one_that_hangs_is_asked_where_there_is_no_other(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_workers.generator.ANSWER_S", 0.2)
    monkeypatch.setattr("lift_workers.generator.RETRY_S", 0.0)
    engine, url = await start(text("nothing"))
    engine.answers.clear()
    async with Generator(fixed([url]), "", "base", 4) as generator:
        asking = asyncio.create_task(generator.question("Who", 0, None))
        while engine.requests < 2:
            await asyncio.sleep(0)
        monkeypatch.setattr("lift_workers.generator.ANSWER_S", 1e6)
        engine.answers.set()
        assert await asking


async def test_an_engine_is_up_though_another_hangs(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_workers.generator.HEALTH_S", 1e6)
    hanging, hanging_url = await start(text("nothing"))
    hanging.answers.clear()
    _, url = await start(text("nothing"))
    async with Generator(fixed([hanging_url, "http://127.0.0.1:9", url]), "", "base", 4) as generator:
        await generator.until_up()
    hanging.answers.set()


async def test_an_engine_that_hangs_is_up_when_it_answers(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lift_workers.generator.HEALTH_S", 0.1)
    monkeypatch.setattr("lift_workers.generator.POLL_S", 0.0)
    engine, url = await start(text("nothing"))
    engine.answers.clear()
    async with Generator(fixed([url]), "", "base", 4) as generator:
        up = asyncio.create_task(generator.until_up())
        while engine.looks < 2:  # it was asked again, so the first look has ended
            await asyncio.sleep(0)
        assert not up.done()
        engine.answers.set()
        await up


# ---- stages ---------------------------------------------------------------------------------------------------


def numbered(body: dict[str, object]) -> Reply:
    """Every question another one, by its seed."""
    return text(f" is the supply ship called {body.get('seed')}?")(body)


async def stage(synthesis: Synthesis, recipe: Recipe) -> list[SyntheticTask]:
    return [task async for task in synthesis.tasks(recipe, lambda _: None)]


async def test_a_later_stage_asks_only_for_what_is_missing(start: Start) -> None:
    seeds: list[object] = []

    def handler(body: dict[str, object]) -> Reply:
        seeds.extend([body["seed"]] if "seed" in body else [])
        return numbered(body)

    engine, url = await start(handler)
    async with Generator(fixed([url]), "", "base", 4) as generator:
        synthesis = of([SHIP, Segment(1, SHIP.text, "")], generator)
        draft = await stage(synthesis, recipe(tasks_per_segment=1, samples_per_task=2))
        assert [task.segment for task in sorted(draft, key=lambda task: task.segment)] == [0, 1]
        assert len(seeds) == 4
        asked = engine.requests
        rest = await stage(synthesis, recipe(tasks_per_segment=2, samples_per_task=2))
        assert engine.requests == asked  # the second good question of each segment was there already
        more = await stage(synthesis, recipe(tasks_per_segment=3, samples_per_task=2))
    assert (len(rest), len(more)) == (2, 2)
    assert len({*draft, *rest, *more}) == 6
    assert len(set(seeds)) == len(seeds) == 12  # six samples a segment, three tasks of two: the budget of all stages


async def test_no_stage_spends_what_an_earlier_one_has_spent(start: Start) -> None:
    engine, url = await start(text("nothing"))
    async with Generator(fixed([url]), "", "base", 4) as generator:
        synthesis = of([SHIP], generator)
        for tasks, samples in ((1, 2), (1, 2), (4, 5), (2, 5)):
            assert await stage(synthesis, recipe(tasks_per_segment=tasks, samples_per_task=samples)) == []
    assert engine.requests == 20


async def test_a_segment_left_half_way_is_begun_again_and_finished_ones_are_kept(start: Start) -> None:
    first = asyncio.Event()

    def handler(body: dict[str, object]) -> Reply:
        if not first.is_set():
            return numbered(body)
        blocked.cancel()  # in the middle of the second segment
        return text("nothing")(body)

    engine, url = await start(handler)
    one_each = recipe(tasks_per_segment=1, samples_per_task=1)
    async with Generator(fixed([url]), "", "base", 1) as generator:
        synthesis = of([SHIP, Segment(1, SHIP.text, "")], generator)
        kept = []

        async def until_cancelled() -> None:
            async for task in synthesis.tasks(one_each, lambda _: None):
                kept.append(task)
                first.set()

        blocked = asyncio.ensure_future(until_cancelled())
        await asyncio.wait([blocked])
        assert blocked.cancelled()
        assert [task.segment for task in kept] == [0]
        engine.handler = numbered
        asked = engine.requests
        assert [task.segment for task in await stage(synthesis, one_each)] == [1]
        assert engine.requests == asked + 2  # a question and its answer


async def test_tasks_not_taken_are_given_next_time(start: Start) -> None:
    engine, url = await start(numbered)
    async with Generator(fixed([url]), "", "base", 4) as generator:
        synthesis = of([SHIP], generator)
        tasks = synthesis.tasks(recipe(tasks_per_segment=3, samples_per_task=2), lambda _: None)
        taken = [await anext(tasks)]
        await tasks.aclose()  # type: ignore[attr-defined] # as above
        asked = engine.requests
        taken += await stage(synthesis, recipe(tasks_per_segment=3, samples_per_task=2))
    assert (len(taken), len(set(taken)), engine.requests) == (3, 3, asked)


async def test_an_answer_given_in_an_earlier_stage_counts(start: Start) -> None:
    def handler(body: dict[str, object]) -> Reply:
        fuel = "number 5" in str(body["prompt"])
        return text(f" is the supply ship's number {body.get('seed')}?", "fuel" if fuel else "Greta Lund")(body)

    _, url = await start(handler)
    ship = Segment(0, f"{SHIP.text} Its number: 0 1 2 3 4 5.", "")
    async with Generator(fixed([url]), "", "base", 4) as generator:
        synthesis = of([ship], generator)
        assert [task.answer for task in await stage(synthesis, recipe(samples_per_task=1))] == ["Greta Lund"]
        later = await stage(synthesis, recipe(tasks_per_segment=2, samples_per_task=3))
    assert [task.answer for task in later] == ["fuel"]


async def test_usage_grows_with_every_reply(start: Start) -> None:
    engine, url = await start(numbered)
    async with Generator(fixed([url]), "", "base", 4) as generator:
        synthesis = of([SHIP], generator)
        await stage(synthesis, recipe(samples_per_task=1))
        assert synthesis.usage == SynthesisUsage(2, 600, 88, 14)
        engine.handler = lambda body: (400, {"error": {"message": "too long"}})
        await stage(synthesis, recipe(tasks_per_segment=2, samples_per_task=2))
        assert synthesis.usage.requests == 2  # a refusal computes nothing
