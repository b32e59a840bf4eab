"""What goes wrong, and in which order: from a seed and a number of kills, always the same."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "pause", "lose"]

# What is killed, and how often of a hundred kills. `:child` is the process that the part started: the engine's core,
# a worker's trainer.
KILLED = {
    "worker-0": 20,
    "worker-1": 20,
    "worker-0:child": 12,
    "worker-1:child": 12,
    "server": 14,
    "redis": 10,
    "engine-0": 8,
    "engine-0:child": 4,
}
PAUSED = ("worker-0", "worker-1", "worker-0:child", "server", "redis", "engine-0:child")


@dataclass(frozen=True)
class Fault:
    """`pause` is SIGSTOP, and SIGCONT after `seconds`; `lose` is a kill of Redis, which comes back without its data.
    It comes once clients were told `after` more things."""

    kind: Kind
    part: str
    after: int
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.part}"


def plan(seed: int, kills: int) -> list[Fault]:
    """`kills` kills and losses, a tenth at least of an engine and a twentieth with Redis's data; a pause for four."""
    draw = random.Random(seed)
    losses = max(1, kills // 20)
    faults: list[Fault] = [Fault("lose", "redis", draw.randint(4, 12)) for _ in range(losses)]
    parts = _parts(kills - losses)
    faults += [Fault("kill", part, draw.randint(4, 12)) for part in parts]
    faults += [
        Fault("pause", draw.choice(PAUSED), draw.randint(4, 12), round(draw.uniform(1, 10), 1))
        for _ in range(max(1, kills // 4))
    ]
    draw.shuffle(faults)
    return faults


def _parts(count: int) -> list[str]:
    """Each as often as its share says; what rounding leaves over goes to the likeliest."""
    whole = sum(KILLED.values())
    parts = [part for part, share in KILLED.items() for _ in range(round(count * share / whole))]
    likeliest = sorted(KILLED, key=lambda part: -KILLED[part])
    while len(parts) < count:
        parts.append(likeliest[len(parts) % len(likeliest)])
    return parts[:count]
