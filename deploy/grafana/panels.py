"""The panels of a Grafana dashboard as JSON, and their places on its grid of 24 columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24

DAEMON = 'site=~"$site",node=~"$node",instance=~"$instance"'
MACHINE = f'{DAEMON},machine=~"$machine"'
"""Labels by which a daemon's and a machine's series are chosen."""

GREEN, YELLOW, RED, BLUE, PURPLE, GREY = "green", "yellow", "red", "blue", "purple", "#808080"


@dataclass(frozen=True)
class Query:
    """One PromQL expression of a panel."""

    expr: str
    legend: str = ""
    instant: bool = False
    table: bool = False


@dataclass
class Board:
    """Panels in the order in which they are read; ``row`` begins a new section."""

    panels: list[Json] = field(default_factory=list)
    _x: int = 0
    _y: int = 0
    _height: int = 0

    def row(self, title: str, repeat: str | None = None) -> None:
        """A section; with ``repeat``, once for each value of that variable."""
        self._break()
        row: Json = {"type": "row", "title": title, "collapsed": False, "panels": []}
        if repeat is not None:
            row["repeat"] = repeat
        self._place(row, COLUMNS, 1)
        self._break()

    def add(self, panel: Json, width: int, height: int = 8) -> None:
        """A panel beside the last one, or below where there is no room."""
        if self._x + width > COLUMNS:
            self._break()
        self._place(panel, width, height)

    def _place(self, panel: Json, width: int, height: int) -> None:
        place = {"x": self._x, "y": self._y, "w": width, "h": height}
        self.panels.append({"id": len(self.panels) + 1, **panel, "gridPos": place})
        self._x += width
        self._height = max(self._height, height)

    def _break(self) -> None:
        self._x, self._y, self._height = 0, self._y + self._height, 0


def steps(*pairs: tuple[float | None, str]) -> Json:
    """Thresholds: each colour holds from its value on; the first has None."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in pairs]}


def values(*triples: tuple[int, str, str]) -> list[Json]:
    """Value mappings: number, text, colour."""
    options = {str(n): {"text": text, "color": colour, "index": i} for i, (n, text, colour) in enumerate(triples)}
    return [{"type": "value", "options": options}]


def time_series(
    title: str, description: str, *queries: Query, unit: str = "short", dashed: tuple[str, ...] = (), **custom: Any
) -> Json:
    """Lines over time. ``dashed``: legends of limits. ``custom``: settings of the lines, and limits of the field."""
    limits: Json = {k: custom.pop(k) for k in ("min", "max", "decimals", "thresholds") if k in custom}
    defaults: Json = {"unit": unit, **limits, "color": {"mode": "palette-classic"}}
    # A gap is a gap: nothing is drawn where nothing was scored or scraped.
    defaults["custom"] = {"lineWidth": 1, "fillOpacity": 0, "showPoints": "auto", "spanNulls": False, **custom}
    if "thresholds" in limits:
        defaults["custom"]["thresholdsStyle"] = {"mode": "dashed"}
    overrides = [
        {
            "matcher": {"id": "byName", "options": legend},
            "properties": [
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
                {"id": "color", "value": {"mode": "fixed", "fixedColor": RED}},
            ],
        }
        for legend in dashed
    ]
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, queries, defaults, options, overrides)


def state_timeline(title: str, description: str, query: Query, mappings: list[Json]) -> Json:
    """A coloured bar for each series."""
    defaults: Json = {
        "mappings": mappings,
        "color": {"mode": "fixed", "fixedColor": GREY},
        "custom": {"fillOpacity": 80, "lineWidth": 0, "spanNulls": False},
    }
    options = {
        "alignValue": "left",
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "auto",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("state-timeline", title, description, (query,), defaults, options)


def stat(title: str, description: str, query: Query, thresholds: Json, unit: str = "short", decimals: int = 0) -> Json:
    """One number on a coloured ground."""
    options = {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "textMode": "value",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    defaults = {"unit": unit, "decimals": decimals, "thresholds": thresholds, "color": {"mode": "thresholds"}}
    return _panel("stat", title, description, (query,), defaults, options)


def table(title: str, description: str, columns: dict[str, Query], labels: dict[str, str], cells: list[Json]) -> Json:
    """Instant values side by side. ``columns``: title and query; ``labels``: label and title; ``cells``: overrides."""
    renamed = {**labels, **{f"Value #{_letter(i)}": title for i, title in enumerate(columns)}}
    order = [*labels, *(f"Value #{_letter(i)}" for i in range(len(columns)))]
    panel = _panel(
        "table",
        title,
        description,
        tuple(columns.values()),
        {"custom": {"align": "auto", "filterable": True, "inspect": False}},
        {"frameIndex": 0, "showHeader": True, "cellHeight": "sm"},
        cells,
    )
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": order}}},
        {"id": "organize", "options": {"indexByName": {n: i for i, n in enumerate(order)}, "renameByName": renamed}},
    ]
    return panel


def cell(column: str, *properties: tuple[str, Any]) -> Json:
    """What holds of one column of a table."""
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": name, "value": value} for name, value in properties],
    }


def alert_list(title: str, description: str) -> Json:
    """Grafana's own alerts that fire or are about to."""
    return {
        "type": "alertlist",
        "title": title,
        "description": description,
        "options": {
            "alertName": "",
            "dashboardAlerts": False,
            "groupBy": [],
            "groupMode": "default",
            "maxItems": 30,
            "sortOrder": 3,
            "viewMode": "list",
            "alertInstanceLabelFilter": "",
            "stateFilter": {"firing": True, "pending": True, "recovering": True, "noData": False, "error": True},
        },
    }


def now(expr: str) -> Query:
    """An instant value, as a column of a table wants it."""
    return Query(expr, instant=True, table=True)


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: tuple[Query, ...],
    defaults: Json,
    options: Json,
    overrides: list[Json] | None = None,
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": [_target(i, q) for i, q in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": overrides or []},
        "options": options,
    }


def _target(number: int, query: Query) -> Json:
    return {
        "refId": _letter(number),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": query.instant,
        "range": not query.instant,
        "format": "table" if query.table else "time_series",
    }


def _letter(number: int) -> str:
    return chr(ord("A") + number)
