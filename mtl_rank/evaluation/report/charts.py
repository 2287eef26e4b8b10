"""The charts of a report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from mtl_rank.evaluation.checks import DRIFT
from mtl_rank.pages.charts import (
    MUTED,
    ONE,
    TWO,
    Rows,
    Spec,
    colors,
    finished,
    horizontal,
    inline,
    number,
    vertical,
)

_MOST_BARS, _MOST_EPOCHS = 10, 15
_TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
_FEW = alt.Axis(tickCount=4, labelFlush=False)
_FIFTHS = alt.Axis(tickCount=5, format=".1f")


def by_epoch(rows: Rows, metric: str, best: float | None, reference: float | None) -> Spec:
    """One line per task. rows: epoch, task, value. best: the epoch whose weights were kept."""
    data = inline(rows)
    epochs = sorted({row["epoch"] for row in rows})
    # Of few epochs the automatic ticks lie between them, and would be rounded to the same number twice.
    ticks = {"values": epochs} if len(epochs) <= _MOST_EPOCHS else {"tickMinStep": 1}
    x = alt.X(
        "epoch:Q",
        title="epoch",
        axis=alt.Axis(format="d", grid=False, **ticks),
        scale=alt.Scale(zero=False, nice=False, padding=12),
    )
    lines = (
        alt.Chart(data)
        .mark_line(point=alt.OverlayMarkDef(size=36, filled=True), strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False)),
            color=_by_task(rows),
            tooltip=[alt.Tooltip("task:N"), alt.Tooltip("epoch:Q"), number("value", metric)],
        )
    )
    layers: list[alt.Chart] = [lines]
    if best is not None:
        layers.insert(0, vertical(best))
    if reference is not None:
        layers.insert(0, horizontal(reference))
    return finished(*layers)


def by_step(rows: Rows, title: str) -> Spec:
    """One line per task. rows: step, task, value."""
    lines = (
        alt.Chart(inline(rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False)),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=True)),
            color=_by_task(rows),
            tooltip=[alt.Tooltip("task:N"), alt.Tooltip("step:Q"), number("value", title)],
        )
    )
    return finished(lines)


def beside(rows: Rows, attainable: float | None) -> Spec:
    """A dot per model with its interval. rows: model, auc, low, high, own (whether it is the run)."""
    data = inline(rows)
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
        .encode(y=y, x=x, color=color, tooltip=[alt.Tooltip("model:N"), number("auc", "AUC")])
    )
    # Without any interval the browser would warn of a scale without an end.
    layers: list[alt.Chart] = [bars, dots] if any(row["low"] is not None for row in rows) else [dots]
    if attainable is not None:
        mark = inline([{"auc": attainable, "text": "attainable"}])
        text = alt.Chart(mark).mark_text(color=TWO, align="right", dx=-5, y=8, fontSize=11)
        layers += [vertical(attainable, TWO), text.encode(x="auc:Q", text="text:N")]
    return finished(*layers, height=34 * len(rows) + 20)


def differences(rows: Rows, metric: str) -> Spec:
    """A dot per output with the interval of its difference. rows: output, value, low, high."""
    data = inline(rows)
    names = [row["output"] for row in rows]
    y = alt.Y("output:N", sort=names, title=None, axis=alt.Axis(labelLimit=170, ticks=False, domain=False))
    title = f"difference in {metric}"
    # Room on both sides: 0 is often at the edge, where its line would run through the names.
    scale = alt.Scale(zero=True, nice=False, padding=14)
    bars = (
        alt.Chart(data)
        .mark_rule(strokeWidth=2, color=ONE)
        .encode(y=y, x=alt.X("low:Q", title=title, axis=_FEW, scale=scale), x2="high:Q")
    )
    dots = (
        alt.Chart(data)
        .mark_circle(size=110, opacity=1, color=ONE)
        .encode(y=y, x="value:Q", tooltip=[alt.Tooltip("output:N"), number("value", title)])
    )
    return finished(vertical(0), bars, dots, height=34 * len(rows) + 20)


def reliability(table: Mapping[str, Sequence[float]], kind: str) -> Spec:
    """Observed against predicted, one dot per bin; the line is what it should be."""
    rows = _rows(table)
    title = "rate" if kind == "binary" else "mean"
    top = max([*table["predicted"], *table["observed"], 1e-9])
    ends = inline([{"predicted": 0, "observed": 0}, {"predicted": top, "observed": top}])
    x = alt.X("predicted:Q", title=f"predicted {title}", axis=_quiet(kind))
    y = alt.Y("observed:Q", title=f"observed {title}", axis=_quiet(kind))
    line = alt.Chart(ends).mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1).encode(x=x, y=y)
    dots = (
        alt.Chart(inline(rows))
        .mark_circle(color=ONE, opacity=0.85, size=55)
        .encode(
            x=x,
            y=y,
            tooltip=[number("predicted"), number("observed"), alt.Tooltip("rows:Q", format=",d")],
        )
    )
    return finished(line, dots)


def roc(table: Mapping[str, Sequence[float]]) -> Spec:
    """True against false positive rate; the diagonal is chance."""
    rows = [{"false_positive_rate": 0, "recall": 0}, *_rows(table)]
    x = alt.X("false_positive_rate:Q", title="false positive rate", axis=_FIFTHS)
    y = alt.Y("recall:Q", title="true positive rate", axis=_FIFTHS)
    ends = [{"false_positive_rate": 0, "recall": 0}, {"false_positive_rate": 1, "recall": 1}]
    chance = alt.Chart(inline(ends)).mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1)
    curve = alt.Chart(inline(rows)).mark_line(color=ONE, strokeWidth=2, interpolate="linear")
    return finished(chance.encode(x=x, y=y), curve.encode(x=x, y=y, order="recall:Q"))


def precision_recall(table: Mapping[str, Sequence[float]], rate: float) -> Spec:
    """Precision against recall; the line is the base rate, which is chance."""
    # Before the first positive is found precision is 0, which says nothing.
    curve = (
        alt.Chart(inline([row for row in _rows(table) if row["recall"] > 0]))
        .mark_line(color=ONE, strokeWidth=2)
        .encode(
            x=alt.X("recall:Q", title="recall", axis=_FIFTHS),
            y=alt.Y("precision:Q", title="precision"),
            order="recall:Q",
        )
    )
    return finished(horizontal(rate), curve)


def distribution(table: Mapping[str, Sequence[float]]) -> Spec:
    """How scores of the two classes lie, each class summing to 1, on the scale of log odds."""
    logits = [_logit(probability) for probability in table["probability"]]
    rows = [
        {"logit": logit, "share": share, "label": label}
        for label in ("negatives", "positives")
        for logit, share in zip(logits, table[label], strict=True)
    ]
    ticks = [_logit(p) for p in _TICKS if logits[0] <= _logit(p) <= logits[-1]]
    axis = alt.Axis(grid=False, values=ticks, labelExpr="format(1 / (1 + exp(-datum.value)), '.2~%')")
    areas = (
        alt.Chart(inline(rows))
        .mark_area(opacity=0.32, line=True, interpolate="monotone")
        .encode(
            x=alt.X("logit:Q", title="predicted probability", axis=axis),
            y=alt.Y("share:Q", title="share of the class", stack=None, axis=alt.Axis(format="%")),
            color=alt.Color(
                "label:N", scale=alt.Scale(domain=["negatives", "positives"], range=[MUTED, ONE])
            ),
        )
    )
    return finished(areas)


def _logit(probability: float) -> float:
    # What is stored has six digits: 1 stands for anything above 0.9999995.
    clipped = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(clipped / (1 - clipped))


def activity(table: Mapping[str, Sequence[Any]]) -> Spec:
    """GAUC of users by the number of their rows."""
    bars = (
        alt.Chart(inline(_rows(table)))
        .mark_circle(size=80, color=ONE, opacity=1)
        .encode(
            x=alt.X(
                "rows:N", sort=list(table["rows"]), title="rows of the user", axis=alt.Axis(labelAngle=0)
            ),
            y=alt.Y("gauc:Q", title="GAUC", scale=alt.Scale(zero=False)),
            tooltip=[alt.Tooltip("rows:N"), number("gauc", "GAUC"), alt.Tooltip("users:Q", format=",d")],
        )
    )
    return finished(horizontal(0.5), bars)


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
        alt.Chart(inline(rows))
        .mark_bar(stroke="var(--card)", strokeWidth=1)
        .encode(
            x=alt.X(
                "weight:Q",
                title="mean weight",
                stack="zero",
                axis=alt.Axis(format="%", grid=False, tickCount=5),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y=alt.Y("task:N", title=None, sort=None, axis=alt.Axis(ticks=False, domain=False)),
            color=alt.Color(
                "expert:N",
                scale=colors(names),
            ),
            order=alt.Order("number:Q"),
            tooltip=[alt.Tooltip("task:N"), alt.Tooltip("expert:N"), number("weight")],
        )
    )
    return finished(bars, height=36 * len({row["task"] for row in rows}) + 10)


def _bars(rows: Rows, title: str, threshold: float | None) -> Spec:
    data = inline(rows)
    names = [row["input"] for row in rows]
    bars = (
        alt.Chart(data)
        .mark_bar(color=ONE, cornerRadiusEnd=2)
        .encode(
            x=alt.X("value:Q", title=title, axis=_FEW),
            y=alt.Y(
                "input:N", sort=names, title=None, axis=alt.Axis(labelLimit=190, ticks=False, domain=False)
            ),
            tooltip=[alt.Tooltip("input:N"), number("value", title)],
        )
    )
    layers = [bars]
    if threshold is not None:
        layers.append(vertical(threshold, TWO))
    return finished(*layers, height=20 * len(rows) + 16)


def _by_task(rows: Rows) -> alt.Color:
    names = list(dict.fromkeys(row["task"] for row in rows))
    return alt.Color("task:N", scale=colors(names))


def _quiet(kind: str) -> alt.Axis:
    return alt.Axis(tickCount=5, format="~%") if kind == "binary" else alt.Axis(tickCount=5)


def _rows(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
