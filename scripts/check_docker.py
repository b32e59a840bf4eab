"""Replays what the Dockerfiles copy and install, in an empty folder with a new virtual environment.

    python scripts/check_docker.py server           # installs, imports, looks for torch
    python scripts/check_docker.py engine worker    # asks pip whether it could: gigabytes, and only for CUDA

In: docker/*.Dockerfile. Out: exit code 0 where every line went through. apt, users and ports are not replayed.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROLES = ("server", "engine", "worker")
RESOLVED_ONLY = ("engine", "worker")
NO_TORCH = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"

Instruction = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("roles", nargs="*", default=["server"], choices=ROLES)
    for role in parser.parse_args().roles:
        with tempfile.TemporaryDirectory() as folder:
            replay(role, Path(folder))
        print(f"{role}: its lines {'resolve' if role in RESOLVED_ONLY else 'work'}")


def replay(role: str, folder: Path) -> None:
    """CalledProcessError where a line fails."""
    app, venv = folder / "app", folder / "venv"
    app.mkdir()
    run(app, sys.executable, "-m", "venv", str(venv))
    python = str(venv / "bin" / "python")
    for name, value in instructions(dockerfile(role)):
        if name == "COPY":
            copy(value, app)
        elif name == "RUN" and value.startswith("pip "):
            extra = ["--dry-run"] if role in RESOLVED_ONLY else []
            run(app, python, "-m", *shlex.split(value), *extra)
        elif name == "CMD" and role not in RESOLVED_ONLY:
            module = re.search(r'"-m", "(\w+)"', value)
            assert module, value
            run(folder, python, "-c", f"import {module[1]}.__main__")
            run(folder, python, "-c", NO_TORCH)


def dockerfile(role: str) -> str:
    return (ROOT / "docker" / f"{role}.Dockerfile").read_text("utf-8")


def instructions(text: str) -> Iterator[Instruction]:
    """Name and arguments; comments left out, continued lines joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\s*\\\n\s*", " ", kept).splitlines():
        if line.strip():
            name, _, value = line.partition(" ")
            yield name, value.strip()


def copy(value: str, app: Path) -> None:
    *sources, target = value.split()
    for source in sources:
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, app / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, app / target)


def run(folder: Path, *command: str) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    main()
