"""config/lift.yaml names every setting, at its default, and says something about it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from lift_config.settings import Settings

LIFT_YAML = Path(__file__).parents[2] / "config" / "lift.yaml"
SETTING = re.compile(r"#((?:  )?[a-z_]+:.*)")  # a line of prose has one space after its `#`


def uncommented() -> dict[str, Any]:
    lines = [match[1] for line in LIFT_YAML.read_text("utf-8").splitlines() if (match := SETTING.fullmatch(line))]
    values = yaml.safe_load("\n".join(lines))
    assert isinstance(values, dict)
    return values


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """As YAML has them."""
    whole = model.model_construct().model_dump(mode="json")
    return {name: whole[name] for name in model.model_fields}


def test_every_setting_stands_in_the_file_at_its_default() -> None:
    assert uncommented() == defaults(Settings)


def test_the_file_as_it_comes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    without = Settings()
    monkeypatch.setenv("LIFT_CONFIG", str(LIFT_YAML))
    assert Settings() == without


def test_the_file_uncommented_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "lift.yaml"
    path.write_text(yaml.safe_dump({**uncommented(), "recipe": "fast", "server": {"port": 9000}}), "utf-8")
    monkeypatch.setenv("LIFT_CONFIG", str(path))
    settings = Settings()
    assert (settings.recipe, settings.server.port) == ("fast", 9000)
    assert settings.engine == Settings.model_fields["engine"].default
