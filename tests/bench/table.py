"""The table and the JSON beside it: every row says what was measured, and with what net, crops, steps and cores."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("numpy", "onnxruntime", "torch", "onnx", "librosa")


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    value: float
    unit: str
    net: str = "-"
    crops: int | None = None
    """In a batch."""
    steps: int | None = None
    """Of the latent search."""
    cores: int = 1
    wall: float | None = None
    """The same by the wall clock, where the value is processor time."""
    note: str = ""
    at_most: float | None = None
    at_least: float | None = None
    """What must be reached."""

    @property
    def holds(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    @property
    def limit(self) -> str:
        """In words; empty without one."""
        if self.holds is None:
            return ""
        words = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return f"{words}: {'ok' if self.holds else 'NOT REACHED'}"


@dataclass
class Table:
    """Rows, printed as they come."""

    judged: bool = True
    """Whether the figures mean anything, so that limits apply."""
    rows: list[Row] = field(default_factory=list)

    def section(self, title: str) -> None:
        """Begin a part of the table."""
        heads = ("what", "net", "crops", "steps", "cores", "value", "unit", "wall")
        print(f"\n{title}\n  {_columns(*heads)}", flush=True)

    def add(self, row: Row, *, show: bool = True) -> None:
        """Take a row; those that are not shown stand in the JSON only."""
        self.rows.append(row)
        if show:
            counts = ("-" if n is None else str(n) for n in (row.crops, row.steps, row.cores))
            wall = "" if row.wall is None else _figure(row.wall)
            remark = "; ".join(part for part in (row.limit if self.judged else "", row.note) if part)
            print(f"  {_columns(row.what, row.net, *counts, _figure(row.value), row.unit, wall)}  {remark}", flush=True)

    @property
    def missed(self) -> list[Row]:
        """Rows whose limit is not kept."""
        return [row for row in self.rows if self.judged and row.holds is False]

    def write(self, path: Path, *, seconds: float) -> None:
        """The JSON: date, machine, versions, and every row.

        Args:
            path: of the file.
            seconds: that all took.
        """
        document = {
            "schema": 1,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "judged": self.judged,
            "seconds": round(seconds, 1),
            "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
            "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
            "rows": [asdict(row) | {"holds": row.holds} for row in self.rows],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _columns(what: str, net: str, crops: str, steps: str, cores: str, value: str, unit: str, wall: str) -> str:
    return f"{what:<52} {net:<15} {crops:>5} {steps:>5} {cores:>5} {value:>8} {unit:<11} {wall:>7}"


def _figure(value: float) -> str:
    """Three or four digits that count."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
