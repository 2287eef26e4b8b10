"""What the report draws of one output, in few numbers: kept in the run, so that a report needs no predictions."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_rank.evaluation.outcomes import Floats
from mtl_rank.metrics import OrderedLists, Reliability, Thresholds, score_histogram

Table = dict[str, list[Any]]

BINS = 20
POINTS = 160
ACTIVITY = (1, 2, 3, 6, 11, 21, 51, 101)
"""Where the groups of users by their rows begin."""


@dataclass(frozen=True)
class Curves:
    """Each a table: name of the column -> values.

    reliability: predicted, observed, rows. thresholds: recall, false_positive_rate, precision.
    distribution: probability (middle of the bin), negatives and positives (share of the class).
    activity: rows (of the user: "3-5"), users, gauc.
    """

    reliability: Table
    thresholds: Table
    distribution: Table
    activity: Table

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def reliability_table(bins: Reliability) -> Table:
    return {"predicted": _short(bins.predicted), "observed": _short(bins.observed), "rows": _short(bins.mass)}


def thresholds_table(curve: Thresholds) -> Table:
    return {
        "recall": _short(curve.recall),
        "false_positive_rate": _short(curve.false_positive_rate),
        "precision": _short(curve.precision),
    }


def distribution_table(labels: npt.NDArray[Any], probabilities: Floats) -> Table:
    """labels, probabilities: (N,) without NaN."""
    # Few rows of a class in many bins would draw noise.
    smaller = min(np.count_nonzero(labels), len(labels) - np.count_nonzero(labels))
    bins = int(np.clip(np.sqrt(smaller), 10, 40))
    edges, negative, positive = score_histogram(labels, probabilities, bins)
    return {
        "probability": _short(1 / (1 + np.exp(-(edges[1:] + edges[:-1]) / 2))),
        "negatives": _short(negative / max(negative.sum(), 1)),
        "positives": _short(positive / max(positive.sum(), 1)),
    }


def regression_curves(labels: Floats, predictions: Floats) -> Curves:
    """Mean label against mean prediction, in bins of equal mass of the prediction."""
    order = np.argsort(predictions, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return Curves(
        reliability={
            "predicted": _short(np.array([predictions[part].mean() for part in parts])),
            "observed": _short(np.array([labels[part].mean(dtype=np.float64) for part in parts])),
            "rows": [float(len(part)) for part in parts],
        },
        thresholds={},
        distribution={},
        activity={},
    )


def activity_table(lists: OrderedLists) -> Table:
    """GAUC of users by the number of their rows; groups without a usable user are left out."""
    values, impressions = lists.group_aucs()
    band = np.searchsorted(ACTIVITY, lists.sizes, "right") - 1
    table: Table = {"rows": [], "users": [], "gauc": []}
    for i, low in enumerate(ACTIVITY):
        inside = (band == i) & ~np.isnan(values)
        if not inside.any():
            continue
        high = ACTIVITY[i + 1] - 1 if i + 1 < len(ACTIVITY) else None
        table["rows"].append(f"{low}+" if high is None else str(low) if high == low else f"{low}-{high}")
        table["users"].append(int(inside.sum()))
        table["gauc"].append(float(values[inside] @ impressions[inside] / impressions[inside].sum()))
    return table


def _short(values: Floats) -> list[float]:
    """Six digits: enough to draw, and a report of half the size."""
    return [float(f"{value:.6g}") for value in values]
