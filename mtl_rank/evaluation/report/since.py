"""What was measured of a run beside the window that its report is about: other splits, other rows, old scores."""

from collections.abc import Iterator, Mapping
from typing import Any

from mtl_rank.evaluation.report.facts import ReportFacts
from mtl_rank.pages import Html, element, table

_NAMES = {
    "test": "The test window",
    "valid": "The validation window",
    "train": "The training window",
    "examples": "Other examples",
    "scores": "Scores joined to labels",
}


def since_section(found: ReportFacts) -> Html:
    """A small table per further window."""
    if not found.others:
        return Html("")
    cards = [_card(name, found.metrics[name]) for name in found.others]
    return Html(
        element("h2", "Measured since", id="since")
        + element("p", "By mtlrank evaluate, the last time of each kind.", css="note")
        + element("div", *cards, css="charts wide")
    )


def _card(name: str, window: Mapping[str, Any]) -> Html:
    caption = f"{window['rows']:,} rows"
    if window.get("coverage") is not None:
        caption += f", {window['coverage']:.2%} of the labelled rows"
    notes = [element("p", note, css="note") for note in window.get("notes", [])]
    title = element("h3", _NAMES.get(name, name))
    return element("div", title, element("figcaption", caption), *_tables(window), *notes, css="card")


def _tables(window: Mapping[str, Any]) -> Iterator[Html]:
    """Probabilities, then values."""
    for kind, keys in (("binary", {"auc": "AUC", "ne": "NE"}), ("regression", {"rmse": "RMSE"})):
        rows = [
            (name, n["rows"], *(n[key] for key in keys), n["calibration"])
            for name, n in window["tasks"].items()
            if n["kind"] == kind
        ]
        if rows:
            yield table(("task", "rows", *keys.values(), "calibration"), rows)
