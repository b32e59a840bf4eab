"""The simulated cluster of simulate.py: engines, workers and the questions that come.

In: service times, machines, a demand. Out: seconds to first tokens, warm and cold. Discrete events; no I/O.

Simulated: an engine admits questions in their order while it has room for so many, and for their adapters so many slots
(a question whose adapter has none lets others pass, as vLLM's scheduler does). Its prompt, and before it the adapter
where that is not held, take the engine alone; then every question gets a token a step, which is longer the more are in
it. Workers take documents in the order they came, one at a time. Not simulated: the generator's part of a training,
prompts that differ in length, prefix caches, trainer and engine on one machine. Front ends are a part of `around_s`.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from lift_server.placement import Load

Policy = Callable[[str, Mapping[str, Load], random.Random], str]

NEVER = math.inf


@dataclass(frozen=True)
class Service:
    """Seconds. A question takes `prefill_s` of its engine alone, and `load_s` where that does not hold the adapter; a
    step is `step_s` for one question and `more_s` longer for each further one; `around_s` is the way there and back.
    `training`: for a document's tokens, from its upload to its adapter."""

    prefill_s: float
    around_s: float
    load_s: float
    step_s: float
    more_s: float
    training: tuple[tuple[int, float], ...]

    def step(self, questions: int) -> float:
        return self.step_s + self.more_s * (questions - 1)

    def questions_per_s(self, at_once: int, tokens: int) -> float:
        """What an engine answers at most: its steps full, its adapters held."""
        return 1 / (self.prefill_s + tokens * self.step(at_once) / at_once)

    def train_s(self, tokens: int) -> float:
        """Straight lines between what was measured, the last one's rate beyond."""
        at = bisect_left(self.training, (tokens, -NEVER))
        if at == 0:
            return self.training[0][1]
        if at == len(self.training):
            last, seconds = self.training[-1]
            return seconds * tokens / last
        (before, least_s), (after, most_s) = self.training[at - 1], self.training[at]
        return least_s + (most_s - least_s) * (tokens - before) / (after - before)


@dataclass(frozen=True)
class Machine:
    """What an engine has room for: adapters that answer at once, adapters held, questions at once."""

    slots: int = 32
    room: int = 128
    at_once: int = 32


@dataclass(frozen=True)
class Demand:
    """Questions at random times, `rate` a second on average, about `documents` by Zipf's law. `swing`: how far a wave
    as long as `seconds` goes from that. `flash`: the share of them that goes to one document in the middle fifth."""

    rate: float
    documents: int
    seconds: float
    zipf: float
    tokens: int
    swing: float = 0.0
    flash: float = 0.0

    def questions(self, draw: random.Random) -> Iterator[tuple[float, str]]:
        """When, and about what."""
        weights = list(accumulate(1 / rank**self.zipf for rank in range(1, self.documents + 1)))
        most, at_s = self.rate * (1 + self.swing), 0.0
        while (at_s := at_s + draw.expovariate(most)) < self.seconds:
            if draw.random() * (1 + self.swing) > 1 + self.swing * math.sin(2 * math.pi * at_s / self.seconds):
                continue
            is_hot = 0.4 < at_s / self.seconds < 0.6 and draw.random() < self.flash
            (rank,) = (0,) if is_hot else draw.choices(range(1, self.documents + 1), cum_weights=weights)
            yield at_s, f"document {rank}"


@dataclass
class Question:
    adapter: str
    tokens: int
    asked_s: float
    is_counted: bool
    is_cold: bool


