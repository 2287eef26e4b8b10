"""What the charts of every page share. Colours are variables of look.css: one chart for light, dark and paper."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

HEIGHT = 210
ONE, TWO, MUTED, GRID, INK = "var(--one)", "var(--two)", "var(--muted)", "var(--grid)", "var(--ink)"
SERIES = [f"var(--{name})" for name in ("one", "two", "three", "four", "five", "six")]

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


def inline(rows: Rows) -> alt.Data:
    """Rows as they are; a chart finds its columns by their names."""
    return alt.Data(values=[dict(row) for row in rows])  # type: ignore[no-untyped-call]


def finished(*layers: alt.Chart, height: int = HEIGHT) -> Spec:
    """One chart of layers, as wide as its place."""
    size = alt.AutoSizeParams(type="fit-x", contains="padding")
    chart = alt.layer(*layers).properties(width="container", height=height, autosize=size)
    return {**chart.to_dict(), "config": _CONFIG}


def colors(names: Sequence[str]) -> alt.Scale:
    """A colour of its own for each of up to six names."""
    return alt.Scale(domain=list(names), range=[SERIES[i % len(SERIES)] for i in range(len(names))])


def number(field: str, title: str | None = None) -> alt.Tooltip:
    """A number under the pointer."""
    return alt.Tooltip(f"{field}:Q", format=".4~f", title=title or field)


def horizontal(value: float) -> alt.Chart:
    """A dashed line at a height that means something."""
    rule: alt.Chart = _dashed(value).encode(y="level:Q")
    return rule


def vertical(value: float, color: str = MUTED) -> alt.Chart:
    """A dashed line at a place that means something."""
    rule: alt.Chart = _dashed(value, color).encode(x="level:Q")
    return rule


def _dashed(value: float, color: str = MUTED) -> alt.Chart:
    rule: alt.Chart = alt.Chart(inline([{"level": value}])).mark_rule(
        color=color, strokeDash=[4, 4], strokeWidth=1.5
    )
    return rule
