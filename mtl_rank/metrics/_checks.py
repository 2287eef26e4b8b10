"""What every metric asks of its inputs before it counts anything."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Positions = NDArray[np.int32] | NDArray[np.int64]

# Long sums go through blocks of this many rows, so that 10M rows need no temporary of their own size.
BLOCK = 1 << 18


def column(name: str, values: ArrayLike, rows: int | None = None) -> Array:
    """A one-dimensional numeric array without NaN, of `rows` values if given.

    Raises:
        ValueError: it is not, naming the argument.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not the shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, not {array.dtype}")
    if rows is not None and len(array) != rows:
        raise ValueError(f"{name} has {len(array)} values for {rows} labels")
    if array.dtype.kind == "f" and bool(np.isnan(array).any()):
        raise ValueError(f"{name} holds NaN: mask rows without a value first")
    return array


def binary(labels: ArrayLike) -> NDArray[np.bool_]:
    """Labels as booleans.

    Raises:
        ValueError: a label is neither 0 nor 1.
    """
    array = column("labels", labels)
    positive: NDArray[np.bool_] = array == 1
    if not bool((positive | (array == 0)).all()):
        raise ValueError("labels must be 0 or 1")
    return positive


def weights_of(weights: ArrayLike | None, rows: int) -> NDArray[np.float64] | None:
    """Row weights as float64, or None where every row counts once.

    Raises:
        ValueError: a weight is negative, infinite or NaN.
    """
    if weights is None:
        return None
    array = column("weights", weights, rows).astype(np.float64, copy=False)
    if rows and (array.min() < 0 or not np.isfinite(array.max())):
        raise ValueError("weights must be finite and at least 0")
    return array


def blocks(rows: int) -> Iterator[slice]:
    """Slices that cover `rows` rows in order."""
    return (slice(start, start + BLOCK) for start in range(0, rows, BLOCK))


def starts_of_runs(*keys: Array) -> NDArray[np.intp]:
    """Where a run of equal keys begins, in rows that are sorted by these keys."""
    rows = len(keys[0])
    new = np.zeros(rows, dtype=bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)


def positions(index: NDArray[np.intp]) -> Positions:
    """Positions of rows in half the space where they fit."""
    return index.astype(np.int32) if len(index) < 2**31 else index
