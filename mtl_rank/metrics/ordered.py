"""Rows sorted by their score once, for every metric that needs the order.

Ten million rows take about a second to sort; each metric on top of the order is a pass of sums.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_rank.metrics._checks import Array, binary, blocks, column, starts_of_runs, weights_of

Counts = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Equal-mass bins of the predicted probability, lowest first; empty bins are left out.

    predicted: mean probability of each bin. observed: its rate of positives. mass: its rows, or the sum of
    their weights.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    mass: NDArray[np.float64]

    @property
    def error(self) -> float | None:
        """Mean |predicted - observed| by mass; None without bins."""
        if not len(self.mass):
            return None
        return float(np.abs(self.predicted - self.observed) @ self.mass / self.mass.sum())


@dataclass(frozen=True)
class Thresholds:
    """What a threshold on the score gives, the strictest first: recall (true positive rate), false positive rate
    and precision, each (P,)."""

    recall: NDArray[np.float64]
    false_positive_rate: NDArray[np.float64]
    precision: NDArray[np.float64]


@dataclass(frozen=True)
class Ordered:
    """Labelled rows, lowest score first.

    labels, scores: (N,). mass: (N,) the rows' weights; None = each counts once. order: (N,) the rows' positions
    in what was sorted; None when it was not asked for.
    """

    labels: NDArray[np.bool_]
    scores: Array
    mass: NDArray[np.float64] | None
    order: NDArray[np.intp] | None = None

    @staticmethod
    def of(
        labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None, *, keep_order: bool = False
    ) -> "Ordered":
        """Sort rows by score. Raises ValueError for NaN or a label that is not 0 or 1."""
        y = binary(labels)
        s = column("scores", scores, len(y))
        w = weights_of(weights, len(y))
        order = np.argsort(s)
        return Ordered(y[order], s[order], None if w is None else w[order], order if keep_order else None)

    @cached_property
    def ties(self) -> NDArray[np.intp]:
        """(R,) where each run of equal scores begins."""
        return starts_of_runs(self.scores)

    @cached_property
    def masses(self) -> tuple[Counts, Counts]:
        """(R,) mass of positives and of all rows in each run: whole numbers without weights."""
        ends = np.append(self.ties[1:], len(self.labels)) - 1
        if self.mass is None:
            hits = np.cumsum(self.labels, dtype=np.int64)[ends]
            return np.diff(hits, prepend=0), np.diff(ends, prepend=-1)
        return np.add.reduceat(self.mass * self.labels, self.ties), np.add.reduceat(self.mass, self.ties)

    def auc(self) -> float | None:
        """Chance that a positive outscores a negative, ties counting half; None with one class.

        Without weights the pairs are counted in integers: exact up to a thousand million rows of each class.
        """
        if not len(self.labels):
            return None
        positive, total = self.masses
        negative = total - positive
        # As Python numbers: the product of two counts of ten digits has no room in 64 bits.
        pairs: float = positive.sum().item() * negative.sum().item()
        twice_won: float = (positive @ (2 * np.cumsum(negative) - negative)).item()
        return twice_won / (2 * pairs) if pairs > 0 else None

    def pr_auc(self) -> float | None:
        """Sum over the distinct scores, highest first, of recall gained x precision; None without positives."""
        if not len(self.labels):
            return None
        positive, total = (masses[::-1] for masses in self.masses)
        hits, seen = np.cumsum(positive), np.cumsum(total)
        if not hits[-1] > 0:
            return None
        precision = np.divide(hits, seen, out=np.zeros(len(hits)), where=seen > 0)
        return float(positive @ precision / hits[-1])

    def reliability(self, bins: int = 20) -> Reliability:
        """Predicted against observed rate in equal-mass bins; the scores are probabilities.

        A row's bin is floor(bins * share of the mass with a strictly smaller probability): equal
        probabilities share a bin, so the order of the rows changes nothing.
        """
        if bins < 1:
            raise ValueError(f"bins must be at least 1, not {bins}")
        empty = np.empty(0)
        if not len(self.labels):
            return Reliability(empty, empty, empty)
        positive, total = self.masses
        mass = total.sum()
        if not mass > 0:
            return Reliability(empty, empty, empty)
        below = np.cumsum(total) - total
        run_bin = (bins * below / mass).astype(np.int64)
        firsts = starts_of_runs(run_bin)
        bin_mass = np.add.reduceat(total, firsts).astype(np.float64)
        bin_positive = np.add.reduceat(positive, firsts)
        promised = np.add.reduceat(self._promised(), firsts)
        held = bin_mass > 0
        return Reliability(
            promised[held] / bin_mass[held], bin_positive[held] / bin_mass[held], bin_mass[held]
        )

    def _promised(self) -> NDArray[np.float64]:
        """(R,) score x mass of each run."""
        return self.scores[self.ties].astype(np.float64) * self.masses[1]

    def thresholds(self, points: int = 200) -> Thresholds:
        """ROC and precision-recall curves at about `points` thresholds, spread evenly over the rows of each class.

        Empty with one class.
        """
        empty = np.empty(0)
        if not len(self.labels):
            return Thresholds(empty, empty, empty)
        positive, total = (masses[::-1] for masses in self.masses)
        hits, seen = np.cumsum(positive), np.cumsum(total)
        false = seen - hits
        if not (hits[-1] > 0 and false[-1] > 0):
            return Thresholds(empty, empty, empty)
        recall, false_rate = hits / hits[-1], false / false[-1]
        steps = np.linspace(0, 1, points // 2)
        chosen = np.unique(np.concatenate([np.searchsorted(curve, steps) for curve in (recall, false_rate)]))
        chosen = chosen[chosen < len(hits)]
        precision = hits[chosen] / np.maximum(seen[chosen], np.finfo(float).tiny)
        return Thresholds(recall[chosen], false_rate[chosen], precision)


def score_histogram(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 40
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Edges (bins + 1,) on the scale of log odds, and the counts (bins,) of negatives and of positives.

    Edges cover all but the outermost thousandth of the probabilities; what lies beyond is in the first and the
    last bin.
    """
    y = binary(labels)
    p = column("probabilities", probabilities, len(y))
    if not len(y):
        return np.zeros(bins + 1), np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    ends = np.clip(np.quantile(p[:: max(1, len(p) >> 20)], [0.001, 0.999]), 1e-6, 1 - 1e-6)
    low, high = np.log(ends / (1 - ends))
    edges = np.linspace(low, max(high, low + 1e-3), bins + 1)
    counts = np.zeros((2, bins), np.int64)
    for rows in blocks(len(y)):
        part = np.clip(p[rows].astype(np.float64), 1e-12, 1 - 1e-12)
        place = np.clip(np.searchsorted(edges, np.log(part / (1 - part)), "right") - 1, 0, bins - 1)
        for positive in (0, 1):
            counts[positive] += np.bincount(place[y[rows] == positive], minlength=bins)
    return edges, counts[0], counts[1]
