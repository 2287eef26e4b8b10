"""The charts of a report. Colours are names of variables in look.css."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from mtl_rank.evaluation.checks import DRIFT

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

HEIGHT = 210
ONE, TWO, MUTED, GRID, INK = "var(--one)", "var(--two)", "var(--muted)", "var(--grid)", "var(--ink)"
SERIES = [f"var(--{name})" for name in ("one", "two", "three", "four", "five", "six")]
_MOST_BARS = 14

_CONFIG: dict[str, Any] = {
    "background": None,
    "view": {"stroke": None},
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": GRID,
        "domainColor": GRID,
        "tickColor": GRID,
    },
    "legend": {"labelColor": INK, "labelFontSize": 12, "title": None, "orient": "top", "columns": 3},
    "text": {"color": MUTED},
}


_FIFTHS = alt.Axis(tickCount=5, format=".1f")


def by_epoch(rows: Rows, metric: str, best: float | None, reference: float | None) -> Spec:
    """One line per task. rows: epoch, task, value. best: the epoch whose weights were kept."""
    data = _data(rows)
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    lines = (
        alt.Chart(data)
        .mark_line(point=alt.OverlayMarkDef(size=36, filled=True), strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False)),
            color=_by_task(rows),
            tooltip=[alt.Tooltip("task:N"), alt.Tooltip("epoch:Q"), _number("value", metric)],
        )
    )
    layers: list[alt.Chart] = [lines]
    if best is not None:
        kept = _data([{"epoch": best}])
        layers.insert(0, alt.Chart(kept).mark_rule(color=MUTED, strokeDash=[4, 4]).encode(x=x))
    if reference is not None:
        layers.insert(0, _horizontal(reference))
    return _finished(*layers)


def by_step(rows: Rows, title: str) -> Spec:
    """One line per task. rows: step, task, value."""
    lines = (
        alt.Chart(_data(rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False)),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=True)),
            color=_by_task(rows),
            tooltip=[alt.Tooltip("task:N"), alt.Tooltip("step:Q"), _number("value", title)],
        )
    )
    return _finished(lines)


def beside(rows: Rows, attainable: float | None) -> Spec:
    """A dot per model with its interval. rows: model, auc, low, high, own (whether it is the run)."""
    data = _data(rows)
    names = [row["model"] for row in rows]
    y = alt.Y("model:N", sort=names, title=None, axis=alt.Axis(labelLimit=170, ticks=False, domain=False))
    color = alt.condition("datum.own", alt.value(ONE), alt.value(MUTED))
    x = alt.X("auc:Q", title="AUC", scale=alt.Scale(zero=False, nice=True, padding=8))
    bars = (
        alt.Chart(data)
        .transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2)
        .encode(y=y, x=alt.X("low:Q", title="AUC"), x2="high:Q", color=color)
    )
    dots = (
        alt.Chart(data)
        .mark_circle(size=110, opacity=1)
        .encode(y=y, x=x, color=color, tooltip=[alt.Tooltip("model:N"), _number("auc", "AUC")])
    )
    layers: list[alt.Chart] = [bars, dots]
    if attainable is not None:
        mark = _data([{"auc": attainable, "text": "attainable"}])
        rule = alt.Chart(mark).mark_rule(color=TWO, strokeDash=[4, 4]).encode(x="auc:Q")
        text = alt.Chart(mark).mark_text(color=TWO, align="right", dx=-5, y=8, fontSize=11)
        layers += [rule, text.encode(x="auc:Q", text="text:N")]
    return _finished(*layers, height=34 * len(rows) + 20)


def differences(rows: Rows, metric: str) -> Spec:
    """A dot per output with the interval of its difference. rows: output, value, low, high."""
    data = _data(rows)
    names = [row["output"] for row in rows]
    y = alt.Y("output:N", sort=names, title=None, axis=alt.Axis(labelLimit=170, ticks=False, domain=False))
    title = f"difference in {metric}"
    zero = alt.Chart(_data([{"value": 0}])).mark_rule(color=MUTED, strokeDash=[4, 4]).encode(x="value:Q")
    bars = (
        alt.Chart(data)
        .mark_rule(strokeWidth=2, color=ONE)
        .encode(y=y, x=alt.X("low:Q", title=title, scale=alt.Scale(zero=True, nice=True)), x2="high:Q")
    )
    dots = (
        alt.Chart(data)
        .mark_circle(size=110, opacity=1, color=ONE)
        .encode(y=y, x="value:Q", tooltip=[alt.Tooltip("output:N"), _number("value", title)])
    )
    return _finished(zero, bars, dots, height=34 * len(rows) + 20)


def reliability(table: Mapping[str, Sequence[float]], kind: str) -> Spec:
    """Observed against predicted, one dot per bin; the line is what it should be."""
    rows = _rows(table)
    title = "rate" if kind == "binary" else "mean"
    top = max([*table["predicted"], *table["observed"], 1e-9])
    ends = _data([{"predicted": 0, "observed": 0}, {"predicted": top, "observed": top}])
    x = alt.X("predicted:Q", title=f"predicted {title}", axis=_quiet(kind))
    y = alt.Y("observed:Q", title=f"observed {title}", axis=_quiet(kind))
    line = alt.Chart(ends).mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1).encode(x=x, y=y)
    dots = (
        alt.Chart(_data(rows))
        .mark_circle(color=ONE, opacity=0.85, size=55)
        .encode(
            x=x,
            y=y,
            tooltip=[_number("predicted"), _number("observed"), alt.Tooltip("rows:Q", format=",d")],
        )
    )
    return _finished(line, dots)


def roc(table: Mapping[str, Sequence[float]]) -> Spec:
    """True against false positive rate; the diagonal is chance."""
    rows = [{"false_positive_rate": 0, "recall": 0}, *_rows(table)]
    x = alt.X("false_positive_rate:Q", title="false positive rate", axis=_FIFTHS)
    y = alt.Y("recall:Q", title="true positive rate", axis=_FIFTHS)
    ends = [{"false_positive_rate": 0, "recall": 0}, {"false_positive_rate": 1, "recall": 1}]
    chance = alt.Chart(_data(ends)).mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1)
    curve = alt.Chart(_data(rows)).mark_line(color=ONE, strokeWidth=2, interpolate="linear")
    return _finished(chance.encode(x=x, y=y), curve.encode(x=x, y=y, order="recall:Q"))


def precision_recall(table: Mapping[str, Sequence[float]], rate: float) -> Spec:
    """Precision against recall; the line is the base rate, which is chance."""
    # Before the first positive is found precision is 0, which says nothing.
    curve = (
        alt.Chart(_data([row for row in _rows(table) if row["recall"] > 0]))
        .mark_line(color=ONE, strokeWidth=2)
        .encode(
            x=alt.X("recall:Q", title="recall", axis=_FIFTHS),
            y=alt.Y("precision:Q", title="precision"),
            order="recall:Q",
        )
    )
    return _finished(_horizontal(rate), curve)


def distribution(table: Mapping[str, Sequence[float]]) -> Spec:
    """How scores of the two classes lie, each class summing to 1, on the scale of log odds."""
    rows = [
        {"probability": probability, "share": share, "label": label}
        for label in ("negatives", "positives")
        for probability, share in zip(table["probability"], table[label], strict=True)
    ]
    areas = (
        alt.Chart(_data(rows))
        .transform_calculate(logit="log(datum.probability / (1 - datum.probability))")
        .mark_area(opacity=0.32, line=True, interpolate="monotone")
        .encode(
            x=alt.X(
                "logit:Q",
                title="predicted probability",
                axis=alt.Axis(
                    grid=False, labelExpr="format(1 / (1 + exp(-datum.value)), '.2~p')", tickCount=6
                ),
            ),
            y=alt.Y("share:Q", title="share of the class", stack=None, axis=alt.Axis(format="%")),
            color=alt.Color(
                "label:N", scale=alt.Scale(domain=["negatives", "positives"], range=[MUTED, ONE])
            ),
        )
    )
    return _finished(areas)


def activity(table: Mapping[str, Sequence[Any]]) -> Spec:
    """GAUC of users by the number of their rows."""
    bars = (
        alt.Chart(_data(_rows(table)))
        .mark_circle(size=80, color=ONE, opacity=1)
        .encode(
            x=alt.X(
                "rows:N", sort=list(table["rows"]), title="rows of the user", axis=alt.Axis(labelAngle=0)
            ),
            y=alt.Y("gauc:Q", title="GAUC", scale=alt.Scale(zero=False)),
            tooltip=[alt.Tooltip("rows:N"), _number("gauc", "GAUC"), alt.Tooltip("users:Q", format=",d")],
        )
    )
    return _finished(_horizontal(0.5), bars)


def importance(rows: Rows, title: str) -> Spec:
    """Bars, the longest first. rows: input, value."""
    return _bars(sorted(rows, key=lambda row: -row["value"])[:_MOST_BARS], title, None)


def drift(values: Mapping[str, float]) -> Spec:
    """PSI of the inputs that moved most; the line is what counts as drift."""
    rows = [{"input": name, "value": value} for name, value in list(values.items())[:_MOST_BARS]]
    return _bars(rows, "PSI", DRIFT)


def experts(rows: Rows) -> Spec:
    """The mean weight of each expert, per task. rows: task, expert, its number, weight."""
    names = list(dict.fromkeys(row["expert"] for row in rows))
    bars = (
        alt.Chart(_data(rows))
        .mark_bar(stroke="var(--card)", strokeWidth=1)
        .encode(
            x=alt.X("weight:Q", title="mean weight", stack="zero", axis=alt.Axis(format="%", grid=False)),
            y=alt.Y("task:N", title=None, sort=None, axis=alt.Axis(ticks=False, domain=False)),
            color=alt.Color(
                "expert:N",
                scale=alt.Scale(domain=names, range=[SERIES[i % len(SERIES)] for i in range(len(names))]),
            ),
            order=alt.Order("number:Q"),
            tooltip=[alt.Tooltip("task:N"), alt.Tooltip("expert:N"), _number("weight")],
        )
    )
    return _finished(bars, height=36 * len({row["task"] for row in rows}) + 10)


def _bars(rows: Rows, title: str, threshold: float | None) -> Spec:
    data = _data(rows)
    names = [row["input"] for row in rows]
    bars = (
        alt.Chart(data)
        .mark_bar(color=ONE, cornerRadiusEnd=2)
        .encode(
            x=alt.X("value:Q", title=title, axis=alt.Axis(tickCount=5)),
            y=alt.Y(
                "input:N", sort=names, title=None, axis=alt.Axis(labelLimit=190, ticks=False, domain=False)
            ),
            tooltip=[alt.Tooltip("input:N"), _number("value", title)],
        )
    )
    layers = [bars]
    if threshold is not None:
        mark = alt.Chart(_data([{"value": threshold}]))
        layers.append(mark.mark_rule(color=TWO, strokeDash=[4, 4]).encode(x="value:Q"))
    return _finished(*layers, height=20 * len(rows) + 16)


def _horizontal(value: float) -> alt.Chart:
    mark = alt.Chart(_data([{"level": value}]))
    rule: alt.Chart = mark.mark_rule(color=MUTED, strokeDash=[4, 4], strokeWidth=1).encode(y="level:Q")
    return rule


def _by_task(rows: Rows) -> alt.Color:
    names = list(dict.fromkeys(row["task"] for row in rows))
    return alt.Color(
        "task:N", scale=alt.Scale(domain=names, range=[SERIES[i % len(SERIES)] for i in range(len(names))])
    )


def _number(field: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", format=".4~f", title=title or field)


def _quiet(kind: str) -> alt.Axis:
    return alt.Axis(tickCount=5, format="~%") if kind == "binary" else alt.Axis(tickCount=5)


def _data(rows: Rows) -> alt.Data:
    return alt.Data(values=[dict(row) for row in rows])  # type: ignore[no-untyped-call]


def _rows(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def _finished(*layers: alt.Chart, height: int = HEIGHT) -> Spec:
    """One chart of layers, as wide as its place."""
    size = alt.AutoSizeParams(type="fit-x", contains="padding")
    chart = alt.layer(*layers).properties(width="container", height=height, autosize=size)
    return {**chart.to_dict(), "config": _CONFIG}
