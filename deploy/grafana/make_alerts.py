"""Make Grafana's alert rules, provisioning/alerting/rules.yaml, from Prometheus' edge_asd.rules.yml.

    python deploy/grafana/make_alerts.py            writes them
    python deploy/grafana/make_alerts.py --check    says whether they are up to date

As Grafana's own import does it: whatever the expression gives fires, nothing is normal. What is recorded (``record:``)
stays with Prometheus, which Grafana asks. Each rule leads to the panel that shows what it is about.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from made_file import write_or_check

Json = dict[str, Any]

HERE = Path(__file__).parent
RULES = HERE.parent / "prometheus" / "edge_asd.rules.yml"
DASHBOARD = HERE / "dashboards" / "edge_asd.json"
OUT = HERE / "provisioning" / "alerting" / "rules.yaml"
DATASOURCE = "edge_asd_prometheus"
_QUERIED_SECONDS = 600

PANELS = {
    "EdgeAsdAnomalous": "Rarity",
    "EdgeAsdRarityDrifting": "Rarity",
    "EdgeAsdNotScoring": "Windows",
    "EdgeAsdDeviceLost": "Signal",
    "EdgeAsdDeaf": "Signal",
    "EdgeAsdDeviceFlapping": "Audio device",
    "EdgeAsdSignalSuspect": "Lost and suspect",
    "EdgeAsdAudioLost": "Lost and suspect",
    "EdgeAsdDown": "Answers",
    "EdgeAsdVanished": "Answers",
    "EdgeAsdAbsent": "Answers",
    "EdgeAsdRestarting": "Memory",
    "EdgeAsdReloadFailed": "Answers",
    "EdgeAsdScoringFails": "Windows",
    "EdgeAsdWindowsLate": "Windows",
    "EdgeAsdBudget": "Scoring budget",
    "EdgeAsdClockWrong": "Machines",
    "EdgeAsdBrokerLost": "Broker",
    "EdgeAsdOutboxOld": "Waiting in the outbox",
    "EdgeAsdOutboxDropped": "Messages in the outbox",
    "EdgeAsdOutboxFails": "Messages in the outbox",
    "EdgeAsdBrokerRefuses": "Messages",
    "EdgeAsdNobodyListens": "Messages",
    "EdgeAsdEvidenceSkipped": "Pictures and sound of incidents",
}
"""The panel to look at, by its title; a rule without one is an error."""

_HEADER = "# Made by make_alerts.py from ../../../prometheus/edge_asd.rules.yml: change it there.\n"


def grafana_template(text: str) -> str:
    """An annotation as Grafana understands it.

    Grafana expands ``$name`` in these files as environment variables, in some versions; the templates' fields say the
    same without a dollar.
    """
    text = re.sub(r"\$labels\.(\w+)", r".Labels.\1", text)
    text = re.sub(r"\$value\b", ".Values.A.Value", text)
    if "$" in text:
        raise ValueError(f"a variable that Grafana would take for one of the environment: {text}")
    return text


def grafana_rule(rule: Json, panels: dict[str, int]) -> Json:
    """A rule of Prometheus as one of Grafana."""
    name = rule["alert"]
    return {
        "uid": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(),
        "title": name,
        "condition": "C",
        "data": [
            _query(
                "A",
                DATASOURCE,
                {"expr": rule["expr"].strip(), "instant": True, "range": False, "editorMode": "code"},
            ),
            # 0 and NaN fire as well, if they are given: `up == 0` gives 0.
            _query("B", "__expr__", {"type": "math", "expression": "is_number($A) || is_nan($A) || is_inf($A)"}),
            _query(
                "C",
                "__expr__",
                {
                    "type": "threshold",
                    "expression": "B",
                    "conditions": [{"type": "query", "evaluator": {"type": "gt", "params": [0]}}],
                },
            ),
        ],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": rule.get("for", "0s"),
        "missing_series_evals_to_resolve": 1,
        "dashboardUid": "edge_asd",
        "panelId": panels[PANELS[name]],
        "annotations": {
            "__dashboardUid__": "edge_asd",
            "__panelId__": str(panels[PANELS[name]]),
            **{key: grafana_template(text) for key, text in rule["annotations"].items()},
        },
        "labels": rule["labels"],
        "isPaused": False,
    }


def provisioning() -> Json:
    """The whole file."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    # The first of a title: one of the fleet comes before one of a single machine.
    panels = {p["title"]: p["id"] for p in reversed(dashboard["panels"]) if p["type"] != "row"}
    groups = []
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        alerts = [rule for rule in group["rules"] if "alert" in rule]
        if alerts:
            groups.append(
                {
                    "orgId": 1,
                    "name": group["name"],
                    "folder": "edge_asd",
                    "interval": group["interval"],
                    "rules": [grafana_rule(rule, panels) for rule in alerts],
                }
            )
    return {"apiVersion": 1, "groups": groups}


def _query(letter: str, datasource: str, model: Json) -> Json:
    return {
        "refId": letter,
        "relativeTimeRange": {"from": _QUERIED_SECONDS if datasource != "__expr__" else 0, "to": 0},
        "datasourceUid": datasource,
        "model": {"refId": letter, "intervalMs": 1000, "maxDataPoints": 43200, **model},
    }


if __name__ == "__main__":
    made = yaml.safe_dump(provisioning(), sort_keys=False, default_flow_style=None, width=1000)
    sys.exit(write_or_check(OUT, _HEADER + made))
