"""The dashboard and Grafana's alert rules: in step with what they are made from, and complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from parts.metric_names import OF_PROMETHEUS, asked_for, expressions, served

from edge_asd.verification import load_detector

REPOSITORY = Path(__file__).parents[2]
GRAFANA = REPOSITORY / "deploy" / "grafana"
PROVISIONING = GRAFANA / "provisioning"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "edge_asd.json").read_text())
PANELS = [p for p in DASHBOARD["panels"] if p["type"] != "row"]
ALERT_FILE = yaml.safe_load((PROVISIONING / "alerting" / "rules.yaml").read_text())
ALERTS = [rule for group in ALERT_FILE["groups"] for rule in group["rules"]]
PROMETHEUS_RULES = [
    rule
    for group in yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "edge_asd.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("script", ["make_dashboard.py", "make_alerts.py"])
def test_what_is_made_is_in_step(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(GRAFANA / script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_the_dashboard_asks_for_exists() -> None:
    names = served(load_detector(REPOSITORY / "edge_asd" / "demo" / "slide-rail.cae.onnx"))
    recorded = {rule["record"] for rule in PROMETHEUS_RULES if "record" in rule}
    for where, expr in expressions(DASHBOARD):
        asked = asked_for(expr)
        assert asked, where
        assert asked <= names | recorded | OF_PROMETHEUS, where


def test_variables_are_defined() -> None:
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    builtin = {"__rate_interval", "__range", "__all"}
    assert used - builtin == variables


def test_panels_are_explained_and_lie_beside_each_other() -> None:
    assert len({p["id"] for p in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert len(panel["description"]) > 15, panel["title"]
        assert all(t["datasource"]["uid"] == "${datasource}" for t in panel.get("targets", []))


def test_each_machine_has_a_section() -> None:
    (row,) = [p for p in DASHBOARD["panels"] if p["type"] == "row" and "repeat" in p]
    assert row["repeat"] == "machine"
    below = DASHBOARD["panels"][DASHBOARD["panels"].index(row) + 1 :]
    end = next(i for i, p in enumerate(below) if p["type"] == "row")
    section = below[:end]
    assert [p["title"] for p in section][:2] == ["Rarity", "Level"]
    for panel in section:
        assert all('machine=~"$machine"' in target["expr"] for target in panel["targets"]), panel["title"]


def test_alert_rules_say_what_prometheus_says() -> None:
    theirs = {rule["alert"]: rule for rule in PROMETHEUS_RULES if "alert" in rule}
    assert {alert["title"] for alert in ALERTS} == set(theirs)
    for alert in ALERTS:
        rule = theirs[alert["title"]]
        assert alert["data"][0]["model"]["expr"] == rule["expr"].strip()
        assert (alert["for"], alert["labels"]) == (rule.get("for", "0s"), rule["labels"])


def test_alert_rules_are_as_grafana_wants_them() -> None:
    panels = {p["id"] for p in PANELS}
    assert len({alert["uid"] for alert in ALERTS}) == len(ALERTS)
    for group in ALERT_FILE["groups"]:
        seconds = int(group["interval"].removesuffix("s"))
        assert seconds % 10 == 0, "Grafana evaluates every 10 s or a multiple"
    for alert in ALERTS:
        assert re.fullmatch(r"[a-z0-9_]{1,40}", alert["uid"])
        assert alert["dashboardUid"] == DASHBOARD["uid"] and alert["panelId"] in panels
        assert alert["annotations"]["__panelId__"] == str(alert["panelId"])
        assert "$" not in json.dumps(alert["annotations"]), "Grafana would expand it as a variable of the environment"
        assert [q["refId"] for q in alert["data"]] == ["A", "B", "C"] and alert["condition"] == "C"
        assert alert["noDataState"] == "OK"


def test_provisioning_holds_together() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    uids = {source["uid"] for source in sources}
    asked = {q["datasourceUid"] for alert in ALERTS for q in alert["data"]}
    assert asked - uids == {"__expr__"}
    current = next(v for v in DASHBOARD["templating"]["list"] if v["name"] == "datasource")["current"]["value"]
    assert current in uids

    notify = yaml.safe_load((PROVISIONING / "alerting" / "notify.yaml").read_text())
    contacts = {point["name"] for point in notify["contactPoints"]}
    (policy,) = notify["policies"]
    assert policy["receiver"] in contacts
    environment = yaml.safe_load((GRAFANA.parent / "compose.yaml").read_text())["services"]["grafana"]["environment"]
    wanted = set(re.findall(r"\$(\w+)", json.dumps(notify)))
    assert wanted and wanted <= set(environment)
