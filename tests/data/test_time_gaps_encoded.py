"""The time from each behaviour of a history to its row, as buckets."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from encoder_tables import fitted, table_of
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.data.encoded import EncodedDataset, concat, take
from mtl_rank.errors import DataError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIMES = pl.List(pl.Datetime("us", "UTC"))
# Seconds before the row; below zero: after it. None: a time that is not known.
HISTORIES = st.lists(
    st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-100, 10**9)), max_size=7)),
    min_size=2,
    max_size=9,
)


def table_with(histories):
    """One row per history, a minute apart; ids 1, 2, 3 ..."""
    rows = [NOW + timedelta(minutes=i) for i in range(len(histories))]
    ids = [None if history is None else list(range(1, len(history) + 1)) for history in histories]
    times = [
        None if history is None else [None if s is None else at - timedelta(seconds=s) for s in history]
        for at, history in zip(rows, histories, strict=True)
    ]
    return table_of(
        event_timestamp=pl.Series(rows, dtype=pl.Datetime("us", "UTC")),
        seen=pl.Series(ids, dtype=pl.List(pl.Int64)),
        seen_at=pl.Series(times, dtype=TIMES),
    )


def encoder_of(table, max_len=4):
    return fitted(table, seen={"role": "sequence", "max_len": max_len, "times": "seen_at"})


def bucket(seconds):
    if seconds is None:
        return 33
    return min(1 + math.floor(math.log2(1 + max(seconds, 0))), 32)


@given(HISTORIES, st.integers(1, 6))
def test_gaps_follow_the_formula_in_line_with_the_ids(histories, max_len):
    table = table_with(histories)
    found = encoder_of(table, max_len).encode(table)
    expected = np.zeros((len(histories), max_len))
    for row, history in enumerate(histories):
        kept = (history or [])[-max_len:]
        expected[row, : len(kept)] = [bucket(seconds) for seconds in kept]
    (gaps,) = found.gaps
    assert gaps.dtype == np.int32
    np.testing.assert_array_equal(gaps, expected)


def test_gaps_survive_the_file_and_choosing_rows(tmp_path):
    table = table_with([[5, 0], None, [10**6, None, 3], []])
    encoder = encoder_of(table)
    rows = encoder.encode(table)
    again = concat([take(rows, slice(0, 1)), take(rows, np.array([1, 2, 3]))])
    np.testing.assert_array_equal(again.gaps[0], rows.gaps[0])
    stored = EncodedDataset.write(tmp_path, encoder.layout, 1, [rows])
    np.testing.assert_array_equal(stored.arrays.gaps[0], rows.gaps[0])


def test_what_is_no_time_for_each_id_is_refused():
    table = table_with([[5, 0], [1]])
    encoder = encoder_of(table)
    for changed, words in (
        (table.drop("seen_at"), "has no column 'seen_at'"),
        (table.drop("event_timestamp"), "has no column 'event_timestamp'"),
        (table.with_columns(seen_at=pl.col("seen")), "it must hold timestamps"),
        (table.with_columns(seen_at=pl.col("seen_at").list.head(1)), "another length"),
    ):
        with pytest.raises(DataError, match=words):
            encoder.encode(changed)
