"""docker/kuberay.yaml and docker/compose.hosts.yaml, as far as they can be checked without a cluster."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lift_config.settings import Settings
from lift_server.arguments import parser
from lift_server.cli import check_cluster
from lift_server.routes import operate

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).with_name("raycluster.schema.json")
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
Json = dict[str, Any]


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], Json]:
    """By kind and name."""
    found = yaml.safe_load_all((ROOT / "docker" / "kuberay.yaml").read_text("utf-8"))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


@pytest.fixture(scope="module")
def groups(objects: dict[tuple[str, str], Json]) -> dict[str, Json]:
    """The pods' specs: the head's, and each group's."""
    spec = objects["RayCluster", "lift"]["spec"]
    others = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"], **others}


@pytest.fixture(scope="module")
def services() -> dict[str, Json]:
    """As Compose reads them; a variable that must be set becomes the word `secret`."""
    text = (ROOT / "docker" / "compose.hosts.yaml").read_text("utf-8")
    text = VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "secret", text)
    loaded: dict[str, Json] = yaml.safe_load(text)["services"]
    return loaded


def test_the_ray_cluster_fits_kuberays_definition(objects: dict[tuple[str, str], Json], tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(objects["RayCluster", "lift"]))
    assert check("--schemafile", str(SCHEMA), str(path)) == ""
    path.write_text(path.read_text().replace("groupName:", "groupname:"))
    assert "groupname" in check("--schemafile", str(SCHEMA), str(path))


def test_the_compose_file_fits_the_compose_specification() -> None:
    path = ROOT / "docker" / "compose.hosts.yaml"
    assert check("--builtin-schema", "vendor.compose-spec", str(path)) == ""


def check(*arguments: str) -> str:
    """What is wrong."""
    command = [sys.executable, "-m", "check_jsonschema", *arguments]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    return checked.stdout if checked.returncode else ""


def test_what_kuberay_sets_are_settings_that_a_cluster_can_run_with(
    objects: dict[tuple[str, str], Json], groups: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = groups["server"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": "lift"}}, {"secretRef": {"name": "lift"}}]
    given = objects["ConfigMap", "lift"]["data"] | objects["Secret", "lift"]["stringData"]
    for name, value in {**given, **{one["name"]: one["value"] for one in container["env"]}}.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    mode = objects["RayCluster", "lift"]["spec"]["authOptions"]["mode"]
    check_cluster(settings, {"RAY_AUTH_MODE": mode}, is_installed=True)
    hosts = objects["RayCluster", "lift"]["spec"]["workerGroupSpecs"][1]["maxReplicas"]
    assert settings.cluster.together  # an engine and a worker on each host's GPU
    assert settings.cluster.engines_max <= hosts


def test_kubernetes_adds_no_variables_that_settings_would_refuse(groups: dict[str, Json]) -> None:
    assert [spec["enableServiceLinks"] for spec in groups.values()] == [False] * 3  # LIFT_HEAD_SVC_… and the like
    for spec in groups.values():
        (container,) = spec["containers"]
        assert container["image"] == "lift-ray"
        assert spec["securityContext"]["runAsUser"] == 10001  # the image's user, whose the folders are
        assert {one["name"] for one in container.get("volumeMounts", [])} == {
            one["name"] for one in spec.get("volumes", [])
        }


def _volumes(container: Json, spec: Json) -> tuple[list[Json], list[Json]]:
    return container.get("volumeMounts", []), spec.get("volumes", [])


def test_up_runs_in_one_node_on_which_nothing_is_placed(
    objects: dict[tuple[str, str], Json], groups: dict[str, Json]
) -> None:
    (group, _) = objects["RayCluster", "lift"]["spec"]["workerGroupSpecs"]
    assert (group["groupName"], group["maxReplicas"], group["rayStartParams"]["num-cpus"]) == ("server", 1, "0")
    (container,) = groups["server"]["containers"]
    _, _, command = container["args"][0].partition("exec lift-serve ")
    assert parser().parse_args(command.split()).ray == "auto"
    routes = {route.path for route in operate.router.routes}  # type: ignore[attr-defined] # all are plain routes
    probes = {container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"/health"} <= routes
    selector = objects["Service", "lift-server"]["spec"]["selector"]
    assert selector == {"ray.io/cluster": "lift", "ray.io/group": "server"}  # labels that KubeRay gives its pods


def test_what_compose_sets_are_settings_that_a_cluster_can_run_with(
    services: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = services["first"]["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    settings = Settings()
    check_cluster(settings, environment, is_installed=True)
    assert settings.redis_url == "redis://:secret@secret:6379/0"
    assert settings.redis.blobs_url == "redis://:secret@secret:6380/0"
    assert parser().parse_args(services["first"]["command"][2].partition("exec lift-serve ")[2].split()).ray == "auto"
    shared = services["gpu"]["environment"]
    assert shared.items() <= environment.items()
    assert not [name for name in shared if name.startswith("LIFT_")]  # those come with the actors


def test_redis_is_published_on_the_private_address_and_nothing_else(services: dict[str, Json]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"redis-control": ["secret:6379:6379"], "redis-blobs": ["secret:6380:6379"]}
    assert "LIFT_SERVER__HOST" not in services["first"]["environment"]  # loopback, of the host's own network


def test_the_image_is_the_engines_with_ray() -> None:
    engine, image = ((ROOT / "docker" / f"{name}.Dockerfile").read_text("utf-8") for name in ("engine", "ray"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert "ray" in extras
    for line in engine.splitlines():
        if line.startswith(("FROM", "RUN", "COPY", "USER", "WORKDIR")):
            assert line.replace("[gpu]", "[gpu,ray]") in image.splitlines()
