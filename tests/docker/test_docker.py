"""The compose file and the Dockerfiles, as far as they can be checked without a container runtime."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from lift_config.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
ROLES = ("server", "engine", "worker")
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def check_docker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_docker", ROOT / "scripts" / "check_docker.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """As Compose reads them; a variable that must be set becomes the word `secret`."""
    text = VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "secret", COMPOSE.read_text("utf-8"))
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return loaded


def is_setting(variable: str, model: type[BaseModel] = Settings) -> bool:
    name, _, rest = variable.lower().partition("__")
    field = model.model_fields.get(name)
    if field is None or not rest:
        return field is not None and not rest
    return isinstance(field.default, BaseModel) and is_setting(rest, type(field.default))


def test_the_compose_file_fits_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_only_server_and_dashboard_are_published_and_only_to_their_own_host(
    services: dict[str, dict[str, Any]],
) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"server": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}


@pytest.mark.parametrize("role", ROLES)
def test_what_compose_sets_are_settings_that_agree(
    services: dict[str, dict[str, Any]], role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = services[role]["environment"]
    named = [name.removeprefix("LIFT_") for name in environment if name != "REDIS_URL"]
    assert [name for name in named if not is_setting(name)] == []
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    settings = Settings()
    assert settings.engine_urls == ("http://engine:8100",)
    assert settings.redis_url == "redis://:secret@redis-control:6379/0"
    assert settings.redis.blobs_url == "redis://:secret@redis-blobs:6379/0"
    assert {"engine", "redis-control", "redis-blobs"} <= set(services)


def test_all_three_agree_on_the_same_values(services: dict[str, dict[str, Any]]) -> None:
    assert services["server"]["environment"] == services["engine"]["environment"] == services["worker"]["environment"]


def test_secrets_stand_on_no_command_line(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        shown = json.dumps([service.get("command"), service.get("entrypoint"), service.get("healthcheck")])
        assert "secret" not in shown


def test_the_example_names_every_variable_that_compose_files_read() -> None:
    example = (ROOT / "docker" / ".env.example").read_text("utf-8")
    offered = set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    files = (COMPOSE, COMPOSE.with_name("compose.hosts.yaml"))
    assert offered == {found[1] for file in files for found in VARIABLE.finditer(file.read_text("utf-8"))}
    assert "docker/.env" in (ROOT / ".gitignore").read_text("utf-8").split()


def test_the_two_redis_keep_what_they_should() -> None:
    configs = {name: one["content"] for name, one in yaml.safe_load(COMPOSE.read_text("utf-8"))["configs"].items()}
    assert {"appendonly yes", "maxmemory-policy noeviction"} <= set(configs["redis-control"].splitlines())
    assert {"appendonly no", "maxmemory-policy allkeys-lru"} <= set(configs["redis-blobs"].splitlines())


@pytest.mark.parametrize("role", ROLES)
def test_what_a_dockerfile_names_exists(check_docker: ModuleType, role: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    found = dict.fromkeys(("COPY", "pip", "CMD"), 0)
    for name, value in check_docker.instructions(check_docker.dockerfile(role)):
        if name == "COPY":
            assert all((ROOT / source).exists() for source in value.split()[:-1])
        elif name == "RUN" and value.startswith("pip "):
            assert set(re.findall(r"\.\[(\w+)\]", value)) <= set(extras)
            name = "pip"
        elif name == "CMD":
            assert importlib.util.find_spec(json.loads(value)[2])
        elif name == "ENV":
            assert all(is_setting(variable) for variable in re.findall(r"LIFT_(\w+)=", value))
        found[name] = found.get(name, 0) + 1
    assert all(found[name] for name in ("COPY", "pip", "CMD"))


@pytest.mark.parametrize("role", ROLES)
def test_what_a_dockerfile_copies_reaches_the_builder(check_docker: ModuleType, role: str) -> None:
    kept = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    copied = {
        source
        for name, value in check_docker.instructions(check_docker.dockerfile(role))
        if name == "COPY"
        for source in value.split()[:-1]
    }
    assert copied == set(kept)


def test_instructions_are_read_over_several_lines(check_docker: ModuleType) -> None:
    text = "# a comment\nFROM a\n\nRUN one && \\\n    two\n"
    assert list(check_docker.instructions(text)) == [("FROM", "a"), ("RUN", "one && two")]
