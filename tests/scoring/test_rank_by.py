"""Ranks within keys, and chunks that never cut a key in two."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_rank.errors import ConfigError, DataError
from mtl_rank.features.snapshot import open_snapshot
from mtl_rank.scoring.candidates import chunks_of_keys, even_chunks
from mtl_rank.scoring.expression import RankExpression
from mtl_rank.scoring.ranking import Ranking, check_columns

users = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3, None])),
    max_size=40,
)


def ranked(rows, top_k):
    """Rows sorted by user and day, ranked: what is kept of them, as (user, day, position, value, rank)."""
    rows = sorted(rows, key=lambda row: (row[0] is None, row[0] or "", row[1]))
    table = pa.table(
        {
            "user": pa.array([row[0] for row in rows], pa.string()),
            "day": pa.array([row[1] for row in rows], pa.int64()),
            "position": pa.array(range(len(rows)), pa.int64()),
            "ctr": pa.array([row[2] for row in rows], pa.float64()),
        }
    )
    ranking = Ranking(RankExpression.parse("2 * ctr", ["ctr"]), ("user", "day"), top_k)
    return rows, ranking.apply(table)


@given(users, st.one_of(st.none(), st.integers(1, 5)))
def test_the_best_of_each_key_come_first_and_are_counted(rows, top_k):
    rows, found = ranked(rows, top_k)
    expected = []
    for key in dict.fromkeys(row[:2] for row in rows):
        mine = [(position, row[2]) for position, row in enumerate(rows) if row[:2] == key]
        # sorted() is stable: of equal values the earlier comes first.
        mine.sort(key=lambda each: (each[1] is None, -(each[1] or 0)))
        for rank, (position, value) in enumerate(mine[:top_k], start=1):
            expected.append((*key, position, None if value is None else 2 * value, rank))
    columns = [found[name].to_pylist() for name in ("user", "day", "position", "rank_by", "rank")]
    assert list(zip(*columns, strict=True)) == expected


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 12))
def test_chunks_end_where_a_key_ends(tmp_path_factory, sizes, size):
    keys = np.repeat(np.arange(len(sizes)) * 7, sizes)
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    table = pl.DataFrame({"user": keys, "event_timestamp": [0] * len(keys), "mtlrank_row": range(len(keys))})
    table.with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC"))).write_parquet(path)
    chunks = chunks_of_keys(open_snapshot(path, "rows"), ["user"], size)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.first_row for chunk in chunks] == [0, *np.cumsum([chunk.rows for chunk in chunks])[:-1]]
    assert sum(chunk.rows for chunk in chunks) == len(keys)
    ends = set(np.cumsum(sizes).tolist())
    for chunk in chunks:
        assert chunk.first_row + chunk.rows in ends
        # As few keys as make a chunk large enough.
        within = [end for end in ends if chunk.first_row < end < chunk.first_row + chunk.rows]
        assert all(end - chunk.first_row < size for end in within)
    assert all(chunk.rows >= size for chunk in chunks[:-1])


@given(st.integers(1, 50), st.integers(1, 20))
def test_even_chunks_cover_the_rows(rows, size):
    chunks = even_chunks(rows, size)
    assert [row for c in chunks for row in range(c.first_row, c.first_row + c.rows)] == list(range(rows))
    assert {chunk.rows for chunk in chunks[:-1]} <= {size}


def test_what_cannot_be_ranked_is_refused():
    expression = RankExpression.parse("ctr + name", ["ctr", "name"])
    with pytest.raises(ConfigError, match="--top-k 0"):
        Ranking(expression, ("user",), 0)
    with pytest.raises(ConfigError, match="'name' is VARCHAR"):
        check_columns(expression, {"ctr": "DOUBLE", "name": "VARCHAR"})
    check_columns(expression, {"ctr": "DOUBLE", "name": "DECIMAL(9,2)"})


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_the_first_row_without_a_value_is_named(divisors):
    table = pa.table(
        {
            "user": ["a"] * len(divisors),
            "item": range(len(divisors)),
            "ctr": [0.5] * len(divisors),
            "hour": divisors,
        }
    )
    expression = RankExpression.parse("ctr / hour", ["ctr", "hour"])
    ranking = Ranking(expression, ("user",), keys=("user", "item"))
    if 0 not in divisors:
        assert ranking.apply(table).num_rows == len(divisors)
        return
    first = (
        f"division by zero for some candidates; the first: user a, item {divisors.index(0)}, ctr 0.5, hour 0$"
    )
    with pytest.raises(DataError, match=first):
        ranking.apply(table)
