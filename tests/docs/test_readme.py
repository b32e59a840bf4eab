"""README.md against the code: its tree, settings, recipes, examples, and error codes."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lift_config.recipe import load_recipes
from lift_config.settings import BUNDLED_MODEL, Settings, SloSettings
from lift_server.arguments import parser
from lift_server.exits import MEANINGS
from lift_server.launcher.examples import python_example, shell_example
from lift_server.metrics import Metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PACKAGES = ("config/lift_config", "server/lift_server", "workers/lift_workers", "workers/lift_engine")
ENTRY = re.compile(r"( *)(\S+)(  +\S.*)?")
CODE = re.compile(r"""(?:code=|JobFailed\(\s*|super\(\).__init__\()"([a-z]+_[a-z_]+)\"""")


def section(title: str) -> str:
    """From a heading of level two to the next."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def tree() -> Iterator[str]:
    """Every path in the tree: two spaces of indentation are a folder's inside."""
    folders: list[str] = []
    for line in section("The tree").split("```")[1].splitlines()[1:]:
        if entry := ENTRY.fullmatch(line):
            folders = folders[: len(entry[1]) // 2]
            yield "/".join([*folders, entry[2].rstrip("/")])
            if entry[2].endswith("/"):
                folders.append(entry[2].rstrip("/"))


def table(text: str) -> dict[str, list[str]]:
    """Rows by their first cell, without backticks."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        default = field.get_default()
        if isinstance(default, BaseModel):
            yield from settings(type(default), f"{prefix}{name}.")
        else:
            yield prefix + name, str(_as_yaml(default)) or '""'


def _as_yaml(default: object) -> object:
    return (
        str(default).lower() if isinstance(default, bool) else list(default) if isinstance(default, tuple) else default
    )


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_tree_names_every_module() -> None:
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert modules - set(tree()) == set()


def test_the_tree_names_every_script_and_test_folder() -> None:
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir() if path.is_file()}
    folders = {f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if any(path.glob("*.py"))}
    assert (scripts | folders) - set(tree()) == set()


def test_all_of_the_tree_exists() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_every_setting_stands_in_its_table_at_its_default() -> None:
    rows = table(section("Settings"))
    assert {path: cells[0].strip("`") for path, cells in rows.items() if path not in ("setting", "---")} == dict(
        settings(Settings)
    )
    assert all(all(cells) for cells in rows.values())


def test_the_recipes_table_has_the_recipes_values() -> None:
    rows = table(section("Recipes"))
    names = rows["recipe"][:-1]
    stated = {
        recipe: dict(zip(names, cells, strict=False)) for recipe, cells in rows.items() if recipe in load_recipes()
    }
    values = {
        name: {field: shown(value) for field, value in recipe.model_dump(exclude={"name", "seed"}).items()}
        for name, recipe in load_recipes().items()
    }
    assert stated == values


def test_every_metric_stands_in_its_table() -> None:
    stated = set(re.findall(r"`(lift_\w+)`", section("Metrics")))
    there = {
        family.name + "_total" * (family.type == "counter") for family in Metrics(SloSettings()).registry.collect()
    }
    assert stated == there


def test_every_command_and_exit_code_stands_in_its_table() -> None:
    rows = table(section("The command line"))
    stated = {name for row in rows for name in re.findall(r"(?:^|`)([a-z][a-z-]+)", row)}
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert set(commands.choices) <= stated
    codes = {int(row): cells[0] for row, cells in rows.items() if row.isdigit()}
    assert {code: meaning.split("; `doctor`")[0] for code, meaning in codes.items()} == MEANINGS


def test_the_examples_are_those_that_are_printed() -> None:
    address = "http://127.0.0.1:8000"
    assert shell_example(address, BUNDLED_MODEL) in README
    assert python_example(address, BUNDLED_MODEL) in README


def test_every_error_code_stands_in_a_table() -> None:
    folders = (ROOT / "server/lift_server", ROOT / "workers/lift_workers")
    codes = {code for folder in folders for path in folder.rglob("*.py") for code in CODE.findall(path.read_text())}
    assert {"document_not_found", "trainer_died", "no_tasks"} <= codes  # the pattern finds them
    assert {code for code in codes if f"`{code}`" not in section("Errors")} == set()
