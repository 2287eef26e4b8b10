"""For whom is the model good? The same numbers for each value of a column."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mtl_rank.errors import DataError
from mtl_rank.evaluation.outcomes import Floats
from mtl_rank.metrics import Ordered, Positions
from mtl_rank.metrics.probability import row_losses

MOST_VALUES = 30
BUCKETS = 10
FEW_ROWS = 100
FEW_POSITIVES = 10
_PART = 1 << 18
MISSING, OTHERS = "(missing)", "(others)"


@dataclass(frozen=True)
class Slice:
    """A column cut into few values. codes: int16 (N,), positions in `values`."""

    codes: npt.NDArray[np.int16]
    values: tuple[str, ...]


@dataclass(frozen=True)
class SliceNumbers:
    """One output on the rows with one value of a column.

    note: why its numbers say little, if they do.
    """

    by: str
    value: str
    rows: int
    positives: int
    mean_label: float
    mean_prediction: float
    calibration: float | None
    auc: float | None
    ne: float | None
    rmse: float | None
    note: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def cut(name: str, values: pl.Series) -> Slice:
    """Cut a column: numbers of more than 30 values into ten buckets of equal mass, others into their values.

    Values beyond the 30 most frequent are one, "(others)". Raises DataError for lists and the like.
    """
    dtype = values.dtype
    if dtype.is_nested() or dtype == pl.Binary:
        raise DataError(f"--by {name}: the column is {dtype}; rows are told apart by text, numbers or times")
    if dtype.is_decimal():
        values = values.cast(pl.Float64)
    if dtype.is_float():
        values = values.fill_nan(None)
    if (dtype.is_numeric() or dtype.is_temporal()) and values.n_unique() > MOST_VALUES + 1:
        return _buckets(values)
    counted = values.drop_nulls().value_counts(sort=False, name="rows")
    kept = counted.sort("rows", values.name, descending=[True, False]).head(MOST_VALUES)[values.name].sort()
    names = [_shown(value) for value in kept]
    others = len(names) + 1 if len(kept) < len(counted) else None
    position = (
        values.replace_strict(kept, range(1, len(kept) + 1), default=others, return_dtype=pl.Int16)
        if len(kept)
        else values
    )
    codes = pl.select(pl.when(values.is_null()).then(0).otherwise(position)).to_series()
    return Slice(codes.cast(pl.Int16).to_numpy(), (MISSING, *names, OTHERS))


def slice_numbers(
    labels: Floats,
    predictions: Floats,
    order: Positions | None,
    slices: Mapping[str, Slice],
) -> tuple[SliceNumbers, ...]:
    """Every slice of one output, the worst first: by NE or RMSE, those with few rows behind the others.

    labels, predictions: (N,) without NaN. order: of the rows by prediction, for probabilities; None = regression.
    """
    losses = np.square(predictions - labels) if order is None else row_losses(labels, predictions)
    found = [
        numbers
        for name, cut in slices.items()
        for numbers in _of_one(name, cut, labels, predictions, losses, order)
    ]
    return tuple(sorted(found, key=lambda one: badness(one.as_dict())))


def _of_one(
    name: str, cut: Slice, y: Floats, p: Floats, losses: Floats, order: Positions | None
) -> Sequence[SliceNumbers]:
    size = len(cut.values)
    rows = _sums(cut.codes, None, size)
    if np.count_nonzero(rows) < 2:
        # One slice that is everything says nothing new.
        return []
    total, promised, lost = (_sums(cut.codes, part, size) for part in (y, p, losses))
    positives = _sums(cut.codes, y > 0, size)
    aucs = [None] * size if order is None else _aucs(cut, y > 0, p, order)
    numbers = []
    for i in np.flatnonzero(rows):
        rate, n = total[i] / rows[i], int(rows[i])
        entropy = -n * (rate * np.log(rate) + (1 - rate) * np.log(1 - rate)) if 0 < rate < 1 else 0.0
        binary = order is not None
        numbers.append(
            SliceNumbers(
                by=name,
                value=cut.values[i],
                rows=n,
                positives=int(positives[i]),
                mean_label=float(rate),
                mean_prediction=float(promised[i] / n),
                calibration=float(promised[i] / total[i]) if total[i] > 0 else None,
                auc=aucs[i],
                ne=float(lost[i] / entropy) if binary and entropy > 0 else None,
                rmse=None if binary else float(np.sqrt(lost[i] / n)),
                note=_note(n, int(positives[i]), binary),
            )
        )
    return numbers


def _aucs(cut: Slice, positive: npt.NDArray[np.bool_], p: Floats, order: Positions) -> list[float | None]:
    """The AUC of each value. Rows picked from an order are in order."""
    codes = cut.codes[order]
    found = []
    for code in range(len(cut.values)):
        rows = order[codes == code]
        found.append(Ordered(positive[rows], p[rows], None, rows).auc())
    return found


def _sums(
    codes: npt.NDArray[np.int16], values: npt.NDArray[Any] | None, size: int
) -> npt.NDArray[np.float64]:
    """(size,) sums of values by code, or counts. In parts, since bincount makes a wider copy of what it is given."""
    found = np.zeros(size)
    for start in range(0, len(codes), _PART):
        part = slice(start, start + _PART)
        found += np.bincount(codes[part], None if values is None else values[part], minlength=size)
    return found


def _note(rows: int, positives: int, binary: bool) -> str | None:
    if binary and positives in (0, rows):
        return "one class only"
    if rows < FEW_ROWS or (binary and min(positives, rows - positives) < FEW_POSITIVES):
        return "few rows"
    return None


def badness(numbers: Mapping[str, Any]) -> tuple[bool, float, str, str]:
    """What slices are sorted by, the worst first, from the numbers of one as a mapping."""
    measured = numbers["ne"] if numbers["ne"] is not None else numbers["rmse"]
    return numbers["note"] is not None, -(measured or 0.0), numbers["by"], numbers["value"]


def _buckets(values: pl.Series) -> Slice:
    numbers = values.cast(pl.Int64) if values.dtype.is_temporal() else values
    sample = numbers.drop_nulls()
    edges = np.unique(np.quantile(sample.to_numpy(), np.arange(1, BUCKETS) / BUCKETS, method="inverted_cdf"))
    codes = np.searchsorted(edges, numbers.fill_null(0).to_numpy(), side="right").astype(np.int16) + 1
    codes[values.is_null().to_numpy()] = 0
    borders = [_shown(edge) for edge in pl.Series(edges).cast(numbers.dtype).cast(values.dtype)]
    names = [
        f"below {borders[0]}",
        *(f"{low} to below {high}" for low, high in pairwise(borders)),
        f"{borders[-1]} and above",
    ]
    return Slice(codes.astype(np.int16), (MISSING, *names))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A text without a letter would be a row without a name.
    return f"{value:.4g}" if isinstance(value, float) else str(value) or '""'
