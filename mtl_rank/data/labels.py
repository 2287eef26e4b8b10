"""From label columns to training targets, and from network outputs back to the label's unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from mtl_rank.config import Task
from mtl_rank.config.tasks import Kind, Label
from mtl_rank.data.classes import class_positions, sigmoid
from mtl_rank.data.dense import DenseFitter
from mtl_rank.errors import DataError, did_you_mean

__all__ = [
    "LabelReader",
    "Labels",
    "Target",
    "TargetFitter",
    "decode_outputs",
    "encode_labels",
    "row_weights",
    "sigmoid",
]

Labels = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A fitted task.

    given: position of the parent task; None = defined on every row.
    mean: of a binary label its rate, of a regression label the mean of its transformed values, where defined.
    std: of the transformed values of a regression label; 1 for others.
    rows, positives: training rows on which the task is defined, and those above zero.
    classes, rates: of a multiclass or ordinal label, whose value here is the position of its class: the classes in
        order, and the share of each in the training rows.
    """

    name: str
    label: str
    kind: Kind
    transform: Literal["log1p", "none"]
    given: int | None
    mean: float
    std: float
    rows: int
    positives: int
    classes: tuple[Label, ...] = ()
    rates: tuple[float, ...] = ()


class LabelReader:
    """Reads the label columns of a table as float64 (N, T), NaN where a task is undefined or unobserved.

    Of a task with classes it is the position of the class.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = dict(tasks)
        self._parents = _parents(tasks)

    def read(self, table: pl.DataFrame) -> Doubles:
        """Labels in their own unit. Raises DataError for values that cannot be labels of their task."""
        labels = np.empty((table.height, len(self.tasks)))
        for i, (name, task) in enumerate(self.tasks.items()):
            labels[:, i] = _label_values(table, name, task)
        observed = labels.copy()
        for i, parent in enumerate(self._parents):
            # A chain masks by every ancestor: an ancestor that is not 1 leaves its descendants undefined.
            while parent is not None:
                labels[observed[:, parent] != 1, i] = np.nan
                parent = self._parents[parent]
        return labels


def _label_values(table: pl.DataFrame, name: str, task: Task) -> Doubles:
    if task.label not in table.columns:
        raise DataError(f"task {name}: the table has no label column {task.label!r}")
    column = table[task.label]
    if task.has_classes:
        return class_positions(column, name, task)
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"task {name}: label {task.label!r} is {column.dtype}, it must be a number")
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    present = values[~np.isnan(values)]
    if np.isinf(present).any():
        raise DataError(f"task {name}: label {task.label!r} holds infinite values")
    if task.kind == "binary":
        odd = present[(present != 0) & (present != 1)]
        if len(odd):
            raise DataError(
                f"task {name}: label {task.label!r} holds {odd[0]:g}; a binary label is 0, 1 or null "
                "(or set kind: regression, or multiclass or ordinal with classes)"
            )
    elif task.transform == "log1p" and (present < 0).any():
        raise DataError(f"task {name}: label {task.label!r} is negative, which transform: log1p cannot take")
    return values


def row_weights(table: pl.DataFrame, column: str) -> Labels:
    """How much each row counts in training, float32 (N,). Raises DataError unless all are numbers >= 0."""
    where = f"weights: column {column!r}"
    if column not in table.columns:
        raise DataError(f"{where} is not in the table; {did_you_mean(column, table.columns)}")
    if not table[column].dtype.is_numeric():
        raise DataError(f"{where} is {table[column].dtype}, it must be a number")
    values = table[column].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    odd = values[~(np.isfinite(values) & (values >= 0))]
    if len(odd):
        shown = "nulls" if np.isnan(odd[0]) else f"{odd[0]:g}"
        raise DataError(f"{where} holds {shown}; a weight is a finite number >= 0")
    return values


class TargetFitter:
    """Collects rates, means and deviations of the labels over streamed training rows."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._tasks = dict(tasks)
        self._moments = [DenseFitter(_moment_transform(task), bins=0) for task in tasks.values()]
        self._rows = np.zeros(len(tasks), np.int64)
        self._positives = np.zeros(len(tasks), np.int64)
        self._of_class = [np.zeros(len(task.classes), np.int64) for task in tasks.values()]

    def add(self, labels: Doubles) -> None:
        for i, moments in enumerate(self._moments):
            moments.add(labels[:, i])
            if len(counts := self._of_class[i]):
                known = labels[~np.isnan(labels[:, i]), i].astype(np.int64)
                counts += np.bincount(known, minlength=len(counts))
        self._rows += (~np.isnan(labels)).sum(axis=0)
        self._positives += (np.nan_to_num(labels) > 0).sum(axis=0)

    def fit(self) -> tuple[Target, ...]:
        """Raises DataError for a task without labelled rows, or of which a class has none."""
        parents = _parents(self._tasks)
        targets = []
        for i, (name, task) in enumerate(self._tasks.items()):
            rows, positives = int(self._rows[i]), int(self._positives[i])
            where = f"task {name}: of the training rows"
            if rows == 0:
                raise DataError(f"{where} none has label {task.label!r}; check the label and the split")
            if task.kind == "binary" and positives in (0, rows):
                kind = "positive" if positives == 0 else "negative"
                raise DataError(
                    f"{where} with label {task.label!r} ({rows}) none is {kind}; nothing to learn"
                )
            for value, count in zip(task.classes, self._of_class[i], strict=True):
                if not count:
                    raise DataError(
                        f"{where} with label {task.label!r} ({rows}) none is {value}; leave it out of classes"
                    )
            scaler = self._moments[i].fit()
            targets.append(
                Target(
                    name=name,
                    label=task.label,
                    kind=task.kind,
                    transform=task.transform,
                    given=parents[i],
                    mean=scaler.mean,
                    std=scaler.std if task.kind == "regression" else 1.0,
                    rows=rows,
                    positives=positives,
                    classes=task.classes,
                    rates=tuple((self._of_class[i] / rows).tolist()),
                )
            )
        return tuple(targets)


def encode_labels(labels: Doubles, targets: tuple[Target, ...]) -> Labels:
    """Training targets, float32 (N, T): 0/1, the position of the class, the standardised value; NaN stays."""
    encoded = labels.astype(np.float32)
    for i, target in enumerate(targets):
        if target.kind == "regression":
            values = np.log1p(labels[:, i]) if target.transform == "log1p" else labels[:, i]
            encoded[:, i] = (values - target.mean) / target.std
    return encoded


def decode_outputs(logits: Doubles, targets: tuple[Target, ...]) -> Doubles:
    """Network outputs (N, C) in the unit of each label, (N, T): probabilities, or values of a regression task.

    NaN for a task with classes: that is several numbers, see `class_probabilities`.
    """
    outputs = np.full((len(logits), len(targets)), np.nan)
    for i, target in enumerate(targets):
        if target.kind == "binary":
            outputs[:, i] = sigmoid(logits[:, i])
        elif target.kind == "regression":
            values = logits[:, i] * target.std + target.mean
            outputs[:, i] = np.maximum(np.expm1(values), 0) if target.transform == "log1p" else values
    return outputs


def _moment_transform(task: Task) -> Literal["log1p", "none"]:
    return "log1p" if task.kind == "regression" and task.transform == "log1p" else "none"


def _parents(tasks: Mapping[str, Task]) -> list[int | None]:
    names = list(tasks)
    return [None if task.given is None else names.index(task.given) for task in tasks.values()]
