"""A reproduction as lines of text: the report's tables with ours beside, others' figures, and what was assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .report_rows import ANCHORS, ASSUMPTIONS, OURS, PEER, REPORT, TRIVIAL, Published

_TABLES = {
    REPORT: "the report's rows, made again",
    PEER: "a peer on the same recordings",
    OURS: "ours",
    TRIVIAL: "without training",
}
_POINTS = 10
"""Of a curve."""


def reproduction_table(document: dict[str, Any]) -> str:
    """The document of ``reproduce`` for the eyes."""
    lines: list[str] = []
    for name, found in document["sets"].items():
        lines += [*_set(name, found), ""]
    lines += [*_anchors(), "", *_assumptions()]
    return "\n".join(lines)


def _set(name: str, found: dict[str, Any]) -> Iterator[str]:
    data = found["data"]
    ids = ", ".join(data["ids"])
    yield f"{name}: {data['machine']}, {ids}; {data['train']} training clips, {data['test']} test clips"
    # What was published is about the development set.
    is_compared = name == "development"
    rows = found["rows"]
    width = max(len(r["title"]) for r in rows)
    yield ""
    yield "AUC / pAUC (interval of the AUC, 95 % over recordings) over ids " + _ids(rows)
    yield ""
    for table, title in _TABLES.items():
        of_others = is_compared and table in (REPORT, PEER)
        yield from _means(title, [r for r in rows if r["table"] == table], width, of_others)
    yield ""
    yield "by id, AUC / pAUC" + (" (published)" if is_compared else "")
    yield from _per_id(rows, width, is_compared)
    curves = [r for r in rows if r.get("curve")]
    if curves:
        yield ""
        yield "validation: error on clips left out of training (in brackets on crops trained on), over the training"
        yield from _curves(curves, width)


def _ids(rows: Sequence[dict[str, Any]]) -> str:
    first = next((r for r in rows if "mean" in r), None)
    if first is None:
        return "-"
    every = ", ".join(first["per_id"])
    return f"00, 02, 04 | {every}" if first["without_id_06"] else every


def _means(title: str, rows: Sequence[dict[str, Any]], width: int, is_compared: bool) -> Iterator[str]:
    if not rows:
        return
    yield f"  {title}"
    for row in rows:
        if "failed" in row:
            yield f"    {row['title']:<{width}}  {row['failed']}"
            continue
        both = [_area(row["without_id_06"]), _area(row["mean"])] if row["without_id_06"] else [_area(row["mean"])]
        line = f"    {row['title']:<{width}}  {' | '.join(both)}"
        if is_compared and row["published"]:
            three, four = (row["published"][key] for key in ("without_id_06", "mean"))
            stated = [f"{_pair(three)} (00, 02, 04)"] if three else []
            stated += [f"{_pair(four)} (with 06)"] if four else []
            line += f"  published: {', '.join(stated) or 'not known here'}"
        if row.get("collapsed"):
            line += f"  COLLAPSED: {row['collapsed']}"
        yield line


def _per_id(rows: Sequence[dict[str, Any]], width: int, is_compared: bool) -> Iterator[str]:
    done = [r for r in rows if "per_id" in r]
    ids = list(done[0]["per_id"]) if done else []
    yield f"    {'':<{width}}" + "".join(f"  {i:<27}" for i in ids).rstrip()
    for row in done:
        cells = []
        for i in ids:
            stated = row["published"]["per_id"].get(i) if is_compared and row["published"] else None
            own = _pair((row["per_id"][i]["auc"], row["per_id"][i]["pauc"]))
            cells.append(f"{own}{f' ({_pair(stated)})' if stated else ''}")
        yield f"    {row['title']:<{width}}" + "".join(f"  {c:<27}" for c in cells).rstrip()


def _curves(rows: Sequence[dict[str, Any]], width: int) -> Iterator[str]:
    for row in rows:
        curve = row["curve"]
        places = sorted({round(k * (len(curve) - 1) / (_POINTS - 1)) for k in range(_POINTS)})
        shown = "  ".join(f"{curve[k][2]:.3g} ({curve[k][1]:.3g})" for k in places)
        yield f"    {row['title']:<{width}}  {shown}"


def _anchors() -> Iterator[str]:
    yield "published by others for the development set, not made again here: AUC / pAUC"
    width = max(len(name) for name, _ in ANCHORS)
    for name, published in ANCHORS:
        yield f"    {name:<{width}}  {_stated(published)}"


def _stated(published: Published) -> str:
    parts = [f"{_pair(published.mean)} (four ids)"] if published.mean else []
    parts += [f"{_pair(published.without_id_06)} (00, 02, 04)"] if published.without_id_06 else []
    return ", ".join(parts)


def _assumptions() -> Iterator[str]:
    yield "where the report is silent, as far as it is known here, it was read so:"
    width = max(len(name) for name, _ in ASSUMPTIONS)
    for name, reading in ASSUMPTIONS:
        yield f"    {name:<{width}}  {reading}"


def _area(areas: dict[str, Any]) -> str:
    low, high = areas["auc"]["interval"]
    return f"{areas['auc']['value']:.3f} / {areas['pauc']['value']:.3f} ({low:.3f}-{high:.3f})"


def _pair(pair: Sequence[float]) -> str:
    return f"{pair[0]:.3f} / {pair[1]:.3f}"
