from typing import Any

import pytest

from lift_config import contract
from lift_config.contract import ADAPTER_ID, AdapterRecord, JobRecord, Speed, Status, adapter_id, job_key
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


def test_fields_of_a_hash_are_each_one_value() -> None:
    assert contract.from_hash({"a": '"x, y"', "b": "[1, 2]", "c": "null"}) == {"a": "x, y", "b": [1, 2], "c": None}
    assert contract.from_hash({}) == {}
    for spoilt in ("1, 2", "", "[1"):
        with pytest.raises(ValueError, match=r"."):
            contract.from_hash({"a": spoilt, "b": "1"})


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
    monkeypatch.setattr(contract, "PROMPT_VERSION", "of another framing")
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


def version(number: int, recipe: str) -> AdapterRecord:
    return AdapterRecord("a" * 32, number, "org/model", recipe, 16, 1, 0.0)


JOB = JobRecord("k" * 32, "default", None, "org/model", "main", "balanced", 0.0)


def test_the_most_thorough_version_answers_and_of_equals_the_newest() -> None:
    assert JOB.best() is None
    adapters = (version(1, "fast"), version(2, "max"), version(3, "balanced"), version(4, "gone from the recipes"))
    assert JOB.changed(adapters=adapters).best() == adapters[1]
    assert JOB.changed(adapters=(version(1, "fast"), version(2, "fast"))).best() == version(2, "fast")


def test_the_newest_version_of_a_recipe() -> None:
    job = JOB.changed(adapters=(version(1, "fast"), version(2, "balanced"), version(3, "fast")))
    assert job.version_of("fast") == version(3, "fast")
    assert job.version_of("max") is None


@pytest.mark.parametrize(
    ("status", "unfinished"), [(Status.QUEUED, True), (Status.TRAINING, True), (Status.READY, False)]
)
def test_a_record_from_before_versions_is_unfinished_where_it_was_active(status: Status, unfinished: bool) -> None:
    fields = JOB.changed(status=status).to_redis()
    for name in ("unfinished", "synthesis", "traceparent"):
        del fields[name]
    assert JobRecord.from_redis(fields).unfinished is unfinished


def test_a_speed_survives_json() -> None:
    assert Speed.from_json(Speed(1000, 2.5).to_json()) == Speed(1000, 2.5)
