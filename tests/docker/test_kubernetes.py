"""docker/kubernetes.yaml, as far as it can be checked without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lift_config.settings import Settings
from lift_server.routes import operate

ROOT = Path(__file__).parents[2]
ROLES = ("server", "engine", "worker")
Json = dict[str, Any]


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], Json]:
    """By kind and name."""
    found = yaml.safe_load_all((ROOT / "docker" / "kubernetes.yaml").read_text("utf-8"))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def pod(objects: dict[tuple[str, str], Json], role: str) -> Json:
    spec: Json = objects["Deployment", f"lift-{role}"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("role", ROLES)
def test_what_it_sets_are_settings_that_agree(
    objects: dict[tuple[str, str], Json], role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = pod(objects, role)["containers"]
    own = {
        one["name"]: one["value"].replace("$(POD_IP)", "10.0.0.5") for one in container.get("env", []) if "value" in one
    }
    image = {"LIFT_ENGINE__HOST": "0.0.0.0"} if role == "engine" else {}
    given = image | objects["ConfigMap", "lift"]["data"] | objects["Secret", "lift"]["stringData"] | own
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.engine.registered
    assert settings.redis_url
    assert settings.redis.blobs_url
    if role == "engine":
        assert settings.engine_address(0) == "http://10.0.0.5:8100"


@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_started_as_its_image_starts_it(objects: dict[tuple[str, str], Json], role: str) -> None:
    spec = pod(objects, role)
    (container,) = spec["containers"]
    assert "command" not in container  # the image's
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["securityContext"]["runAsUser"] == 10001  # the images' user, whose the folders are
    assert spec["enableServiceLinks"] is False  # else Kubernetes adds LIFT_SERVER_PORT, which Settings refuses
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in spec["volumes"]}


def test_probes_ask_routes_that_there_are(objects: dict[tuple[str, str], Json]) -> None:
    routes = {route.path for route in operate.router.routes}  # type: ignore[attr-defined] # all are plain routes
    (server,) = pod(objects, "server")["containers"]
    assert {server[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")} == {"/health"}
    assert "/health" in routes
    (engine,) = pod(objects, "engine")[
        "containers"
    ]  # vLLM's, the only one that wants no key (lift_engine/endpoints.py)
    assert {engine[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe")} == {"/health"}


def test_only_servers_and_workers_reach_the_engines(objects: dict[tuple[str, str], Json]) -> None:
    policy = objects["NetworkPolicy", "lift-engine"]["spec"]
    assert policy["podSelector"]["matchLabels"] == pod_labels(objects, "engine")
    (rule,) = policy["ingress"]
    allowed = [one["podSelector"]["matchLabels"] for one in rule["from"]]
    assert allowed == [pod_labels(objects, role) for role in ("server", "worker")]
    assert objects["Service", "lift-server"]["spec"]["selector"] == pod_labels(objects, "server")


def pod_labels(objects: dict[tuple[str, str], Json], role: str) -> dict[str, str]:
    labels: dict[str, str] = objects["Deployment", f"lift-{role}"]["spec"]["template"]["metadata"]["labels"]
    return labels
