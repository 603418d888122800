"""Make the dashboard, dashboards/edge_asd.json: the fleet, each machine, delivery, computers.

python deploy/grafana/make_dashboard.py            writes it
python deploy/grafana/make_dashboard.py --check    says whether it is up to date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from delivery_panels import computers, delivery
from machine_panels import fleet, machine
from made_file import write_or_check
from panels import DAEMON, DATASOURCE, MACHINE, RED, Board, Json

OUT = Path(__file__).parent / "dashboards" / "edge_asd.json"
UID = "edge_asd"


def _variable(name: str, label: str, query: str) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> Json:
    """The whole model."""
    board = Board()
    for section in (fleet, machine, delivery, computers):
        section(board)
    source = {"text": "Prometheus", "value": "edge_asd_prometheus"}
    return {
        "uid": UID,
        "title": "edge_asd",
        "description": "Machines that are listened to: what they sound like, and whether alerts would arrive.",
        "tags": ["edge_asd"],
        "timezone": "browser",
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "schemaVersion": 41,
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Data", "query": "prometheus", "current": source},
                _variable("site", "Site", "label_values(edge_asd_build_info, site)"),
                _variable("node", "Node", 'label_values(edge_asd_build_info{site=~"$site"}, node)'),
                _variable(
                    "instance", "Daemon", 'label_values(edge_asd_build_info{site=~"$site",node=~"$node"}, instance)'
                ),
                _variable(
                    "machine", "Machine", f"label_values(edge_asd_machine_rarity_threshold{{{DAEMON}}}, machine)"
                ),
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Incidents",
                    "enable": True,
                    "iconColor": RED,
                    "datasource": DATASOURCE,
                    "expr": f'edge_asd_condition{{condition="anomalous",{MACHINE}}} == 1',
                    "step": "30s",
                    "titleFormat": "{{machine}} is anomalous",
                }
            ]
        },
        "links": [
            {
                "type": "link",
                "title": "Alerts",
                "icon": "bell",
                "tooltip": "All alert rules and what they say",
                "url": "/alerting/list",
                "tags": [],
                "asDropdown": False,
                "targetBlank": False,
                "includeVars": False,
                "keepTime": False,
            }
        ],
        "panels": board.panels,
    }


if __name__ == "__main__":
    sys.exit(write_or_check(OUT, json.dumps(dashboard(), indent=1) + "\n"))
