"""Several runs beside each other, as a page."""

from collections.abc import Iterator
from pathlib import Path

from mtl_rank.evaluation.compare import Compared, Comparison
from mtl_rank.evaluation.report import charts
from mtl_rank.evaluation.report.markup import Figures, Html, element, table
from mtl_rank.evaluation.report.page import CACHE, save_page
from mtl_rank.runs import Run

NAMES = {"auc": "AUC", "gauc": "GAUC", "ne": "NE", "calibration": "calibration", "rmse": "RMSE", "mae": "MAE"}
_DRAWN = ("auc", "gauc", "ne", "rmse")


def write_comparison(first: Run, found: Comparison) -> Path:
    """`compare.html` in the folder of the first run; returns its path."""
    figures = Figures()
    title = f"{len(found.runs)} runs on the {found.rows:,} rows of the {found.window} window"
    parts: list[Html] = [
        element("h1", title),
        element("p", f"Differences are from {found.runs[0]}.", css="lead"),
    ]
    if found.notes:
        notes = [element("li", note) for note in found.notes]
        parts.append(element("div", element("h3", "Not quite fair"), element("ul", *notes), css="card flags"))
    for i, run in enumerate(found.runs[1:]):
        parts.append(element("h2", run))
        parts.append(element("div", *_figures(figures, found, i), css="charts"))
        parts.append(element("div", _table(found, i), css="card"))
    save_page(first.folder / "compare.html", title, Html("\n".join(parts)), figures, first.project / CACHE)
    return first.folder / "compare.html"


def _figures(figures: Figures, found: Comparison, i: int) -> Iterator[Html]:
    for metric in _DRAWN:
        rows = [
            {"output": row.output, "value": gap.value, "low": gap.low, "high": gap.high}
            for row in found.metrics
            if row.metric == metric and (gap := row.differences[i]) is not None
        ]
        if rows:
            side = "right" if metric in ("auc", "gauc") else "left"
            caption = f"Difference with its 95 % interval; {side} of the line is better."
            yield figures.add(NAMES[metric], charts.differences(rows, NAMES[metric]), caption)


def _table(found: Comparison, i: int) -> Html:
    header = ("output", "metric", "first run", "this run", "difference", "95 %", "p", "verdict")
    return table(header, [_row(row, i) for row in found.metrics])


def _row(row: Compared, i: int) -> tuple[object, ...]:
    gap = row.differences[i]
    numbers = (
        (None, "", None) if gap is None else (gap.value, f"{gap.low:+.4f} to {gap.high:+.4f}", gap.p_value)
    )
    return (row.output, NAMES[row.metric], row.values[0], row.values[i + 1], *numbers, row.verdict(i))
