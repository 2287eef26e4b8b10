"""Means of labels in their own unit, on the scale of the network's outputs: what simpler models predict."""

from collections.abc import Callable

import numpy as np

from mtl_rank.data.encoder import EncodedRows
from mtl_rank.data.labels import Target
from mtl_rank.evaluation.outcomes import Doubles


def labels_in_units(rows: EncodedRows, targets: tuple[Target, ...]) -> Doubles:
    """The encoded labels of rows as they were before, float64 (N, T)."""
    values = rows.labels.astype(np.float64)
    for i, target in enumerate(targets):
        if target.kind == "regression":
            values[:, i] = values[:, i] * target.std + target.mean
            if target.transform == "log1p":
                values[:, i] = np.expm1(values[:, i])
    return values


def overall(target: Target, values: Doubles) -> float:
    """The rate of a task, or the mean of its labels. values: (N,) the labels, NaN = undefined.

    The mean that a target knows is that of its logarithms: the geometric mean, which lies below.
    """
    return float(np.nanmean(values)) if target.transform == "log1p" else target.mean


def encoded(target: Target, means: Doubles | float) -> Doubles:
    """Rates and means as outputs of the network, which `decode_outputs` turns into them again."""
    if target.kind == "binary":
        return np.log(np.divide(means, np.subtract(1, means)))
    values = np.log1p(means) if target.transform == "log1p" else means
    return np.divide(np.subtract(values, target.mean), target.std)


def corrections(
    targets: tuple[Target, ...], predict: Callable[[EncodedRows], Doubles], rows: EncodedRows
) -> Doubles:
    """(T,) to be added to the outputs of a model fitted to log1p(y), so that its mean is that of y; else 0.

    Such a model aims at the mean of logarithms. The ratio of the means of 1 + y and 1 + p puts that right for all
    rows alike, as the mean of the residuals' exponentials does (Duan 1983), with less weight on their tail.
    """
    found = np.zeros(len(targets))
    logarithms = [i for i, t in enumerate(targets) if t.kind == "regression" and t.transform == "log1p"]
    if not logarithms:
        return found
    outputs = predict(rows)
    for i in logarithms:
        y, z = (values[:, i].astype(np.float64) * targets[i].std for values in (rows.labels, outputs))
        defined = ~np.isnan(y)
        found[i] = np.log(np.exp(y[defined]).mean() / np.exp(z[defined]).mean()) / targets[i].std
    return found
