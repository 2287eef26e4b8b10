"""Values to ids: 0 missing, 1 unseen, then one id per value of the training rows."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from encoder_tables import fitted, ids_of, one_column_ids, table_of
from hypothesis import example, given
from hypothesis import strategies as st

from mtl_rank.errors import DataError

NEAR_BORDERS = [0, 2**31, 2**53, 2**62, 2**63 - 4, -(2**63), -(2**31) - 2, -(2**53)]
INT64 = st.one_of(
    st.integers(-5, 5),
    st.tuples(st.sampled_from(NEAR_BORDERS), st.integers(0, 3)).map(sum),
    st.integers(-(2**63), 2**63 - 1),
)
UINT64 = st.one_of(st.integers(0, 3), st.integers(2**63 - 2, 2**63 + 2), st.integers(0, 2**64 - 1))
TEXT = st.one_of(
    st.sampled_from(["", " ", "a", "A", "\u00e4", "a\u0308", "\u540d", "\0", "nan", "null"]), st.text()
)
DATES = st.dates(date(2025, 12, 30), date(2026, 1, 3))
KINDS = [
    (pl.Int64, INT64),
    (pl.UInt64, UINT64),
    (pl.Int8, st.integers(-128, 127)),
    (pl.String, TEXT),
    (pl.Boolean, st.booleans()),
    (pl.Date, DATES),
]


@st.composite
def columns(draw):
    dtype, values = draw(st.sampled_from(KINDS))
    pool = draw(st.lists(values, min_size=1, max_size=6))
    entries = st.one_of(st.none(), st.sampled_from(pool))
    training = draw(st.lists(entries, min_size=2, max_size=40))
    serving = draw(st.lists(st.one_of(entries, values), max_size=20))
    return pl.Series(training, dtype=dtype), pl.Series(serving, dtype=dtype)


@given(columns(), st.integers(1, 4), st.one_of(st.none(), st.integers(1, 4)))
def test_each_frequent_value_has_one_id_of_its_own(drawn, min_count, max_size):
    training, serving = drawn
    counts = Counter(value for value in training if value is not None)
    frequent = {value for value, count in counts.items() if count >= min_count}
    both = pl.concat([training, serving])
    ids = one_column_ids(training, both, min_count=min_count, max_size=max_size)
    of_value = {}
    for value, found in zip(both, ids, strict=True):
        assert of_value.setdefault(value, found) == found
    known = {value: found for value, found in of_value.items() if found >= 2}
    assert of_value.get(None, 0) == 0
    assert set(of_value.values()) - set(known.values()) <= {0, 1}
    assert sorted(known.values()) == list(range(2, 2 + len(known)))
    assert known.keys() <= frequent
    assert len(known) == min(len(frequent), max_size or len(frequent))
    if known:
        assert max((counts[value] for value in frequent - known.keys()), default=0) <= min(
            counts[value] for value in known
        )


@given(columns(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_order_and_batches_of_the_training_rows_change_no_id(drawn, random, batches):
    training, serving = drawn
    shuffled = training.to_list()
    random.shuffle(shuffled)
    whole = table_of(value=training)
    mixed = table_of(value=pl.Series(shuffled, dtype=training.dtype))
    parts = [mixed[i::batches] for i in range(batches)]
    expected = fitted(whole, value={"max_size": 3})
    found = fitted(parts, value={"max_size": 3})
    table = pl.DataFrame({"value": pl.concat([training, serving])})
    assert ids_of(found, table, "value") == ids_of(expected, table, "value")


def test_many_batches_count_like_one():
    values = [i % 7 for i in range(200)]
    parts = [table_of(value=values[i : i + 2]) for i in range(0, 200, 2)]
    encoder = fitted(parts, value={"min_count": 29})
    # 200 = 28 * 7 + 4: the values 0 .. 3 occur 29 times, the others 28 times.
    assert ids_of(encoder, table_of(value=list(range(7))), "value") == [2, 3, 4, 5, 1, 1, 1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([2**53, 2**53 + 1, 2**53 + 2], pl.Int64),
        ([16_777_216, 16_777_217], pl.Int64),
        ([2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 0], pl.UInt64),
        ([-1, 0, 1, -(2**63), 2**63 - 1], pl.Int64),
        ([-(2**62), 0, 2**62], pl.Int64),
        (["1", "01", "1.0", " 1"], pl.String),
    ],
)
def test_values_that_look_alike_stay_apart(values, dtype):
    ids = one_column_ids(pl.Series(values, dtype=dtype), pl.Series(values, dtype=dtype))
    assert sorted(ids) == list(range(2, 2 + len(values)))


def test_neighbours_of_known_values_are_unseen():
    assert one_column_ids([2**53, 2**53 + 2], [2**53 + 1, 2**53 - 1, -(2**53)]) == [1, 1, 1]
    assert one_column_ids([0, 9], [-1, 10, 5, -(2**63), 2**63 - 1]) == [1, 1, 1, 1, 1]
    assert one_column_ids([2**63 - 1, 2**63 - 2], [-(2**63), 0]) == [1, 1]


def test_missing_is_no_value():
    assert one_column_ids(["", None, ""], ["", None, "?"]) == [2, 0, 1]
    assert one_column_ids([0, None, 0], [0, None, 1]) == [2, 0, 1]
    assert one_column_ids([False, None, False], [False, None, True]) == [2, 0, 1]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**53) + 1, 2**53 - 1)), min_size=2, max_size=20))
@example([2**53 - 1, -(2**53) + 1, None])
def test_whole_floats_are_the_integers_they_came_from(values):
    """Stores that go through pandas turn integers with nulls into floats."""
    integers = pl.Series(values, dtype=pl.Int64)
    floats = integers.cast(pl.Float64)
    with_nan = floats.fill_null(float("nan"))
    expected = one_column_ids(integers, integers)
    assert one_column_ids(integers, floats) == expected
    assert one_column_ids(integers, with_nan) == expected
    assert one_column_ids(floats, integers) == expected
    assert one_column_ids(with_nan, floats) == expected


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([1.5, 2.0]),
        pl.Series([float("inf"), 2.0]),
        pl.Series([-float("inf"), None]),
        pl.Series([2.0**53, 1.0]),
        pl.Series([-(2.0**53), 1.0]),
        pl.Series([2.0**24, 1.0], dtype=pl.Float32),
    ],
)
def test_floats_that_may_have_been_rounded_are_refused(values):
    encoder = fitted(table_of(value=[1, 2]), value={})
    with pytest.raises(DataError, match=r"view\.value: ids arrive as Float"):
        encoder.encode(pl.DataFrame({"value": values}), with_labels=False)
    with pytest.raises(DataError, match=r"view\.value: ids arrive as Float.*role dense"):
        fitted(table_of(value=values), value={})


TYPED = {
    "integer": pl.Series([1, 0]),
    "text": pl.Series(["1", "0"]),
    "boolean": pl.Series([True, False]),
    "time": pl.Series([date(2026, 1, 1), date(2026, 1, 2)]),
}


@pytest.mark.parametrize("vocab", ["learned", "hashed"])
@pytest.mark.parametrize(("before", "after"), [(a, b) for a in TYPED for b in TYPED if a != b])
def test_a_column_that_changes_its_type_is_an_error(before, after, vocab):
    encoder = fitted(table_of(value=TYPED[before]), value={"vocab": vocab})
    with pytest.raises(DataError, match=rf"view\.value: was {before} .* is {after}"):
        encoder.encode(pl.DataFrame({"value": TYPED[after]}), with_labels=False)


def test_a_type_that_changes_between_batches_is_an_error():
    with pytest.raises(DataError, match=r"view\.value: was integer .* is text"):
        fitted([table_of(value=[1, 2]), table_of(value=["1", "2"])], value={})


@pytest.mark.parametrize("values", [[[1], [2]], [b"1", b"2"], [{"a": 1}, {"a": 2}]])
def test_types_that_are_no_ids_are_refused(values):
    with pytest.raises(DataError, match=r"view\.value: .*cannot be ids"):
        fitted(table_of(value=values), value={})


def test_the_same_time_has_the_same_id_in_every_unit_and_zone():
    days = [date(2026, 1, 1) + timedelta(days=i) for i in range(3)]
    as_dates = pl.Series(days)
    midnights = pl.Series([datetime(d.year, d.month, d.day, tzinfo=UTC) for d in days])
    forms = [
        as_dates,
        midnights.cast(pl.Datetime("ms", "UTC")),
        midnights.cast(pl.Datetime("ns", "UTC")),
        midnights.dt.replace_time_zone(None),
        midnights.dt.convert_time_zone("Asia/Tokyo"),
    ]
    expected = one_column_ids(midnights, midnights)
    assert sorted(expected) == [2, 3, 4]
    for form in forms:
        assert one_column_ids(midnights, form) == expected
        assert one_column_ids(form, midnights) == expected
    assert one_column_ids(midnights, midnights + timedelta(microseconds=1)) == [1, 1, 1]


@pytest.mark.parametrize("vocab", ["learned", "hashed"])
@pytest.mark.parametrize("dtype", [pl.Int64, pl.String, pl.Boolean, pl.Date, pl.Float64, pl.Null])
def test_a_column_that_is_all_null_in_training(dtype, vocab):
    training = pl.Series([None, None], dtype=dtype)
    assert one_column_ids(training, training, vocab=vocab) == [0, 0]
    if dtype != pl.Null:
        serving = pl.Series([1, None]).cast(pl.Date if dtype == pl.Date else dtype)
        assert (one_column_ids(training, serving, vocab=vocab)[0] >= 1) is True
        assert one_column_ids(training, serving, vocab=vocab)[1] == 0


@pytest.mark.parametrize("serving", [[1, None], ["a", None], [True, None], [1.0, None]])
def test_a_column_without_a_type_in_training_takes_any_value_as_unseen(serving):
    assert one_column_ids([None, None], serving) == [1, 0]


def test_a_known_column_may_arrive_without_values():
    for training in TYPED.values():
        nothing = pl.Series([None, None], dtype=pl.Null)
        assert one_column_ids(training, nothing) == [0, 0]
        assert one_column_ids(training, nothing, vocab="hashed") == [0, 0]


def test_serving_rows_never_enter_the_vocabulary():
    encoder = fitted(table_of(value=["a", "b"]), value={})
    first = ids_of(encoder, pl.DataFrame({"value": ["c", "d", "c", "a"]}), "value")
    assert first == [1, 1, 1, 2]
    assert ids_of(encoder, pl.DataFrame({"value": ["c", "d", "c", "a"]}), "value") == first


def test_categories_and_enums_are_text():
    text = pl.Series(["b", "a", "b", None])
    expected = one_column_ids(text, text)
    assert one_column_ids(text, text.cast(pl.Categorical)) == expected
    assert one_column_ids(text.cast(pl.Enum(["z", "b", "a"])), text) == expected
