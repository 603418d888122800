"""The names of the metrics: those that a daemon serves, and those that rules and dashboards ask for."""

from __future__ import annotations

import re
from typing import Any

from edge_asd.detector import Detector
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline
from edge_asd.publish.metrics import Metrics

OF_PROMETHEUS = {"up", "ALERTS"}
_NOT_NAMES = {"label_values", "by", "without", "on", "ignoring", "and", "or", "unless", "bool", "offset", "group_left"}


def asked_for(expr: str) -> set[str]:
    """Names of the series in a PromQL expression; those of recording rules, with colons, among them."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^}]*\}", "", bare)  # labels
    bare = re.sub(r"\[[^]]*\]", "", bare)  # ranges
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\boffset\s+\w+", "", bare)
    names = re.findall(r"(?<![\w:$])([a-zA-Z_:][\w:]*)(?![\w:]*\s*\()", bare)
    return {name for name in names if name not in _NOT_NAMES}


def served(detector: Detector) -> set[str]:
    """Names of the samples of a daemon's registry, with one machine and a device."""
    metrics = Metrics()
    pipeline = Pipeline([MachineDetector.of(detector, None)], AlarmSettings(threshold=2.0), hop_seconds=10.0)
    metrics.introduce("rail", pipeline)
    metrics.introduce_device()
    # Gauges that have their first value with the first window.
    for gauge in (metrics.rarity, metrics.level, metrics.last_score):
        gauge.labels("rail").set(1)
    metrics.score.labels("rail", "x").set(1)
    return {sample.name for family in metrics.registry.collect() for sample in family.samples}


def expressions(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """Where and what: every PromQL expression of a dashboard, its annotations and variables."""
    found = [(a["name"], a["expr"]) for a in dashboard["annotations"]["list"]]
    for panel in dashboard["panels"]:
        found += [(f"{panel['title']} {t['refId']}", t["expr"]) for t in panel.get("targets", [])]
    return found
