"""Hashed ids: the same on every machine and version, within range, salted by the input's name."""

import hashlib

import numpy as np
import polars as pl
import pytest
from encoder_tables import fitted, ids_of, one_column_ids, table_of
from hypothesis import given
from hypothesis import strategies as st

MASK = 2**64 - 1
BUCKETS = 1000
VALUES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.text())


def digest(content):
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def expected_id(value, salt, buckets=BUCKETS):
    """SplitMix64's finaliser of a salted integer, or BLAKE2b of a salted text."""
    if isinstance(value, str):
        return digest(salt.encode() + b"\0" + value.encode()) % buckets + 2
    x = ((value & MASK) ^ digest(salt.encode())) + 0x9E3779B97F4A7C15 & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return (x ^ (x >> 31)) % buckets + 2


def hashed_ids(values, name="user_id", buckets=BUCKETS, training=None):
    first = values if training is None else training
    table = table_of(**{name: pl.concat([first, first])})
    encoder = fitted(table, **{name: {"vocab": "hashed", "buckets": buckets}})
    return ids_of(encoder, pl.DataFrame({name: values}), name)


def test_ids_are_pinned():
    """These numbers are in the embedding rows of saved models: a change here breaks every one of them."""
    assert hashed_ids(pl.Series([0, 1, -1, 2**53 + 1])) == [818, 350, 955, 851]
    assert hashed_ids(pl.Series([2**63 + 5], dtype=pl.UInt64)) == [130]
    assert hashed_ids(pl.Series([0, 1, -1, 2**53 + 1]), name="item_id") == [407, 974, 540, 380]
    assert hashed_ids(pl.Series(["", "a", "\u00e4", "\u540d", None])) == [904, 535, 319, 206, 0]


@given(
    st.lists(VALUES, min_size=1, max_size=20), st.integers(1, 3000), st.sampled_from(["user_id", "\u00fc"])
)
def test_ids_follow_the_written_formula(values, buckets, name):
    for kind in (int, str):
        chosen = [value for value in values if type(value) is kind]
        if chosen:
            found = hashed_ids(pl.Series([*chosen, None]), name, buckets)
            assert found == [*(expected_id(value, name, buckets) for value in chosen), 0]
            assert all(2 <= each < buckets + 2 for each in found[:-1])


def test_ids_do_not_depend_on_the_training_rows_or_the_width_of_the_type():
    values = pl.Series([-3, 5, 100, None], dtype=pl.Int64)
    expected = hashed_ids(values)
    assert hashed_ids(values, training=pl.Series([7, 8])) == expected
    for dtype in (pl.Int8, pl.Int16, pl.Float64):
        assert hashed_ids(values.cast(dtype), training=pl.Series([7, 8])) == expected
    assert hashed_ids(pl.Series([True, False]), training=pl.Series([True])) == [
        expected_id(1, "user_id"),
        expected_id(0, "user_id"),
    ]


def test_distinct_values_fill_the_buckets_evenly():
    """chi squared of 200 values per bucket, for consecutive integers and for texts."""
    for values in (pl.Series(range(20_000)), pl.Series([f"user {i}" for i in range(20_000)])):
        counts = np.bincount(np.array(hashed_ids(values, buckets=100)) - 2, minlength=100)
        assert ((counts - 200) ** 2 / 200).sum() < 160  # the 99.99th percentile of chi squared(99) is 161.3


def test_salts_part_the_collisions_of_two_inputs():
    values = pl.Series(range(2000))
    same = np.array(hashed_ids(values, "user_id")) == np.array(hashed_ids(values, "item_id"))
    assert same.mean() < 0.01


@pytest.mark.parametrize("values", [pl.Series([1, 1, 2]), pl.Series(["a", "a", "b"])])
def test_one_bucket_takes_every_value(values):
    assert one_column_ids(values, [None, values[0], values[2]], vocab="hashed", buckets=1) == [0, 2, 2]
