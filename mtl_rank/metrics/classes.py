"""Metrics of labels that are one of several classes.

Shapes: labels (N,) positions of the classes, 0 to K - 1; probabilities (N, K), rows that sum to 1; predicted (N,)
positions. Where a number is undefined it is None, never NaN. NaN or a position beyond K raises ValueError.
"""

from math import log

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_rank.metrics._checks import column
from mtl_rank.metrics.ranking import auc
from mtl_rank.metrics.regression import spearman

# That of `normalised_entropy`.
_EPS = 1e-12


def cross_entropy(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Mean of -log p of the label's class, in nats, p not below 1e-12. None without rows."""
    y, p = _inputs(labels, probabilities)
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], _EPS)).mean()) if len(y) else None


def normalised_cross_entropy(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Cross entropy over the entropy of the classes' shares: 1 = no better than those. None with one class.

    With two classes it is `normalised_entropy`.
    """
    y, p = _inputs(labels, probabilities)
    shares = np.bincount(y, minlength=p.shape[1]) / max(len(y), 1)
    entropy = -sum(share * log(share) for share in shares.tolist() if share)
    loss = cross_entropy(y, p)
    return loss / entropy if loss is not None and entropy > 0 else None


def accuracy(labels: ArrayLike, predicted: ArrayLike) -> float | None:
    """The share of rows whose class was predicted. None without rows."""
    y = column("labels", labels)
    p = column("predicted", predicted, len(y))
    return float((y == p).mean()) if len(y) else None


def macro_auc(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Mean over the classes of the AUC of each against the others (Hand & Till 2001, sec. 2). None with one class.

    Classes without rows are left out.
    """
    y, p = _inputs(labels, probabilities)
    found = [auc(y == k, p[:, k]) for k in range(p.shape[1])]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def quadratic_kappa(labels: ArrayLike, predicted: ArrayLike, classes: int) -> float | None:
    """Cohen's kappa with quadratic weights (Cohen 1968): agreement beyond chance, an error counting by its square.

    1 - sum (i - j)^2 O_ij / sum (i - j)^2 E_ij, O the counts of label i and prediction j, E those of rows dealt out
    anew. 1 = all right, 0 = no better than chance. None when label and prediction are one and the same class.
    """
    y, p = _positions("labels", labels, classes), _positions("predicted", predicted, classes)
    if len(y) != len(p):
        raise ValueError(f"predicted has {len(p)} values for {len(y)} labels")
    counts = np.bincount(y * classes + p, minlength=classes**2).reshape(classes, classes).astype(np.float64)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(len(y), 1)
    squares = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2
    chance = float((squares * expected).sum())
    return 1 - float((squares * counts).sum()) / chance if chance > 0 else None


def class_numbers(
    labels: ArrayLike, probabilities: ArrayLike, values: ArrayLike | None = None
) -> dict[str, float | None]:
    """log_loss, ne, accuracy and auc; with values, the numbers that ordered classes stand for, kappa and spearman too.

    accuracy and kappa are of the most likely class, spearman of the expected value.
    """
    y, p = _inputs(labels, probabilities)
    likely = p.argmax(axis=1)
    found = {
        "log_loss": cross_entropy(y, p),
        "ne": normalised_cross_entropy(y, p),
        "accuracy": accuracy(y, likely),
        "auc": macro_auc(y, p),
    }
    if values is not None:
        found["kappa"] = quadratic_kappa(y, likely, p.shape[1])
        found["spearman"] = spearman(y, p @ np.asarray(values, np.float64))
    return found


def _inputs(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or np.isnan(p).any() or (len(p) and (p.min() < 0 or p.max() > 1 + 1e-6)):
        raise ValueError("probabilities must be a table of numbers in [0, 1] without NaN, a column per class")
    y = _positions("labels", labels, p.shape[1])
    if len(y) != len(p):
        raise ValueError(f"probabilities has {len(p)} rows for {len(y)} labels")
    return y, p


def _positions(name: str, values: ArrayLike, classes: int) -> NDArray[np.int64]:
    found = column(name, values)
    whole = found.astype(np.int64)
    if len(found) and ((whole != found).any() or whole.min() < 0 or whole.max() >= classes):
        raise ValueError(f"{name} must be whole numbers from 0 to {classes - 1}")
    return whole
