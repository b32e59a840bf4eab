from itertools import pairwise

import pytest
from pydantic import ValidationError

from lift_config.recipe import Recipe, load_recipes


def test_the_recipes_of_the_product() -> None:
    assert set(load_recipes()) == {"paper", "paper-fast", "sketch", "fast", "light", "balanced", "max"}
    assert all(name == recipe.name for name, recipe in load_recipes().items())


def test_the_papers_recipes_are_the_papers() -> None:
    paper, quick = load_recipes()["paper"], load_recipes()["paper-fast"]
    assert (paper.rank, paper.alpha, paper.tasks_per_segment, paper.epochs) == (128, 256, 10, 5)
    assert (paper.learning_rate, paper.schedule) == (5e-5, "constant")
    assert (quick.rank, quick.alpha, quick.tasks_per_segment, quick.epochs) == (128, 256, 1, 1)
    assert (quick.learning_rate, quick.schedule) == (3e-4, "constant")


def test_no_two_recipes_share_a_digest() -> None:
    digests = {recipe.digest() for recipe in load_recipes().values()}
    assert len(digests) == len(load_recipes())
    assert all(len(digest) == 12 for digest in digests)


@pytest.mark.parametrize("field", [field for field in Recipe.model_fields if field not in ("schedule", "drafts")])
def test_every_value_is_in_the_digest(field: str) -> None:
    recipe = load_recipes()["fast"]
    value = getattr(recipe, field)
    changed = f"{value}2" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1
    assert recipe.model_copy(update={field: changed}).digest() != recipe.digest()


def test_the_drafts_values_are_in_the_digest_too(monkeypatch: pytest.MonkeyPatch) -> None:
    balanced, sketch = load_recipes()["balanced"], load_recipes()["sketch"]
    before = balanced.digest()
    assert balanced.model_copy(update={"drafts": ()}).digest() != before
    monkeypatch.setitem(load_recipes(), "sketch", sketch.model_copy(update={"epochs": 2}))
    assert balanced.digest() != before


def test_stages_end_with_the_recipe_itself() -> None:
    assert [stage.name for stage in load_recipes()["balanced"].stages()] == ["sketch", "light", "balanced"]
    assert [stage.name for stage in load_recipes()["paper"].stages()] == ["paper"]


@pytest.mark.parametrize("recipe", load_recipes().values(), ids=str)
def test_a_draft_has_the_same_adapter_and_less_effort(recipe: Recipe) -> None:
    for draft, later in pairwise(recipe.stages()):
        assert (draft.rank, draft.alpha) == (later.rank, later.alpha)
        assert draft.effort < later.effort


WRONG = [{"rank": 0}, {"tasks_per_segment": -1}, {"epochs": 0}, {"schedule": "cosine"}, {"ranks": 16}]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_recipe_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Recipe(**load_recipes()["fast"].model_dump() | wrong)
