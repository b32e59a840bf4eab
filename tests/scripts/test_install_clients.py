"""scripts/install_clients.py: everything it installs is pinned, and nothing says from where."""

import json
import re
from pathlib import Path

import pytest

from install_clients import ENVIRONMENTS, WANTED, digest

PINNED = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_requirements_are_pinned_and_sorted(name: str) -> None:
    wanted, needed = (WANTED / f"requirements-{name}.txt").read_text("utf-8").strip().split("\n\n")
    lines = [line for line in wanted.splitlines() if not line.startswith("#")]
    for group in (lines, needed.splitlines()):
        assert [line for line in group if not PINNED.fullmatch(line)] == []
        assert [line.partition("==")[0] for line in group] == sorted(line.partition("==")[0] for line in group)
    assert not set(lines) & set(needed.splitlines())


def test_node_packages_are_pinned_with_digests_and_no_place() -> None:
    wanted = json.loads((WANTED / "node" / "package.json").read_text("utf-8"))["dependencies"]
    locked = json.loads((WANTED / "node" / "package-lock.json").read_text("utf-8"))["packages"]
    assert locked.pop("")["dependencies"] == wanted
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [
        name for name, one in locked.items() if "resolved" in one or not one["integrity"].startswith("sha512-")
    ] == []


def test_the_digest_changes_with_what_is_wanted(tmp_path: Path) -> None:
    assert digest() == digest()
    for path in WANTED.glob("requirements-*.txt"):
        (tmp_path / path.name).write_bytes(path.read_bytes() + b"\n")
    (tmp_path / "node").symlink_to(WANTED / "node")
    assert digest(tmp_path) != digest()
