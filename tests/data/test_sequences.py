"""Histories and bags: the most recent ids, padded behind, in the vocabulary of their owner."""

import numpy as np
import polars as pl
import pytest
from encoder_tables import CLICK, fitted, ids_of, schema_of, table_of
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.data.fitting import fit_encoder
from mtl_rank.errors import DataError

LISTS = st.lists(
    st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=8)),
    min_size=2,
    max_size=12,
)


def local_sequence(encoder, table, index=0):
    """Ids within the range of the owner: 0 = missing and padding."""
    return encoder.encode(table, with_labels=False).sequences[index] - encoder.layout.sequences[index].offset


@given(LISTS, st.integers(1, 6), st.sampled_from(["sequence", "bag"]))
def test_the_most_recent_ids_come_first_to_last_then_padding(lists, max_len, role):
    items = pl.Series([1, 3, 5, 4] * 3)
    lists = [*lists, *[None] * 12][:12]
    table = table_of(item=items, seen=pl.Series(lists, dtype=pl.List(pl.Int64)))
    encoder = fitted(table, item={}, seen={"role": role, "max_len": max_len, "shares": "item"})
    id_of = {None: 0, **dict(zip(items, ids_of(encoder, table, "item"), strict=True))}
    expected = np.zeros((12, max_len))
    for row, values in enumerate(lists):
        kept = (values or [])[-max_len:]
        expected[row, : len(kept)] = [id_of.get(value, 1) for value in kept]
    found = local_sequence(encoder, table)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_a_history_without_an_owner_learns_its_own_values():
    table = table_of(seen=[[7, 8], [8, None], None, []], other=[1, 2, 3, 4])
    encoder = fitted(
        table, other={"dim": 3}, seen={"role": "sequence", "min_count": 2, "max_len": 3, "dim": 3}
    )
    np.testing.assert_array_equal(
        local_sequence(encoder, table), [[1, 2, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0]]
    )
    column = encoder.layout.sequences[0]
    assert (column.target, column.size, column.pad_id) == (None, 3, column.offset)


def test_values_met_only_in_a_sharing_history_are_unseen():
    """The vocabulary is that of the owner's own values."""
    table = table_of(item=[1, 2], seen=[[9, 1], [9]])
    encoder = fitted(table, item={}, seen={"role": "sequence", "max_len": 2, "shares": "item"})
    np.testing.assert_array_equal(local_sequence(encoder, table), [[1, 2], [1, 0]])


def test_hashed_owners_hash_the_history_with_their_salt():
    table = table_of(item=["a", "b"], seen=[["b", "zz"], ["a"]])
    options = {"vocab": "hashed", "buckets": 50}
    encoder = fitted(table, item=options, seen={"role": "bag", "shares": "item", "max_len": 2})
    a, b = ids_of(encoder, table, "item")
    found = local_sequence(encoder, table)
    assert found[0, 0] == b
    assert found[1].tolist() == [a, 0]
    assert 2 <= found[0, 1] < 52


@pytest.mark.parametrize(
    "empty",
    [
        pl.Series([None, None], dtype=pl.Null),
        pl.Series([[], []], dtype=pl.List(pl.Null)),
        pl.Series([[None], None], dtype=pl.List(pl.Null)),
        pl.Series([[], None], dtype=pl.List(pl.Int64)),
    ],
)
def test_tables_without_one_history(empty):
    table = table_of(item=[1, 2], seen=[[1], [2]])
    for role in ({"shares": "item"}, {}):
        inputs = {"item": {}, "seen": {"role": "sequence", "max_len": 3} | role}
        expected = np.zeros((2, 3))
        encoder = fitted(table, **inputs)
        np.testing.assert_array_equal(local_sequence(encoder, table.with_columns(seen=empty)), expected)
        fitted_on_nothing = fitted(table.with_columns(seen=empty), **inputs)
        np.testing.assert_array_equal(
            local_sequence(fitted_on_nothing, table.with_columns(seen=empty)), expected
        )
        assert (local_sequence(fitted_on_nothing, table)[:, 0] > 0).all()


def test_fixed_size_arrays_are_lists():
    lists = table_of(seen=[[1, 2], [2, 3]])
    arrays = lists.with_columns(pl.col("seen").cast(pl.Array(pl.Int64, 2)))
    encoder = fitted(lists, seen={"role": "sequence", "max_len": 2})
    np.testing.assert_array_equal(local_sequence(encoder, arrays), local_sequence(encoder, lists))


def test_a_column_without_lists_is_refused():
    with pytest.raises(DataError, match=r"view\.seen: a sequence needs lists, the column is Int64"):
        fitted(table_of(seen=[1, 2]), seen={"role": "sequence"})


def test_a_history_of_another_type_than_its_owner_is_refused():
    table = table_of(item=[1, 2], seen=[["1"], ["2"]])
    inputs = {"item": {}, "seen": {"role": "sequence", "shares": "item"}}
    encoder = fit_encoder([table_of(item=[1, 2], seen=[[1], [2]])], schema_of(**inputs), CLICK, 4)
    with pytest.raises(DataError, match=r"view\.seen: was integer .* is text"):
        encoder.encode(table)
