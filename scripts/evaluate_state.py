"""What is already measured: one JSON line for each finished unit, so that a run goes on where it was broken off.

In: a file and a fingerprint of all that decides the figures. Out: units, found again or appended.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Key = tuple[str, int | None, str]
Fingerprint = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One document in one column. `seed` None where none matters; `spent`: what its adapter cost; `refused`: the
    server's error code where it would not answer."""

    document: str
    seed: int | None
    column: str
    records: list[dict[str, Any]]
    spent: dict[str, float] = field(default_factory=dict)
    refused: str | None = None
    wall_s: float = 0.0

    @property
    def key(self) -> Key:
        return self.document, self.seed, self.column


class OtherRunError(Exception):
    """The file holds another run's units."""


class State:
    """Units on disk. A line that a kill cut in two is dropped and measured again."""

    def __init__(self, path: Path, fingerprint: Fingerprint, *, fresh: bool = False) -> None:
        self._path = path
        self._units: dict[Key, Unit] = {}
        if fresh or not path.exists() or not (lines := _whole_lines(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(fingerprint) + "\n", "utf-8")
            return
        _check(json.loads(lines[0]), json.loads(json.dumps(fingerprint)), path)
        for line in lines[1:]:
            self._keep(Unit(**json.loads(line)))

    @property
    def units(self) -> list[Unit]:
        return list(self._units.values())

    def has(self, key: Key) -> bool:
        return key in self._units

    def add(self, unit: Unit) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(unit), ensure_ascii=False) + "\n")
        self._keep(unit)

    def _keep(self, unit: Unit) -> None:
        self._units[unit.key] = unit


class Progress:
    """A line for each finished unit. What is left is reckoned from what each column took so far."""

    def __init__(self, planned: Sequence[Key], state: State, say: Callable[[str], None]) -> None:
        self._left = [key for key in planned if not state.has(key)]
        self._all, self._say = len(planned), say
        self._took_s: dict[str, list[float]] = defaultdict(list)

    def finished(self, unit: Unit) -> None:
        self._left = [key for key in self._left if key != unit.key]
        self._took_s[unit.column].append(unit.wall_s)
        done = self._all - len(self._left)
        seed = "" if unit.seed is None else f", seed {unit.seed}"
        self._say(
            f"{time.strftime('%H:%M:%S')} {done}/{self._all} {unit.document}{seed}: {unit.column}, "
            f"{unit.wall_s:.1f} s; about {self.left_s() / 60:.0f} min left"
        )

    def left_s(self) -> float:
        means = {column: sum(took) / len(took) for column, took in self._took_s.items()}
        usual_s = sum(means.values()) / len(means)
        return sum(means.get(column, usual_s) for _, _, column in self._left)


def _whole_lines(path: Path) -> list[str]:
    text = path.read_text("utf-8", errors="replace")  # a kill may cut a letter in two as well
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, "utf-8")
    return whole.split("\n")[:-1]


def _check(found: Fingerprint, wanted: Fingerprint, path: Path) -> None:
    if differing := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
        told = "; ".join(f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now" for name in differing)
        raise OtherRunError(f"{path} is of another run ({told}). Give another --out, or --fresh to start over.")
