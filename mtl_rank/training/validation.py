"""Validation numbers of an epoch: per task, and their mean."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_rank.config import Fit
from mtl_rank.data.classes import numbers_of_classes
from mtl_rank.data.labels import Target, sigmoid
from mtl_rank.errors import ConfigError, DataError, did_you_mean
from mtl_rank.metrics import auc, calibration, normalised_entropy
from mtl_rank.nn.columns import Columns
from mtl_rank.nn.gates import entropy, utilisation

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

MEAN_NE = "valid/ne"
_HIGHER_IS_BETTER = {"auc", "accuracy", "kappa", "spearman"}
_METRICS = {
    "binary": ("auc", "ne", "calibration"),
    "regression": ("nmse",),
    "multiclass": ("auc", "ne", "accuracy"),
    "ordinal": ("auc", "ne", "accuracy", "kappa", "spearman"),
}


def validation_metrics(
    logits: Doubles, labels: Doubles, targets: tuple[Target, ...], weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """`valid/<task>/<metric>` where defined, and `valid/ne`, the mean normalised loss of the tasks.

    The normalised loss of a task with classes is its NE, log loss over entropy, of a regression task its squared
    error over the variance of the label, both 1 for a constant prediction. logits: (N, C), labels: (N, T), encoded;
    NaN = undefined.
    weights: of tasks in the mean, 1 where none is given.
    Raises DataError when predictions are not finite.
    """
    if not np.isfinite(logits).all():
        raise DataError(
            "training diverged: predictions are no longer finite; lower fit.lr or set fit.clip_norm"
        )
    found: dict[str, float | None] = {}
    losses, shares = [], []
    columns = Columns.of(targets).of_task
    for i, target in enumerate(targets):
        defined = ~np.isnan(labels[:, i])
        y, z = labels[defined, i], logits[defined, i]
        if not len(y):
            continue
        prefix = f"valid/{target.name}/"
        if target.kind == "binary":
            p = sigmoid(z)
            loss = normalised_entropy(y, p)
            found |= {
                prefix + "auc": auc(y, z),
                prefix + "ne": loss,
                prefix + "calibration": calibration(y, p),
            }
        elif target.classes:
            numbers = numbers_of_classes(y, logits[defined][:, columns[i]], target)
            loss = numbers["ne"]
            found |= {prefix + name: numbers[name] for name in _METRICS[target.kind]}
        else:
            loss = float(((z - y) ** 2).mean() / y.var()) if np.ptp(y) > 0 else None
            found[prefix + "nmse"] = loss
        if loss is not None:
            losses.append(loss)
            shares.append((weights or {}).get(target.name, 1.0))
    found[MEAN_NE] = float(np.average(losses, weights=shares)) if any(shares) else None
    return {name: value for name, value in found.items() if value is not None}


def monitored_names(targets: tuple[Target, ...] | dict[str, str]) -> list[str]:
    """Every metric that `fit.monitor` may name. A dict maps task names to kinds."""
    kinds = targets if isinstance(targets, dict) else {target.name: target.kind for target in targets}
    return [MEAN_NE, *(f"valid/{name}/{metric}" for name, kind in kinds.items() for metric in _METRICS[kind])]


def gate_numbers(gates: Sequence[Tensor], targets: tuple[Target, ...]) -> dict[str, float]:
    """Mean weights `gate/<task>/<level>/<expert>` and `gate/<task>/<level>/entropy`. gates: per level (B, T, E)."""
    found: dict[str, float] = {}
    for level, of_level in enumerate(gates, start=1):
        weights, spread = utilisation(of_level.float()).tolist(), entropy(of_level.float()).tolist()
        for i, target in enumerate(targets):
            prefix = f"gate/{target.name}/{level}/"
            found |= {f"{prefix}{k}": weight for k, weight in enumerate(weights[i], start=1)}
            found[prefix + "entropy"] = spread[i]
    return found


def gate_names(experts_per_level: Sequence[int], targets: tuple[Target, ...]) -> list[str]:
    """The keys of `gate_numbers`."""
    return list(
        gate_numbers([torch.ones(1, len(targets), experts) for experts in experts_per_level], targets)
    )


def check_monitor(fit: Fit, kinds: dict[str, str]) -> None:
    """Raises ConfigError when `fit.monitor` names no metric of these tasks, or one without a direction.

    So it does for weights of tasks that do not exist, that are all 0, or that the monitored metric would ignore.
    """
    names = [name for name in monitored_names(kinds) if not name.endswith("/calibration")]
    if fit.monitor not in names:
        raise ConfigError(f"fit.monitor: there is no {fit.monitor!r}; {did_you_mean(fit.monitor, names)}")
    for name in fit.monitor_weights:
        if name not in kinds:
            raise ConfigError(f"fit.monitor_weights: there is no task {name!r}; {did_you_mean(name, kinds)}")
    if fit.monitor_weights and fit.monitor != MEAN_NE:
        raise ConfigError(
            f"fit.monitor_weights: {fit.monitor} is a single metric and would ignore them; remove them or "
            f"set fit.monitor: {MEAN_NE}"
        )
    if not any(fit.monitor_weights.get(name, 1.0) for name in kinds):
        raise ConfigError("fit.monitor_weights: every weight is 0, so nothing would be monitored")


def check_measurable(
    monitor: str, labels: Floats, targets: tuple[Target, ...], weights: Mapping[str, float] | None = None
) -> None:
    """Raises DataError when the validation rows leave `fit.monitor` undefined. labels: (N, T), encoded."""
    values = np.asarray(labels, np.float64)
    logits = np.zeros((len(values), Columns.of(targets).total))
    # Of predictions that are all alike a rank correlation is undefined.
    logits[:, : len(targets)] = np.linspace(-1e-3, 1e-3, len(values))[:, None]
    if monitor not in validation_metrics(logits, values, targets, weights):
        raise DataError(
            f"fit.monitor: {monitor} is undefined on the {len(values)} validation rows, which lack a label or one "
            "of its classes; move split.valid or monitor another task"
        )


def improves(monitor: str, value: float, best: float | None) -> bool:
    """Whether `value` of the monitored metric is better than `best`."""
    if best is None:
        return True
    higher = monitor.rsplit("/", 1)[-1] in _HIGHER_IS_BETTER
    return value > best if higher else value < best
