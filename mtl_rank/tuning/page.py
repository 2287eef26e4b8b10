"""The study as one HTML page that opens without a network."""

from itertools import combinations
from pathlib import Path

import altair as alt

from mtl_rank.pages import Figures, Html, element, save_page, table
from mtl_rank.pages.charts import MUTED, ONE, TWO, Spec, finished, horizontal, inline, vertical
from mtl_rank.tuning.front import Point, Tuning

_HEIGHT = 320
_LOSSES = alt.Scale(zero=False)
_COLORS = {"best": TWO, "front": ONE, "beaten": MUTED}
_LEAD = "Losses are normalised: 1 is a constant prediction, lower is better."
_CAPTION = "Dashed: each task trained alone. Right of such a line, or above it, the tasks harm each other."
_BEST = "The least mean of relative changes against training alone, with these weights"


def write_page(path: Path, tuning: Tuning) -> None:
    """Charts of each two tasks' losses, the front as a table, and the command that trains the best point."""
    figures = Figures()
    weights = ", ".join(f"{task} {weight:g}" for task, weight in tuning.prefer.items())
    pairs = list(combinations(tuning.alone, 2))
    drawn = [figures.add(f"{x} and {y}", chart(tuning, x, y), _CAPTION) for x, y in pairs]
    front = [(point, _row(point, tuning)) for point in tuning.front]
    marked = ["best" if point.trial == tuning.best else None for point, _ in front]
    body = Html(
        element("h1", tuning.study)
        + element("p", f"{len(tuning.points)} trainings. {_LEAD}", css="lead")
        + element("div", *drawn, css="charts wide")
        + element("h2", "What nothing beats")
        + element(
            "div", table(list(front[0][1]), [list(row.values()) for _, row in front], marked), css="card"
        )
        + element("h2", f"Best for {weights}")
        + element("p", f"{_BEST}: trial {tuning.best}.", css="note")
        + element("pre", tuning.best_point.command)
    )
    save_page(path, tuning.study, body, figures)


def chart(tuning: Tuning, x: str, y: str) -> Spec:
    """The losses of two tasks. The pointer over a point shows its lambdas."""
    rows = [{_field(name): value for name, value in _row(point, tuning).items()} for point in tuning.points]
    axes = {
        "x": alt.X(field=_field(f"{x} loss"), type="quantitative", title=f"{x} loss", scale=_LOSSES),
        "y": alt.Y(field=_field(f"{y} loss"), type="quantitative", title=f"{y} loss", scale=_LOSSES),
    }
    color = alt.Color("kind:N", scale=alt.Scale(domain=list(_COLORS), range=list(_COLORS.values())))
    tooltips = [
        alt.Tooltip(field=_field(name), type="nominal", title=name) for name in _row(tuning.points[0], tuning)
    ]
    points = alt.Chart(inline(rows)).mark_point(filled=True, size=90, opacity=1)
    unbeaten = alt.Chart(inline([row for row in rows if row["kind"] != "beaten"]))
    return finished(
        unbeaten.mark_line(color=ONE, opacity=0.4).encode(**axes),
        vertical(tuning.alone[x]),
        horizontal(tuning.alone[y]),
        points.encode(**axes, color=color, tooltip=tooltips),
        height=_HEIGHT,
    )


def _row(point: Point, tuning: Tuning) -> dict[str, str | float]:
    kind = "best" if point.trial == tuning.best else "front" if point.on_front else "beaten"
    return {
        "kind": kind,
        "trial": point.trial,
        **{f"lambda {task}": value for task, value in point.lambdas.items()},
        **dict(point.settings),
        **{f"{task} loss": round(value, 5) for task, value in point.losses.items()},
        **{f"{task} AUC": round(value, 5) for task, value in point.auc.items()},
        **{f"{task} against alone": f"{change:+.2%}" for task, change in point.against(tuning.alone).items()},
    }


def _field(name: str) -> str:
    """A column name without what Vega reads as a path into an object."""
    return name.replace(".", "_").replace("[", "(").replace("]", ")")
