"""What clients of a run were told, one JSON line each, so that a run that was broken off goes on.

In: facts as they come. Out: the fate of every document, all answers, what was refused, what must not have happened.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

Said = list[tuple[str, float]]  # tokens with their log-probabilities


class Fate(IntEnum):
    """What a client knows of its document. It only ever moves on."""

    KEPT = 0
    CANCELLING = 1  # asked for; the answer may have been lost
    DELETING = 2  # likewise
    DELETED = 3


@dataclass(frozen=True)
class Answered:
    owner: str
    document: str | None  # None: the base model was asked
    adapter: str | None
    said: Said


@dataclass
class Owned:
    """One owner's documents as the clients know them; `texts` by document. `lost`: uploads without an answer."""

    fates: dict[str, Fate] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    lost: int = 0

    def at_least(self, fate: Fate) -> set[str]:
        return {document for document, known in self.fates.items() if known >= fate}

    def below(self, fate: Fate) -> set[str]:
        return self.fates.keys() - self.at_least(fate)


class Journal:
    def __init__(self, path: Path) -> None:
        self.owners: defaultdict[str, Owned] = defaultdict(Owned)
        self.answers: list[Answered] = []
        self.refused: Counter[str] = Counter()
        self.faults: list[dict[str, Any]] = []
        self.violations: list[str] = []
        self.minutes = 0.0  # of all runs that it tells of
        self.count = 0
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                self._take(json.loads(line))
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def close(self) -> None:
        self._file.close()

    def uploaded(self, owner: str, document: str, text: str) -> None:
        self._note("uploaded", owner=owner, document=document, text=text)

    def upload_lost(self, owner: str) -> None:
        self._note("upload_lost", owner=owner)

    def fate(self, owner: str, document: str, fate: Fate) -> None:
        self._note("fate", owner=owner, document=document, fate=int(fate))

    def answered(self, owner: str, document: str | None, adapter: str | None, said: Said) -> None:
        self._note("answered", owner=owner, document=document, adapter=adapter, said=said)

    def refuse(self, why: str) -> None:
        self._note("refused", why=why)

    def fault(self, what: str, ready_after_s: float) -> None:
        self._note("fault", what=what, ready_after_s=round(ready_after_s, 2))

    def violation(self, what: str) -> None:
        self._note("violation", what=what)

    def ran(self, minutes: float) -> None:
        self._note("ran", minutes=round(minutes, 1))

    def _note(self, kind: str, **facts: Any) -> None:
        fact = {"kind": kind, **facts}
        self._take(fact)
        self._file.write(json.dumps(fact) + "\n")

    def _take(self, fact: dict[str, Any]) -> None:
        self.count += 1
        match fact["kind"]:
            case "uploaded" | "upload_lost" | "fate":
                _take_of_owner(self.owners[fact["owner"]], fact)
            case "answered":
                said = [(token, logprob) for token, logprob in fact["said"]]
                self.answers.append(Answered(fact["owner"], fact["document"], fact["adapter"], said))
            case "refused":
                self.refused[fact["why"]] += 1
            case "fault":
                self.faults.append(fact)
            case "ran":
                self.minutes += fact["minutes"]
            case "violation":
                self.violations.append(fact["what"])


def _take_of_owner(owned: Owned, fact: dict[str, Any]) -> None:
    match fact["kind"]:
        case "uploaded":
            owned.fates[fact["document"]] = Fate.KEPT
            owned.texts[fact["document"]] = fact["text"]
        case "upload_lost":
            owned.lost += 1
        case "fate":
            owned.fates[fact["document"]] = max(owned.fates[fact["document"]], Fate(fact["fate"]))
