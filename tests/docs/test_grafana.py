"""The dashboard and the alert rules: their metrics exist, and the rules fire when they should."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fsdm.fleet.metrics import METRICS as OF_PLACERS
from fsdm.monitoring.metrics import METRICS
from tests.support import ran

GRAFANA = Path(__file__).parents[2] / "tools" / "grafana"
LABELS = {metric.name: metric.label for metric in (*METRICS, *OF_PLACERS)}
SERIES = {
    series
    for metric in METRICS
    for series in (
        [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
        if metric.kind == "histogram"
        else [metric.name]
    )
} | {metric.name for metric in OF_PLACERS}
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")

DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
FLEET: dict[str, Any] = json.loads((GRAFANA / "fleet.json").read_text())
ALERTS = ("alerts", "fleet_alerts")  # files, with their tests beside them


def rules_of(file: str) -> list[dict[str, Any]]:
    [group] = yaml.safe_load((GRAFANA / f"{file}.yml").read_text())["groups"]
    return group["rules"]


RULES = [rule for file in ALERTS for rule in rules_of(file)]


def expressions() -> Iterator[str]:
    for panel in (*DASHBOARD["panels"], *FLEET["panels"]):
        for target in panel.get("targets", ()):
            yield target["expr"]
    for rule in RULES:
        yield rule["expr"]


def named(expression: str) -> set[str]:
    return set(re.findall(r"\bfsdm_\w+", re.sub(r'"[^"]*"', '""', expression)))


@pytest.mark.parametrize("expression", list(expressions()))
def test_what_is_asked_for_is_there(expression: str) -> None:
    assert named(expression) <= SERIES
    for name, selector in re.findall(r"\b(fsdm_\w+?)(?:_bucket|_sum|_count)?\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", selector))
        assert labels <= {"instance", LABELS[name]}


def test_metric_that_is_not_there_would_be_found() -> None:
    assert named('rate(fsdm_chunks_total{state="failed"}[5m])') - SERIES == {"fsdm_chunks_total"}
    assert named('up{job="fsdm_x"}') == set()


@pytest.mark.parametrize(("dashboard", "metrics"), [(DASHBOARD, METRICS), (FLEET, OF_PLACERS)], ids=["node", "fleet"])
def test_every_metric_is_on_the_dashboard(dashboard: dict[str, Any], metrics: Any) -> None:
    shown = set().union(*map(named, (target["expr"] for p in dashboard["panels"] for target in p.get("targets", ()))))
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {metric.name for metric in metrics} - asked == set()


@pytest.mark.parametrize("dashboard", [DASHBOARD, FLEET], ids=["node", "fleet"])
def test_panels_are_beside_each_other(dashboard: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


@pytest.mark.parametrize("dashboard", [DASHBOARD, FLEET], ids=["node", "fleet"])
def test_dashboard_is_of_no_one_s_prometheus(dashboard: dict[str, Any]) -> None:
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"] if panel["type"] != "row"} == {"${datasource}"}


def test_each_rule_says_what_is_wrong_and_how_bad_it_is() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]


@pytest.mark.parametrize("file", ALERTS)
def test_each_rule_is_tested_to_fire(file: str) -> None:
    text = (GRAFANA / f"{file}_test.yml").read_text()
    assert [rule["alert"] for rule in rules_of(file) if rule["alert"] not in text] == []


@promtool
def test_promtool_takes_the_rules() -> None:
    done = ran("promtool", "check", "rules", *(GRAFANA / f"{file}.yml" for file in ALERTS))
    assert done.returncode == 0, done.stderr


@promtool
def test_rules_fire_when_they_should_and_else_do_not() -> None:
    done = ran("promtool", "test", "rules", *(f"{file}_test.yml" for file in ALERTS), cwd=GRAFANA)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_rule_that_does_not_fire_would_be_found(tmp_path: Path) -> None:
    rules_text = (GRAFANA / "alerts.yml").read_text()
    assert "fsdm_healthy == 0" in rules_text
    (tmp_path / "alerts.yml").write_text(rules_text.replace("fsdm_healthy == 0", "fsdm_healthy == 2"))
    shutil.copy(GRAFANA / "alerts_test.yml", tmp_path)
    done = ran("promtool", "test", "rules", "alerts_test.yml", cwd=tmp_path)
    assert done.returncode != 0
