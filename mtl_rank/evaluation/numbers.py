"""Predictions + labels -> numbers, per task and per chain product."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mtl_rank import metrics
from mtl_rank.config import ProjectConfig

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TaskNumbers:
    """One output measured on the rows where its label is known. None = undefined, for the reason in `note`.

    attainable_auc: the AUC of the true probabilities, where they are known (simulated data).
    calibration: mean prediction / mean label. ne: log loss / entropy of the base rate.
    """

    name: str
    kind: Literal["binary", "regression"]
    rows: int
    positives: int
    mean_label: float | None
    mean_prediction: float | None
    calibration: float | None
    auc: float | None = None
    attainable_auc: float | None = None
    gauc: float | None = None
    pr_auc: float | None = None
    ne: float | None = None
    log_loss: float | None = None
    ece: float | None = None
    rmse: float | None = None
    mae: float | None = None
    spearman: float | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The numbers that belong to this kind of task; undefined ones as null."""
        foreign = _REGRESSION_ONLY if self.kind == "binary" else _BINARY_ONLY
        return {key: value for key, value in asdict(self).items() if key not in foreign}


_REGRESSION_ONLY = {"rmse", "mae", "spearman"}
_BINARY_ONLY = {"auc", "attainable_auc", "gauc", "pr_auc", "ne", "log_loss", "ece"}


def measure(
    name: str,
    kind: Literal["binary", "regression"],
    labels: Doubles,
    predictions: Doubles,
    groups: npt.NDArray[Any],
    truth: Doubles | None,
) -> TaskNumbers:
    """All numbers of one output. labels: (N,), NaN = left out; groups: (N,) whose rows GAUC compares."""
    defined = ~np.isnan(labels)
    y, p, g = labels[defined], predictions[defined], groups[defined]
    positives = int((y > 0).sum())
    if not len(y):
        return TaskNumbers(name, kind, 0, 0, None, None, None, note="no row has this label")
    known = truth is not None and not np.isnan(truth[defined]).any()
    one_class = kind == "binary" and positives in (0, len(y))
    basis = TaskNumbers(
        name,
        kind,
        rows=len(y),
        positives=positives,
        mean_label=float(y.mean()),
        mean_prediction=float(p.mean()),
        calibration=float(p.sum() / y.sum()) if y.sum() > 0 else None,
        note=f"every label is {int(y[0])}: ranking numbers are undefined" if one_class else None,
    )
    if kind == "regression":
        return replace(basis, rmse=metrics.rmse(y, p), mae=metrics.mae(y, p), spearman=metrics.spearman(y, p))
    return replace(
        basis,
        auc=metrics.auc(y, p),
        attainable_auc=metrics.auc(y, truth[defined]) if truth is not None and known else None,
        gauc=metrics.gauc(y, p, g).value,
        pr_auc=metrics.pr_auc(y, p),
        ne=metrics.normalised_entropy(y, p),
        log_loss=metrics.log_loss(y, p),
        ece=metrics.expected_calibration_error(y, p),
    )


def measure_all(
    config: ProjectConfig,
    labels: dict[str, Doubles],
    predictions: dict[str, Doubles],
    groups: npt.NDArray[Any],
    truth: dict[str, Doubles],
) -> list[TaskNumbers]:
    """Tasks where they are defined, then chain products over every row whose chain of labels is known."""
    found = [
        measure(name, task.kind, labels[name], predictions[name], groups, truth.get(name))
        for name, task in config.tasks.items()
    ]
    for product, chain in config.products().items():
        true_product = None
        if all(name in truth for name in chain):
            true_product = np.prod([truth[name] for name in chain], axis=0)
        kind = config.tasks[chain[-1]].kind
        chained = chain_label([labels[name] for name in chain])
        found.append(measure(product, kind, chained, predictions[product], groups, true_product))
    return found


def chain_label(labels: list[Doubles]) -> Doubles:
    """The label of a chain product: 0 where an ancestor is 0, NaN where an ancestor is unknown."""
    product = labels[0]
    for label in labels[1:]:
        product = np.where(product == 0, 0, np.where(product == 1, label, np.nan))
    return product
