"""The study as one HTML page that opens without a network."""

import html
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import vl_convert

from mtl_rank.tuning.front import Point, Tuning

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
tr.best { background: #fff3d6 }
pre { background: #f4f4f4; padding: .8rem; white-space: pre-wrap }
"""
_BEST = ' class="best"'


def write_page(path: Path, tuning: Tuning) -> None:
    """Charts of each two tasks' losses, the front as a table, and the command that trains the best point."""
    charts = [chart(tuning, x, y).to_dict() for x, y in combinations(tuning.alone, 2)]
    # "<" would let a value end the script that it stands in.
    specs = json.dumps(charts).replace("<", "\\u003c")
    weights = ", ".join(f"{task} {weight:g}" for task, weight in tuning.prefer.items())
    # Its type lacks the default, under which it is made but once.
    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(tuning.study)}</title>
<style>{_STYLE}</style>
<script>{script}</script></head><body>
<h1>{html.escape(tuning.study)}</h1>
<p>{len(tuning.points)} trainings. Losses are normalised, 1 is a constant prediction, lower is better. The lines are the
losses of each task trained alone: right of them or above, the tasks harm each other.</p>
{"".join(f'<div id="chart{i}"></div>' for i in range(len(charts)))}
<h2>What nothing beats</h2>
{_table(tuning)}
<h2>Best for {html.escape(weights)}</h2>
<p>The least mean of relative changes against training alone, with these weights: trial {tuning.best}.</p>
<pre>{html.escape(tuning.best_point.command)}</pre>
<script>
const charts = {specs};
charts.forEach((spec, i) => vegaEmbed("#chart" + i, spec, {{mode: "vega-lite", actions: false, renderer: "svg"}}));
</script></body></html>
"""
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def chart(tuning: Tuning, x: str, y: str) -> alt.TopLevelMixin:
    """The losses of two tasks. Hovering over a point shows its lambdas."""
    rows = [_row(point, tuning) for point in tuning.points]
    tooltips = [alt.Tooltip(field=_field(name), type="nominal", title=name) for name in rows[0]]
    data = pl.DataFrame([{_field(name): value for name, value in row.items()} for row in rows])
    axes: dict[str, Any] = {
        "x": alt.X(
            field=_field(f"{x} loss"), type="quantitative", title=f"{x} loss", scale=alt.Scale(zero=False)
        ),
        "y": alt.Y(
            field=_field(f"{y} loss"), type="quantitative", title=f"{y} loss", scale=alt.Scale(zero=False)
        ),
    }
    points = (
        alt.Chart(data)
        .mark_point(filled=True, size=90)
        .encode(
            **axes,
            color=alt.Color(
                field="kind",
                type="nominal",
                title=None,
                scale=alt.Scale(domain=["best", "front", "beaten"], range=["#d95f02", "#1b6ca8", "#bbbbbb"]),
            ),
            tooltip=tooltips,
        )
    )
    line = alt.Chart(data).transform_filter("datum.kind != 'beaten'").mark_line(color="#1b6ca8", opacity=0.4)
    alone = pl.DataFrame({"x": tuning.alone[x], "y": tuning.alone[y]})
    dashed = alt.Chart(alone).mark_rule(strokeDash=[4, 4], color="#888888")
    return alt.layer(
        line.encode(**axes),
        dashed.encode(x=alt.X(field="x", type="quantitative")),
        dashed.encode(y=alt.Y(field="y", type="quantitative")),
        points,
    ).properties(width=520, height=360)


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


def _table(tuning: Tuning) -> str:
    rows = [(point, _row(point, tuning)) for point in tuning.front]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0][1])
    body = []
    for point, row in rows:
        cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in row.values())
        body.append(f"<tr{_BEST if point.trial == tuning.best else ''}>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"
