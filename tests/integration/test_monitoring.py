"""Rules, dashboard and provisioning against the collector on a real database: none asks for what is not produced."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import COMMANDS
from config.settings import Settings
from models.database import Database
from models.observability.health import HEARTBEATS
from models.setup.bindings import Timing
from models.types import RunState
from monitor.metrics import PROBLEMS
from tests.factories import make_destination, make_source
from tests.integration.test_metrics import NOW, Scraped
from tests.scrape import Page
from tests.support import Valkey

DEPLOY = Path(__file__).parents[2] / "deploy"
METRIC = re.compile(r"\bcohort_sync_[a-z_]+")


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "cohort-sync.json").read_text())
    return found


def texts() -> Iterator[str]:
    """Everything in which a metric may be named."""
    for rule in rules():
        yield from (rule["expr"], *rule["annotations"].values())
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


@pytest.fixture
def page(sqlite_db: Database, valkey: Valkey) -> Page:
    """A page on which something of everything stands."""
    make_source(sqlite_db)
    make_destination(sqlite_db)
    scraped = Scraped(sqlite_db, valkey.client)
    later = NOW + timedelta(hours=1)
    binding = scraped.binding("one", timing=Timing("0 * * * *", "UTC", later, later))
    scraped.end(scraped.run(binding, RunState.QUEUED))
    scraped.run(binding, RunState.HELD)
    valkey.client.set(f"{HEARTBEATS}host:1", NOW.isoformat())
    return scraped.page()


def test_every_metric_that_is_named_is_produced(page: Page) -> None:
    produced = {sample.name for family in page.families.values() for sample in family.samples}
    named = {name for text in texts() for name in METRIC.findall(text)}
    assert len(named) > 20
    assert named <= produced


def test_what_is_selected_by_exists(page: Page) -> None:
    """Labels and their values: a rule that selects by a typing error never fires."""
    labels: dict[str, set[str]] = {}
    for family in page.families.values():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    for text in texts():
        for name, selection in re.findall(r"\b(cohort_sync_[a-z_]+)\{([^}]*)\}", text):
            for label, values in re.findall(r'(\w+)[!=~]+"([^"]*)"', selection):
                assert label in labels[name], text
                known = set(PROBLEMS) if label == "code" else {state.value for state in RunState}
                assert set(values.split("|")) <= known, text
        for group in re.findall(r"\bby \(([^)]+)\)", text):
            used = set.intersection(*(labels[name] for name in METRIC.findall(text)))
            assert set(group.replace(" ", "").split(",")) <= used, text


def test_every_problem_has_its_alert() -> None:
    judged = {code for rule in rules() for code in re.findall(r"[A-Z]+(?:_[A-Z]+)*", rule["expr"])}
    assert set(PROBLEMS) <= judged


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_happened_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description", "remedy"}
    remedy = rule["annotations"]["remedy"]
    named = set(re.findall(r"`cohort-sync ([a-z]+)", remedy))
    assert named <= set(COMMANDS)
    assert named or "COHORT_SYNC_" in remedy
    variables = set(re.findall(r"COHORT_SYNC_([A-Z_]+)", remedy))
    assert variables <= {name.upper() for name in Settings.model_fields}
    # A label that the expression does not keep is empty in the text.
    used = {label for text in rule["annotations"].values() for label in re.findall(r"\$labels\.(\w+)", text)}
    assert all(f"by ({label})" in rule["expr"] for label in used)


def test_prometheus_scrapes_the_monitor_and_reads_the_rules() -> None:
    document = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert document["rule_files"] == ["alerts.yml"]
    [job] = document["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    host, port = target.split(":")
    assert services[host]["command"] == ["monitor"]
    assert services[host]["environment"]["COHORT_SYNC_MONITOR_PORT"] == port
    assert int(port) == Settings.model_fields["monitor_port"].default
    assert all(f'job="{job["job_name"]}"' in rule["expr"] for rule in rules() if "up{" in rule["expr"])


def test_the_dashboard_can_be_provisioned_anywhere() -> None:
    document = dashboard()
    assert document["uid"] == "cohort-sync"
    assert "id" not in document  # Grafana gives one
    [variable] = document["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        for target in panel.get("targets", []):
            assert (
                target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            )
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y


def test_grafana_is_told_where_both_are() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    [source] = yaml.safe_load((DEPLOY / "grafana" / "datasources.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yml").read_text())["providers"]
    places = {config["target"] for config in services["grafana"]["configs"]}
    assert f"{provider['options']['path']}/cohort-sync.json" in places
