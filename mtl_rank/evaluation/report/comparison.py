"""Several runs beside each other, as a page."""

from collections.abc import Iterator
from pathlib import Path

from mtl_rank.evaluation.compare import BETTER, WORSE, Compared, Comparison
from mtl_rank.evaluation.report import charts
from mtl_rank.pages import Figures, Html, dotted, element, save_page, table
from mtl_rank.runs import Run

NAMES = {"auc": "AUC", "gauc": "GAUC", "ne": "NE", "calibration": "calibration", "rmse": "RMSE", "mae": "MAE"}
_CAVEAT = "Intervals are over draws of users, for these trainings: another seed would move them too."
_DRAWN = ("auc", "gauc", "ne", "rmse")


def write_comparison(first: Run, found: Comparison) -> Path:
    """`compare.html` in the folder of the first run; returns its path."""
    figures = Figures()
    title = f"{len(found.runs)} runs on the {found.rows:,} rows of the {found.window} window"
    parts: list[Html] = [
        element("h1", title),
        element("p", f"Differences are from {found.runs[0]}. {_CAVEAT}", css="lead"),
    ]
    if found.notes:
        notes = [element("li", note) for note in found.notes]
        parts.append(element("div", element("h3", "Not quite fair"), element("ul", *notes), css="card flags"))
    if found.settings:
        settings = table(
            ("setting", *found.runs), [(dotted(key), *values) for key, values in found.settings.items()]
        )
        parts.append(element("div", element("h3", "What is different"), settings, css="card"))
    for i, run in enumerate(found.runs[1:]):
        parts.append(element("h2", run))
        parts.append(element("div", *_figures(figures, found, i), css="charts"))
        parts.append(element("div", _table(found, i), css="card"))
    save_page(first.folder / "compare.html", title, Html("\n".join(parts)), figures)
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
    header = ("output", "metric", "verdict", "difference", "95 %", "p", "first run", "this run")
    return table(header, [_row(row, i) for row in found.metrics])


def _row(row: Compared, i: int) -> tuple[object, ...]:
    gap, verdict = row.differences[i], row.verdict(i)
    shown = element("span", verdict or row.note or "", css=verdict if verdict in (BETTER, WORSE) else "lead")
    between = "" if gap is None else f"{gap.low:+.4f} to {gap.high:+.4f}"
    numbers = (None, between, None) if gap is None else (f"{gap.value:+.4f}", between, gap.p_value)
    return (row.output, NAMES[row.metric], shown, *numbers, row.values[0], row.values[i + 1])
