"""A dashboard and alert rules as TypeScript, to be checked against Grafana's own types."""

from __future__ import annotations

import json
from typing import Any

_OPTIONS = {
    "timeseries": ("timeseries.Options", "common.GraphFieldConfig"),
    "stat": ("stat.Options", "never"),
    "state-timeline": ("statetimeline.Options", "statetimeline.FieldConfig"),
    "table": ("table.Options", "common.TableFieldOptions"),
}
"""Of each kind of panel: the types of its options and of its field's settings."""

_HEADER = """
import * as alerting from '@grafana/grafana-foundation-sdk/alerting';
import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as statetimeline from '@grafana/grafana-foundation-sdk/statetimeline';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

// What JSON can hold of a type: the values of enumerations instead of their names, and no functions.
type Json<T> = 0 extends (1 & T) ? any
  : T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : number)
  : T extends Array<infer U> ? Json<U>[]
  : T extends object ? { [K in keyof T as K extends '_implementsDataqueryVariant' ? never : K]: Json<T[K]> }
  : T;
// The custom settings have other defaults in Grafana itself, so that none has to be given.
type Field<C> = Omit<Json<dashboard.FieldConfig>, 'custom'> & { custom?: Partial<Json<C>> };
type Panel<O, C> = Omit<Json<dashboard.Panel>, 'targets' | 'options' | 'fieldConfig'> & {
  targets: Json<prometheus.Dataquery>[];
  options: Json<O>;
  fieldConfig: { defaults: Field<C>; overrides: Json<dashboard.FieldConfigSource>['overrides'] };
};
"""


def typescript(board: dict[str, Any], groups: list[dict[str, Any]], notify: dict[str, Any]) -> str:
    """Constants with types; what does not fit is an error of the compiler."""
    lines = [_HEADER]

    def constant(kind: str, value: Any) -> None:
        lines.append(f"export const c{len(lines)}: {kind} = {json.dumps(value)};")

    constant("Omit<Json<dashboard.Dashboard>, 'panels' | 'annotations'>", _without(board, "panels", "annotations"))
    for note in board["annotations"]["list"]:
        # What only Prometheus' annotations have is not in the common type.
        constant("Json<dashboard.AnnotationQuery>", _without(note, "step", "titleFormat"))
    for panel in board["panels"]:
        if panel["type"] == "row":
            constant("Json<dashboard.RowPanel>", panel)
        elif panel["type"] in _OPTIONS:
            options, custom = _OPTIONS[panel["type"]]
            constant(f"Panel<{options}, {custom}>", panel)
        else:
            constant("Json<dashboard.Panel>", panel)
    for group in groups:
        for rule in group["rules"]:
            # In files the folder and the group stand above, and two settings have other names.
            body = _without(rule, "dashboardUid", "panelId", "missing_series_evals_to_resolve")
            body |= {
                "orgID": group["orgId"],
                "folderUID": group["folder"],
                "ruleGroup": group["name"],
                "missingSeriesEvalsToResolve": rule["missing_series_evals_to_resolve"],
            }
            constant("Json<alerting.Rule>", body)
    for point in notify["contactPoints"]:
        for receiver in point["receivers"]:
            constant("Json<alerting.ContactPoint>", receiver | {"name": point["name"]})
    for policy in notify["policies"]:
        constant("Json<alerting.NotificationPolicy>", _without(policy, "orgId"))
    return "\n".join(lines) + "\n"


def _without(mapping: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if k not in names}
