"""How far is a predicted number from the observed one?

Shapes: labels (N,), predictions (N,), weights (N,) >= 0 or None. Where a number is undefined it is None,
never NaN. NaN or infinite values raise ValueError.
"""

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_rank.metrics._checks import Array, blocks, column, starts_of_runs, weights_of


def rmse(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Root of the mean squared error, in the label's unit. None without rows."""
    mean = _mean_error(np.square, labels, predictions, weights)
    return None if mean is None else sqrt(mean)


def mae(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Mean absolute error, in the label's unit. None without rows."""
    return _mean_error(np.abs, labels, predictions, weights)


def spearman(labels: ArrayLike, predictions: ArrayLike) -> float | None:
    """Rank correlation: Pearson's r of the ranks, equal values sharing their mean rank.

    None when one side is constant.
    """
    y, p = _inputs(labels, predictions)
    a, b = _centred_ranks(y), _centred_ranks(p)
    spread = sqrt(float(a @ a)) * sqrt(float(b @ b))
    return float(a @ b) / spread if spread > 0 else None


def _inputs(labels: ArrayLike, predictions: ArrayLike) -> tuple[Array, Array]:
    y = column("labels", labels)
    p = column("predictions", predictions, len(y))
    for name, values in (("labels", y), ("predictions", p)):
        if values.dtype.kind == "f" and np.isinf(values).any():
            raise ValueError(f"{name} holds infinite values")
    return y, p


def _mean_error(
    size: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    labels: ArrayLike,
    predictions: ArrayLike,
    weights: ArrayLike | None,
) -> float | None:
    y, p = _inputs(labels, predictions)
    w = weights_of(weights, len(y))
    mass = float(len(y)) if w is None else float(w.sum())
    if not mass > 0:
        return None
    total = 0.0
    for rows in blocks(len(y)):
        error = size(p[rows].astype(np.float64) - y[rows].astype(np.float64))
        total += float(error.sum() if w is None else error @ w[rows])
    return total / mass


def _centred_ranks(values: Array) -> NDArray[np.float64]:
    """Each value's rank less the mean rank; ties share the mean of theirs, so the ranks sum to 0."""
    order = np.argsort(values)
    starts = starts_of_runs(values[order])
    ends = np.append(starts[1:], len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + ends - len(values)) / 2, ends - starts)
    return ranks