class Cluster:
    """Engines by address, workers. `ask` and `upload_and_ask` now, or `at` a time; then `run`."""

    def __init__(
        self, service: Service, machine: Machine, urls: Sequence[str], *, workers: int = 1, policy: Policy | None = None
    ) -> None:
        self.now_s = 0.0
        self.warm_s: list[float] = []
        self.cold_s: list[float] = []
        self.counted = self.held = 0
        self.service = service
        self.engines = {url: Engine(self, machine) for url in urls}
        self._policy, self._draw = policy, random.Random(0)
        self._free_workers, self._uploads = workers, deque[tuple[str, int, Question]]()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def at(self, at_s: float, what: Callable[..., None], *given: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, what, given))

    def run(self) -> None:
        while self._events:
            self.now_s, _, what, given = heapq.heappop(self._events)
            what(*given)

    def ask(self, document: str, tokens: int, is_counted: bool = True) -> None:
        self._send(Question(document, tokens, self.now_s, is_counted, is_cold=False))

    def upload_and_ask(self, document: str, length: int, answer_tokens: int) -> None:
        """The question waits for the document's adapter."""
        question = Question(document, answer_tokens, self.now_s, is_counted=True, is_cold=True)
        self._uploads.append((document, length, question))
        self._train()

    def first_token(self, question: Question, at_s: float, *, was_held: bool) -> None:
        if question.is_counted:
            self.counted += 1
            self.held += was_held
            (self.cold_s if question.is_cold else self.warm_s).append(at_s - question.asked_s)

    def _train(self) -> None:
        if self._free_workers and self._uploads:
            self._free_workers -= 1
            _, length, question = self._uploads.popleft()
            self.at(self.now_s + self.service.train_s(length), self._trained, question)

    def _trained(self, question: Question) -> None:
        self._free_workers += 1
        self._send(question)
        self._train()

    def _send(self, question: Question) -> None:
        if self._policy is None:
            engine = next(iter(self.engines.values()))
        else:
            loads = {url: Load(engine.in_flight) for url, engine in self.engines.items()}
            engine = self.engines[self._policy(question.adapter, loads, self._draw)]
        engine.take(question)


class Engine:
    """`_done`: tokens that each question has got since the beginning of time, were it there from then on."""

    def __init__(self, cluster: Cluster, machine: Machine) -> None:
        self._cluster, self._machine = cluster, machine
        self._waiting: deque[Question] = deque()
        self._answering: list[tuple[float, int, Question]] = []  # by the count of tokens at which each is through
        self._slots: Counter[str] = Counter()
        self._held: OrderedDict[str, None] = OrderedDict()
        self._done, self._at_s, self._busy_until_s = 0.0, 0.0, 0.0
        self._number = self._plan = 0
        self._is_called = False

    @property
    def in_flight(self) -> int:
        return len(self._waiting) + len(self._answering)

    def take(self, question: Question) -> None:
        """What comes in the same moment is admitted together."""
        self._waiting.append(question)
        if not self._is_called:
            self._is_called = True
            self._cluster.at(self._cluster.now_s, self._go_on)

    def _go_on(self) -> None:
        self._is_called = False
        self._decode()
        while self._answering and self._answering[0][0] <= self._done + 1e-9:
            adapter = heapq.heappop(self._answering)[2].adapter
            self._slots[adapter] -= 1
            self._slots += Counter()  # drops what is 0
        self._admit()
        self._plan += 1
        if self._answering:
            left = max(0.0, self._answering[0][0] - self._done) * self._cluster.service.step(len(self._answering))
            self._cluster.at(max(self._busy_until_s, self._at_s) + left, self._planned, self._plan)

    def _planned(self, plan: int) -> None:
        if plan == self._plan:  # else something came in between, and planned anew
            self._go_on()

    def _decode(self) -> None:
        """Up to now, but for the time that prompts and loads took."""
        began_s, now_s = max(self._at_s, self._busy_until_s), self._cluster.now_s
        if self._answering and now_s > began_s:
            self._done += (now_s - began_s) / self._cluster.service.step(len(self._answering))
        self._at_s = now_s

    def _admit(self) -> None:
        """Those that are admitted together have their prompts in one step, and their first tokens at its end."""
        passed_over: deque[Question] = deque()
        begun: list[tuple[Question, bool]] = []
        while self._waiting and len(self._answering) < self._machine.at_once:
            question = self._waiting.popleft()
            if question.adapter in self._slots or len(self._slots) < self._machine.slots:
                begun.append((question, self._begin(question)))
            else:
                passed_over.append(question)
        self._waiting.extendleft(reversed(passed_over))
        for question, was_held in begun:
            at_s = self._busy_until_s + self._cluster.service.around_s
            self._cluster.first_token(question, at_s, was_held=was_held)

    def _begin(self, question: Question) -> bool:
        """Whether its adapter was held."""
        service, was_held = self._cluster.service, question.adapter in self._held
        self._held[question.adapter] = None
        self._held.move_to_end(question.adapter)
        if len(self._held) > self._machine.room:
            self._held.popitem(last=False)
        work_s = service.prefill_s + (0.0 if was_held else service.load_s)
        self._busy_until_s = max(self._busy_until_s, self._cluster.now_s) + work_s
        self._slots[question.adapter] += 1
        self._number += 1
        heapq.heappush(self._answering, (self._done + question.tokens, self._number, question))
        return was_held
