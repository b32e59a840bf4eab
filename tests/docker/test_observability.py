"""Prometheus's rules and Grafana's dashboard against the metrics there are, and against the compose file."""

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.lift_server.facts import published_job, refined_job

from lift_config.contract import AdapterState, Status
from lift_config.phases import Phase, Timeline
from lift_config.settings import SloSettings
from lift_server.engine import CHAT_ROUTE
from lift_server.metrics import STREAMS, Metrics, Objective, Queues

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
RULES = yaml.safe_load((DOCKER / "prometheus" / "rules.yaml").read_text("utf-8"))
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "lift-serve.json").read_text("utf-8"))
SCRAPES = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text("utf-8"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
ERRORS = (ROOT / "README.md").read_text("utf-8").split("\n## Errors\n")[1].split("\n## ")[0]
ERROR_CODES = re.findall(r"`([a-z]+_[a-z_]+)`", ERRORS)
NAME = re.compile(r"\b(lift_\w+|lift:\w+(?::\w+)*|vllm:\w+|up)\b")
SELECTOR = re.compile(r"\b(lift_\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)=(~?)"([^"]*)"')


def expressions() -> Iterator[str]:
    for group in RULES["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])


@pytest.fixture(scope="module")
def series() -> dict[str, list[dict[str, str]]]:
    """Every series of a server that has seen a bit of everything, by name."""
    metrics = Metrics(SloSettings())
    job = published_job()
    metrics.published(job, job.adapters[0])
    job = refined_job()
    metrics.published(job, job.adapters[1])
    asked = Timeline(dict.fromkeys((Phase.ACCEPT, Phase.WAIT, Phase.LOAD, Phase.FIT, Phase.PREFILL), (0.0, 1.0)))
    for state in AdapterState:
        metrics.answered(0.1, asked, model="m", endpoint=CHAT_ROUTE, state=state, stream=True)
    for outcome in ERROR_CODES:
        metrics.ended(outcome, endpoint=CHAT_ROUTE)
    for objective in Objective:
        metrics.promised(objective, 0.1, is_answered=True, is_our_fault=False)
    metrics.counted(Counter({Status.READY: 1}), workers=1)
    page = metrics.page(Queues(dict.fromkeys(STREAMS, 1), dict.fromkeys(STREAMS, 0), 0, 0.0)).decode()
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_every_metric_of_rules_and_dashboard_exists(series: dict[str, list[dict[str, str]]]) -> None:
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    named = {name for expression in expressions() for name in NAME.findall(expression)}
    assert {"lift_slo_total", "lift:slo_misses:ratio_rate5m", "vllm:num_requests_waiting", "up"} <= named
    ours = {name for name in named if not name.startswith("vllm:")}
    assert ours - set(series) - recorded == {"up"}


def test_every_series_that_is_selected_exists(series: dict[str, list[dict[str, str]]]) -> None:
    """Each value of each matcher, one by one: an alert on a label that is never set never comes."""
    selectors = [found for expression in expressions() for found in SELECTOR.findall(expression)]
    assert selectors
    for name, matchers in selectors:
        for label, is_pattern, value in MATCHER.findall(matchers):
            present = {labels[label] for labels in series[name]}
            for wanted in value.split("|") if is_pattern else [re.escape(value)]:
                assert any(re.fullmatch(wanted, given) for given in present), (name, label, wanted)


def test_vllm_has_the_metrics_that_are_named() -> None:
    """By its source: its own page would need a running engine. Counters get `_total` when they are shown."""
    spec = importlib.util.find_spec("vllm")
    assert spec
    assert spec.origin
    source = (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text("utf-8")
    texts = [*expressions(), (DOCKER / "prometheus" / "prometheus.yaml").read_text("utf-8")]
    named = {name for text in texts for name in NAME.findall(text) if name.startswith("vllm:")}
    assert named
    assert {name for name in named if f'"{name.removesuffix("_total")}"' not in source} == set()


def test_alerts_name_jobs_that_are_scraped() -> None:
    jobs = {scrape["job_name"] for scrape in SCRAPES["scrape_configs"]}
    named = {found[1] for text in expressions() for found in re.finditer(r'up\{job="([^"]+)"\}', text)}
    assert named == jobs == {"lift-server", "lift-engine"}


def test_what_is_scraped_is_a_service_at_its_port() -> None:
    targets = [
        target for scrape in SCRAPES["scrape_configs"] for one in scrape["static_configs"] for target in one["targets"]
    ]
    assert {target.split(":")[0] for target in targets} <= set(COMPOSE["services"])
    assert targets == ["server:8000", "engine:8100"]
    keys = [
        scrape["authorization"]["credentials_file"] for scrape in SCRAPES["scrape_configs"] if "authorization" in scrape
    ]
    assert keys == [config["target"] for config in COMPOSE["services"]["prometheus"]["configs"]]


def test_what_the_profile_mounts_exists_and_all_of_it_is_in_the_profile() -> None:
    profile = {name: service for name, service in COMPOSE["services"].items() if "profiles" in service}
    assert set(profile) == {"prometheus", "grafana", "jaeger"}
    assert all(service["profiles"] == ["observability"] for service in profile.values())
    assert all(re.search(r":v?\d+\.\d+\.\d+$", service["image"]) for service in profile.values())
    mounted = [volume.split(":")[0] for service in profile.values() for volume in service.get("volumes", [])]
    folders = [path for path in mounted if path.startswith("./")]
    assert folders
    assert all((DOCKER / path).is_dir() for path in folders)


def test_the_dashboard_reads_from_the_provisioned_source() -> None:
    sources: dict[str, Any] = yaml.safe_load(
        (DOCKER / "grafana" / "provisioning" / "datasources" / "lift.yaml").read_text("utf-8")
    )
    uids = {source["uid"] for source in sources["datasources"]}
    used = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert used <= uids
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
