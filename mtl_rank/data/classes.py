"""Labels that are one of several classes: their positions, and the probabilities that logits say."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mtl_rank.config import Task
from mtl_rank.errors import DataError, did_you_mean
from mtl_rank.metrics import class_numbers
from mtl_rank.nn.columns import Classified

Doubles = npt.NDArray[np.float64]


def class_positions(values: pl.Series, name: str, task: Task) -> Doubles:
    """The position of each label among the classes of its task, NaN where there is none: (N,).

    Raises DataError for a label that is none of them, or a column of another type than they are.
    """
    where = f"task {name}: label {task.label!r}"
    are_text = isinstance(task.classes[0], str)
    if are_text and values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    fits = values.dtype == pl.String if are_text else values.dtype.is_numeric()
    if not fits and values.dtype != pl.Null:
        raise DataError(f"{where} is {values.dtype}, its classes are {'text' if are_text else 'numbers'}")
    keys = values if are_text else values.cast(pl.Float64).fill_nan(None)
    classes = pl.Series(task.classes, dtype=pl.String if are_text else pl.Float64, strict=False)
    positions = keys.replace_strict(classes, range(len(classes)), default=None, return_dtype=pl.Float64)
    odd = values.filter(keys.is_not_null() & positions.is_null())
    if len(odd):
        known = [str(value) for value in task.classes]
        raise DataError(
            f"{where} holds {odd[0]!r}, which is none of its classes; {did_you_mean(str(odd[0]), known)}"
        )
    found: Doubles = positions.fill_null(float("nan")).to_numpy()
    return found


def class_probabilities(kind: str, logits: Doubles) -> Doubles:
    """P(y = k): softmax of K logits, or differences of K - 1 cumulative ones, which fall. Rows sum to 1.

    Shape: multiclass (N, K), ordinal (N, K - 1) -> (N, K)
    """
    if kind == "multiclass":
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Doubles = odds / odds.sum(axis=1, keepdims=True)
        return shares
    above, below = sigmoid(logits), sigmoid(-logits)
    # sigmoid(a) - sigmoid(b) without the difference of two numbers close to 1.
    between = above[:, :-1] * below[:, 1:] * -np.expm1(np.minimum(np.diff(logits, axis=1), 0))
    return np.concatenate([below[:, :1], between, above[:, -1:]], axis=1)


def expected_class(probabilities: Doubles, classes: Sequence[object]) -> Doubles:
    """The mean of the class of a row, whose classes are numbers: (N, K) -> (N,)."""
    values: Doubles = probabilities @ np.array(classes, np.float64)
    return values


def numbers_of_classes(labels: Doubles, logits: Doubles, target: Classified) -> dict[str, float | None]:
    """`metrics.class_numbers` of a fitted task. labels: (N,) positions. logits: (N, its columns)."""
    values = np.array(target.classes, np.float64) if target.kind == "ordinal" else None
    return class_numbers(labels, class_probabilities(target.kind, logits), values)


def sigmoid(x: Doubles) -> Doubles:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))
