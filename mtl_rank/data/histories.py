"""Lists of a table, and the time from each behaviour of a history to the row it is read for."""

import numpy as np
import polars as pl

from mtl_rank.data.vocabulary import Ids
from mtl_rank.errors import DataError
from mtl_rank.features.schema import Input
from mtl_rank.features.snapshot import EVENT_TIMESTAMP
from mtl_rank.nn.layout import GAP_BUCKETS

UNKNOWN_GAP = GAP_BUCKETS - 1
_LARGEST = GAP_BUCKETS - 2


def as_lists(values: pl.Series, spec: Input) -> pl.Series:
    """A list column; an all-null one (no row matched) has no element type and becomes empty lists."""
    if values.dtype == pl.Null:
        return values.cast(pl.List(pl.Null))
    if isinstance(values.dtype, pl.Array):
        return values.arr.to_list()
    if not isinstance(values.dtype, pl.List):
        raise DataError(f"{spec.origin}: a {spec.role} needs lists, the column is {values.dtype}")
    return values


def time_gaps(table: pl.DataFrame, spec: Input, longest: int) -> Ids:
    """Buckets of the time from each id of a sequence to the row: int32 (N, longest), in line with its ids.

    Of g seconds 1 + floor(log2(1 + g)), at most 32; a time after the row's counts as the row's own.
    Raises DataError when the times are no times, or not one for each id.
    """
    assert spec.options.times is not None
    where = f"{spec.origin}: times {spec.options.times}"
    if EVENT_TIMESTAMP not in table.columns:
        raise DataError(f"{where}: the table has no column {EVENT_TIMESTAMP!r}, from which gaps are counted")
    ids, times = as_lists(table[spec.name], spec), as_lists(table[spec.options.times], spec)
    lengths = ids.list.len().fill_null(0)
    if not (lengths == times.list.len().fill_null(0)).all():
        raise DataError(f"{where}: a list has another length than that of the ids")
    kept = lengths.clip(upper_bound=longest).to_numpy()
    gaps = np.zeros((len(ids), longest), np.int32)
    flat = times.list.tail(longest).filter(kept > 0).explode()
    if not len(flat):
        return gaps
    if flat.dtype != pl.Null and not isinstance(flat.dtype, pl.Datetime):
        raise DataError(f"{where}: holds {flat.dtype}, it must hold timestamps")
    rows = np.repeat(_microseconds(table[EVENT_TIMESTAMP]), kept)
    # Times that are not known, nulls, are NaN from here on.
    seconds = np.maximum(rows - _microseconds(flat), 0) / 1e6
    known = ~np.isnan(seconds)
    buckets = np.full(len(seconds), UNKNOWN_GAP, np.int32)
    buckets[known] = np.minimum(1 + np.floor(np.log2(1 + seconds[known])), _LARGEST)
    gaps[np.arange(longest) < kept[:, None]] = buckets
    return gaps


def _microseconds(times: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """float64 (N,), exact for centuries; NaN for null."""
    if times.dtype == pl.Null:
        return np.full(len(times), np.nan)
    return times.dt.epoch("us").cast(pl.Float64).fill_null(float("nan")).to_numpy()
