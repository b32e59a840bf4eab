"""Recipes: named hyper-parameters of a training run, read from `recipes/*.yaml`.

In: a name. Out: a frozen Recipe; its digest is part of the job's key, so a changed recipe trains anew.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """How one adapter is trained. Sources: product.md's table; LIFT v4 configs for the two paper recipes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rank: int = Field(gt=0)
    alpha: int = Field(gt=0)
    served_alpha: int = Field(gt=0, description="`alpha` of the adapter; below that of the training: part of the way")
    tasks_per_segment: int = Field(ge=0, description="tasks of the generator kept per segment, at most")
    samples_per_task: float = Field(ge=1, description="generator samples drawn for each task kept, at most")
    filter: bool = Field(True, description="keep only tasks about their segment, with answers that stand there")
    cloze_per_segment: int = Field(ge=0, description="add tasks that blank out a name, number or word")
    quote: bool = Field(description="an answer goes on with the segment that it stands in")
    recite: bool = Field(description="add one task per segment that asks for its text")
    prompt_loss_weight: float = Field(0.0, ge=0, description="of the questions' own words beside the answers' 1")
    epochs: int = Field(gt=0)
    least_steps: int = Field(1, gt=0, description="of a stage; a text of a few sentences gets more epochs for them")
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "linear"]
    tokens_per_step: int = Field(gt=0, description="computed tokens packed into one optimizer step")
    drafts: tuple[str, ...] = Field((), description="recipes at whose ends earlier versions are published, in order")
    seed: int = 0

    @property
    def effort(self) -> int:
        """Examples trained per segment, over all epochs: of two versions the one with more effort answers."""
        return (self.tasks_per_segment + self.cloze_per_segment + self.recite) * self.epochs

    def stages(self) -> tuple[Recipe, ...]:
        """The recipes at whose ends versions are published, in order; this one last."""
        return (*(load_recipes()[draft] for draft in self.drafts), self)

    def digest(self) -> str:
        """12 hex digits over every value of every stage, names included."""
        values = json.dumps([stage.model_dump_json() for stage in self.stages()])
        return hashlib.sha256(values.encode()).hexdigest()[:12]


@cache
def load_recipes() -> dict[str, Recipe]:
    """Every shipped recipe by name."""
    folder = resources.files(__package__) / "recipes"
    found = (yaml.safe_load(f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".yaml"))
    return {values["name"]: Recipe(**values) for values in found}
