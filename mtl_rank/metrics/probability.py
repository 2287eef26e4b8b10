"""Is a predicted probability right? Log loss, normalised entropy, calibration and the Brier score.

Shapes: labels (N,) of 0/1, probabilities (N,) in [0, 1], weights (N,) >= 0 or None. Where a number is
undefined it is None, never NaN. NaN, a label that is not 0/1 or a probability outside [0, 1] raises
ValueError.
"""

from math import log

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_rank.metrics._checks import Array, binary, blocks, column, weights_of
from mtl_rank.metrics.ordered import Ordered, Reliability

_FLOAT64_EPS = float(np.finfo(np.float64).eps)
_TORCHREC_ETA = 1e-12


def log_loss(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Mean of -(y log p + (1 - y) log(1 - p)), in nats; None without rows.

    p is clipped to [eps, 1 - eps], eps = 2.22e-16, the step of float64 at 1.
    """
    y, p, w = _inputs(labels, probabilities, weights)
    total = _mass(y, w)
    return _cross_entropy(y, p, w, _FLOAT64_EPS) / total if total > 0 else None


def normalised_entropy(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None
) -> float | None:
    """Log loss over the entropy of the base rate (He et al. 2014): 1 = no better than the rate.

    As in torchrec's NEMetric, p is clipped to [1e-12, 1 - 1e-12]. None when only one class is present.
    """
    y, p, w = _inputs(labels, probabilities, weights)
    total, positive = _mass(y, w), _positive_mass(y, w)
    if not 0 < positive < total:
        return None
    rate = positive / total
    entropy = -(positive * log(rate) + (total - positive) * log(1 - rate))
    return _cross_entropy(y, p, w, _TORCHREC_ETA) / entropy


def calibration(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None
) -> float | None:
    """Sum of p over sum of y: above 1 the model promises too much. None without a positive."""
    y, p, w = _inputs(labels, probabilities, weights)
    positive = _positive_mass(y, w)
    promised = p.sum(dtype=np.float64) if w is None else _dot(w, p)
    return float(promised) / positive if positive > 0 else None


def brier(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Mean of (p - y)^2 (Brier 1950). None without rows."""
    y, p, w = _inputs(labels, probabilities, weights)
    total = _mass(y, w)
    if total <= 0:
        return None
    summed = 0.0
    for rows in blocks(len(y)):
        squares = np.square(p[rows].astype(np.float64) - y[rows])
        summed += float(squares.sum() if w is None else squares @ w[rows])
    return summed / total


def reliability(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, *, bins: int = 20
) -> Reliability:
    """Predicted against observed rate in equal-mass bins.

    A row's bin is floor(bins * share of the mass with a strictly smaller probability): equal probabilities
    share a bin, so the order of the rows changes nothing.
    """
    y, p, w = _inputs(labels, probabilities, weights)
    return Ordered.of(y, p, w).reliability(bins)


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, *, bins: int = 20
) -> float | None:
    """Mean |predicted - observed| over the bins of `reliability`, by their mass. None without rows."""
    return reliability(labels, probabilities, weights, bins=bins).error


def _inputs(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.bool_], Array, NDArray[np.float64] | None]:
    y = binary(labels)
    p = column("probabilities", probabilities, len(y))
    if len(p) and (p.min() < 0 or p.max() > 1):
        raise ValueError("probabilities must lie in [0, 1]: these look like logits")
    return y, p, weights_of(weights, len(y))


def _mass(y: NDArray[np.bool_], w: NDArray[np.float64] | None) -> float:
    return float(len(y)) if w is None else float(w.sum())


def _positive_mass(y: NDArray[np.bool_], w: NDArray[np.float64] | None) -> float:
    return float(np.count_nonzero(y)) if w is None else float(w[y].sum())


def _dot(w: NDArray[np.float64], p: Array) -> float:
    return sum(float(w[rows] @ p[rows].astype(np.float64)) for rows in blocks(len(p)))


def row_losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """(N,) log loss of each row in nats, p clipped as `normalised_entropy` clips it."""
    y, p, _ = _inputs(labels, probabilities, None)
    losses = np.empty(len(y))
    for rows in blocks(len(y)):
        losses[rows] = _losses(y[rows], p[rows], _TORCHREC_ETA)
    return losses


def _losses(y: NDArray[np.bool_], p: Array, eps: float) -> NDArray[np.float64]:
    clipped = np.clip(p.astype(np.float64), eps, 1 - eps)
    return -np.log(np.where(y, clipped, 1 - clipped))


def _cross_entropy(y: NDArray[np.bool_], p: Array, w: NDArray[np.float64] | None, eps: float) -> float:
    """Summed over the rows, in nats."""
    total = 0.0
    for rows in blocks(len(y)):
        losses = _losses(y[rows], p[rows], eps)
        total += float(losses.sum() if w is None else losses @ w[rows])
    return total
