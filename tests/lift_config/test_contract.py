from typing import Any

import pytest

from lift_config import contract
from lift_config.contract import ADAPTER_ID, adapter_id, job_key
from lift_config.recipe import Recipe, load_recipes

INPUTS: dict[str, Any] = {
    "owner": "default",
    "text": "Text.",
    "title": None,
    "base_model": "org/model",
    "base_revision": "main",
    "recipe": load_recipes()["fast"],
}


class FixedRecipe(Recipe):
    def digest(self) -> str:
        return "0123456789ab"


def test_a_job_key_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A literal: what a running installation has trained must be found again by a new version of this code."""
    monkeypatch.setattr(contract, "PROMPT_VERSION", "1")
    recipe = FixedRecipe(**INPUTS["recipe"].model_dump())
    assert job_key(**INPUTS | {"recipe": recipe, "text": "Tëxt.", "title": "T"}) == "c4c20e2d01a06d42ded54d6243692b6f"


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "other"},
        {"text": "Text. "},
        {"title": ""},
        {"title": "T"},
        {"base_model": "org/other"},
        {"base_revision": "v2"},
        {"recipe": load_recipes()["balanced"]},
        {"recipe": load_recipes()["fast"].model_copy(update={"seed": 1})},
    ],
    ids=str,
)
def test_every_input_changes_the_job_key(change: dict[str, Any]) -> None:
    assert job_key(**INPUTS) == job_key(**INPUTS)
    assert job_key(**INPUTS | change) != job_key(**INPUTS)


def test_a_new_framing_trains_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = job_key(**INPUTS)
    monkeypatch.setattr(contract, "PROMPT_VERSION", "2")
    assert job_key(**INPUTS) != before


def test_text_does_not_run_into_the_title() -> None:
    assert job_key(**INPUTS | {"text": "a", "title": "b"}) != job_key(**INPUTS | {"text": "ab", "title": ""})


def test_an_adapter_id_names_its_inputs_and_its_bytes() -> None:
    key = job_key(**INPUTS)
    one, other = adapter_id(key, "a" * 64), adapter_id(key, "b" * 64)
    assert one == f"{key}-aaaaaaaaaaaa"
    assert one != other
    assert ADAPTER_ID.fullmatch(one)


@pytest.mark.parametrize("bad", ["", "../x", "a" * 32, f"{'a' * 32}-{'b' * 12}\n", f"{'A' * 32}-{'b' * 12}", "a\0"])
def test_what_is_no_adapter_id(bad: str) -> None:
    assert not ADAPTER_ID.fullmatch(bad)
