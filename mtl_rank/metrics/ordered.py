"""Rows sorted by their score once, for every metric that needs the order.

Ten million rows take about a second to sort; each metric on top of the order is a pass of sums.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_rank.metrics._checks import (
    Array,
    Positions,
    binary,
    blocks,
    column,
    positions,
    starts_of_runs,
    weights_of,
)

# Whole numbers where rows have no weights, else float64.
Counts = Array


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
    in what was sorted.
    """

    labels: NDArray[np.bool_]
    scores: Array
    mass: NDArray[np.float64] | None
    order: Positions

    @staticmethod
    def of(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> "Ordered":
        """Sort rows by score. Raises ValueError for NaN or a label that is not 0 or 1."""
        y = binary(labels)
        s = column("scores", scores, len(y))
        w = weights_of(weights, len(y))
        order = positions(np.argsort(s))
        return Ordered(y[order], s[order], None if w is None else w[order], order)

    @cached_property
    def ties(self) -> Positions:
        """(R,) where each run of equal scores begins."""
        return positions(starts_of_runs(self.scores))

    @cached_property
    def masses(self) -> tuple[Counts, Counts]:
        """(R,) mass of positives and of all rows in each run: whole numbers without weights."""
        if self.mass is not None:
            return np.add.reduceat(self.mass * self.labels, self.ties), np.add.reduceat(self.mass, self.ties)
        total = np.diff(self.ties, append=self.ties.dtype.type(len(self.labels)))
        hits = np.cumsum(self.labels, dtype=self.ties.dtype)[self.ties + (total - 1)]
        return np.diff(hits, prepend=hits.dtype.type(0)), total

    def auc(self) -> float | None:
        """Chance that a positive outscores a negative, ties counting half; None with one class.

        Without weights the pairs are counted in integers: exact up to a thousand million rows of each class.
        """
        if not len(self.labels):
            return None
        positive, total = self.masses
        positives, negatives = positive.sum().item(), (total.sum() - positive.sum()).item()
        twice_won, below = 0.0 if self.mass is not None else 0, 0
        for part in blocks(len(total)):
            p, n = _wide(positive[part]), _wide(total[part]) - _wide(positive[part])
            upto = np.cumsum(n) + below
            twice_won += (p @ (2 * upto - n)).item()
            below = upto[-1].item()
        # As Python numbers: the product of two counts of ten digits has no room in 64 bits.
        pairs: float = positives * negatives
        return twice_won / (2 * pairs) if pairs > 0 else None

    def pr_auc(self) -> float | None:
        """Sum over the distinct scores, highest first, of recall gained x precision; None without positives."""
        if not len(self.labels):
            return None
        positive, total = (masses[::-1] for masses in self.masses)
        gained, hits, seen = 0.0, 0.0, 0.0
        for part in blocks(len(total)):
            found = np.cumsum(positive[part], dtype=np.float64) + hits
            rows = np.cumsum(total[part], dtype=np.float64) + seen
            gained += float(positive[part] @ np.divide(found, rows, out=np.zeros(len(found)), where=rows > 0))
            hits, seen = float(found[-1]), float(rows[-1])
        return gained / hits if hits > 0 else None

    def reliability(self, bins: int = 20) -> Reliability:
        """Predicted against observed rate in equal-mass bins; the scores are probabilities.

        A row's bin is floor(bins * share of the mass with a strictly smaller probability): equal
        probabilities share a bin, so the order of the rows changes nothing.
        """
        if bins < 1:
            raise ValueError(f"bins must be at least 1, not {bins}")
        empty = np.empty(0)
        if not len(self.labels) or not (mass := self.masses[1].sum().item()) > 0:
            return Reliability(empty, empty, empty)
        positive, total = self.masses
        below = np.cumsum(total, dtype=total.dtype) - total
        # below is rising and whole without weights: bins * below / mass >= i is below >= i * mass / bins.
        firsts = np.unique(np.searchsorted(below, np.arange(bins) * mass / bins))
        firsts = firsts[firsts < len(total)]
        parts = [slice(a, b) for a, b in pairwise([*firsts.tolist(), len(total)])]
        bin_mass = np.array([total[part].sum(dtype=np.float64) for part in parts])
        hits = np.array([positive[part].sum(dtype=np.float64) for part in parts])
        promised = np.array(
            [
                self.scores[self.ties[part]].astype(np.float64) @ total[part].astype(np.float64)
                for part in parts
            ]
        )
        held = bin_mass > 0
        return Reliability(promised[held] / bin_mass[held], hits[held] / bin_mass[held], bin_mass[held])

    def thresholds(self, points: int = 200) -> Thresholds:
        """ROC and precision-recall curves at about `points` thresholds, spread evenly over the rows of each class.

        Empty with one class.
        """
        empty = np.empty(0)
        if not len(self.labels):
            return Thresholds(empty, empty, empty)
        positive, total = (masses[::-1] for masses in self.masses)
        hits = np.cumsum(positive, dtype=positive.dtype)
        false = np.cumsum(total - positive, dtype=positive.dtype)
        if not (hits[-1] > 0 and false[-1] > 0):
            return Thresholds(empty, empty, empty)
        steps = np.linspace(0, 1, points // 2)
        chosen = np.concatenate([np.searchsorted(curve, steps * curve[-1]) for curve in (hits, false)])
        chosen = np.unique(np.append(chosen, len(hits) - 1))
        chosen = chosen[chosen < len(hits)]
        precision = hits[chosen] / np.maximum(hits[chosen] + false[chosen], np.finfo(float).tiny)
        return Thresholds(hits[chosen] / hits[-1], false[chosen] / false[-1], precision)


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


def _wide(counts: Counts) -> Counts:
    """Counts with room for their products."""
    return counts.astype(np.int64) if counts.dtype.kind == "i" else counts.astype(np.float64)
