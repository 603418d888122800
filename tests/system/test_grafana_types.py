"""The dashboard and the alert rules fit Grafana's own types. Needs npm and its registry."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from parts.grafana_types import typescript

pytestmark = pytest.mark.system

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
PACKAGES = ["@grafana/grafana-foundation-sdk@0.0.21", "typescript@5.9.3"]


@pytest.fixture(scope="module")
def errors_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any], list[dict[str, Any]]], str]:
    """What TypeScript says of a dashboard and of groups of rules."""
    folder = tmp_path_factory.mktemp("types")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *PACKAGES]
    if subprocess.run(install, capture_output=True, timeout=180, check=False).returncode:
        pytest.skip("npm does not reach its registry")
    notify = yaml.safe_load((GRAFANA / "provisioning" / "alerting" / "notify.yaml").read_text())

    def errors(dashboard: dict[str, Any], groups: list[dict[str, Any]]) -> str:
        (folder / "check.ts").write_text(typescript(dashboard, groups, notify))
        command = [
            "node_modules/.bin/tsc",
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--module",
            "nodenext",
            "check.ts",
        ]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout

    return errors


def test_dashboard_and_rules_fit_grafanas_types(
    errors_of: Callable[[dict[str, Any], list[dict[str, Any]]], str],
) -> None:
    dashboard = json.loads((GRAFANA / "dashboards" / "edge_asd.json").read_text())
    groups = yaml.safe_load((GRAFANA / "provisioning" / "alerting" / "rules.yaml").read_text())["groups"]
    assert errors_of(dashboard, groups) == ""

    # And the check itself would see a wrong one.
    wrong = copy.deepcopy(dashboard)
    panel = next(p for p in wrong["panels"] if p["type"] == "timeseries")
    panel["options"]["legend"]["displayMode"] = "lst"
    assert "lst" in errors_of(wrong, groups)
    wrong_groups = copy.deepcopy(groups)
    wrong_groups[0]["rules"][0]["noDataState"] = "Ok"
    assert "Ok" in errors_of(dashboard, wrong_groups)
