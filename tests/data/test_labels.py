"""Labels: masks along chains, values that cannot be labels, and the way back to the label's unit."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.config import Task
from mtl_rank.data.labels import LabelReader, TargetFitter, decode_outputs, encode_labels, sigmoid
from mtl_rank.errors import DataError

CHAIN = {
    "refund": Task(label="refunded", given="cvr"),
    "ctr": Task(label="clicked"),
    "cvr": Task(label="bought", given="ctr"),
    "dwell": Task(label="seconds", kind="regression", given="ctr"),
}
BIT = st.sampled_from([0, 1, 1, None])
ROWS = st.lists(st.tuples(BIT, BIT, BIT, st.one_of(st.none(), st.floats(0, 1e4))), min_size=1, max_size=30)


def fitted_targets(tasks, *tables):
    reader, fitter = LabelReader(tasks), TargetFitter(tasks)
    for table in tables:
        fitter.add(reader.read(table))
    return fitter.fit()


@given(ROWS)
def test_a_task_is_defined_where_every_ancestor_is_1(rows):
    names = ["refunded", "clicked", "bought", "seconds"]
    table = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Float64), orient="row")
    nan = float("nan")
    expected = []
    for row in rows:
        refunded, clicked, bought, seconds = (nan if value is None else value for value in row)
        expected.append(
            [
                refunded if clicked == 1 and bought == 1 else nan,
                clicked,
                bought if clicked == 1 else nan,
                seconds if clicked == 1 else nan,
            ]
        )
    np.testing.assert_array_equal(LabelReader(CHAIN).read(table), expected)


@pytest.mark.parametrize("dtype", [pl.Boolean, pl.Int8, pl.UInt64, pl.Float32, pl.Float64])
def test_binary_labels_of_every_number_type(dtype):
    table = pl.DataFrame({"clicked": pl.Series([0, 1, None]).cast(dtype)})
    read = LabelReader({"ctr": Task(label="clicked")}).read(table)
    np.testing.assert_array_equal(read, [[0], [1], [np.nan]])


BAD = [
    (["0", "1"], {}, r"task ctr: label 'y' is String, it must be a number"),
    ([0, 2], {}, r"task ctr: label 'y' holds 2; a binary label is 0, 1 or null"),
    ([-1, 1], {}, r"task ctr: label 'y' holds -1"),
    ([0.5, 1], {}, r"task ctr: label 'y' holds 0\.5"),
    ([float("inf"), 1], {}, r"task ctr: label 'y' holds infinite values"),
    ([float("inf"), 1], {"kind": "regression"}, r"task ctr: label 'y' holds infinite values"),
    ([-0.5, 1], {"kind": "regression", "transform": "log1p"}, r"task ctr: label 'y' is negative"),
    ([[1], [0]], {}, r"task ctr: label 'y' is List"),
]


@pytest.mark.parametrize(("values", "options", "message"), BAD)
def test_values_that_are_no_labels(values, options, message):
    with pytest.raises(DataError, match=message):
        LabelReader({"ctr": Task(label="y", **options)}).read(pl.DataFrame({"y": values}, strict=False))


def test_a_label_column_that_is_not_there():
    with pytest.raises(DataError, match=r"task ctr: the table has no label column 'y'"):
        LabelReader({"ctr": Task(label="y")}).read(pl.DataFrame({"z": [1]}))


NOTHING_TO_LEARN = [
    ([None, None], {}, "none has label 'y'"),
    ([0, 0, None], {}, r"\(2\) none is positive"),
    ([1, 1, None], {}, r"\(2\) none is negative"),
    ([None, None], {"kind": "regression"}, "none has label 'y'"),
]


@pytest.mark.parametrize(("values", "options", "message"), NOTHING_TO_LEARN)
def test_tasks_with_nothing_to_learn(values, options, message):
    table = pl.DataFrame({"y": pl.Series(values, dtype=pl.Int64)})
    with pytest.raises(DataError, match=f"task ctr: of the training rows.*{message}"):
        fitted_targets({"ctr": Task(label="y", **options)}, table)


def test_a_child_without_a_positive_parent_has_nothing_to_learn():
    tasks = {"ctr": Task(label="clicked"), "cvr": Task(label="bought", given="ctr")}
    table = pl.DataFrame({"clicked": [0, 1, 1], "bought": [1, 0, 0]})
    with pytest.raises(DataError, match=r"task cvr: .*\(2\) none is positive"):
        fitted_targets(tasks, table)


def test_rates_rows_and_positives_count_only_defined_rows():
    first = pl.DataFrame(
        {"clicked": [1, 0, 1], "bought": [1, 1, 0], "refunded": [0, 1, 1], "seconds": [8.0, 9, None]}
    )
    second = pl.DataFrame(
        {"clicked": [1, 1, None], "bought": [1, 0, 1], "refunded": [1, 0, 1], "seconds": [0.0, 4, 7]}
    )
    targets = {target.name: target for target in fitted_targets(CHAIN, first, second)}
    assert [(t.rows, t.positives, t.given) for t in targets.values()] == [
        (2, 1, 2),
        (5, 4, None),
        (4, 2, 1),
        (3, 2, 1),
    ]
    assert targets["ctr"].mean == pytest.approx(0.8)
    assert targets["cvr"].mean == pytest.approx(0.5)
    assert targets["dwell"].mean == pytest.approx(4)
    assert targets["dwell"].std == pytest.approx(np.std([8, 0, 4]))
    assert [t.std for t in targets.values() if t.kind == "binary"] == [1, 1, 1]


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=2, max_size=40),
    st.sampled_from(["none", "log1p"]),
)
def test_regression_targets_are_standardised_and_come_back(values, transform):
    values = [*values, 3.0, 5.0]
    tasks = {"dwell": Task(label="y", kind="regression", transform=transform)}
    table = pl.DataFrame({"y": pl.Series(values, dtype=pl.Float64)})
    targets = fitted_targets(tasks, table)
    read = LabelReader(tasks).read(table)
    encoded = encode_labels(read, targets)
    assert encoded.dtype == np.float32
    known = ~np.isnan(read)
    np.testing.assert_array_equal(np.isnan(encoded), ~known)
    assert encoded[known].mean(dtype=np.float64) == pytest.approx(0, abs=1e-4)
    assert encoded[known].std(dtype=np.float64) == pytest.approx(1, abs=1e-4)
    decoded = decode_outputs(encoded.astype(np.float64), targets)
    tolerance = 1e-5 if transform == "log1p" else 1e-6 * max(read[known].max(), 1)
    np.testing.assert_allclose(decoded[known], read[known], rtol=1e-4, atol=tolerance)


def test_outputs_are_probabilities_or_values_that_can_be():
    tasks = {"ctr": Task(label="a"), "dwell": Task(label="b", kind="regression", transform="log1p")}
    targets = fitted_targets(tasks, pl.DataFrame({"a": [0, 1], "b": [0.0, 10.0]}))
    decoded = decode_outputs(np.array([[0.0, -9.0], [1e4, 0.0], [-1e4, 1.0]]), targets)
    assert decoded[:, 0].tolist() == [0.5, 1.0, 0.0]
    assert decoded[:, 1] == pytest.approx([0, np.sqrt(11) - 1, 10])


@given(st.floats(-800, 800))
def test_sigmoid_neither_overflows_nor_loses_its_symmetry(x):
    with np.errstate(over="raise", divide="raise"):
        low, high = sigmoid(np.array([x, -x]))
    assert low + high == pytest.approx(1)
    assert low == pytest.approx(np.exp(-np.logaddexp(0, -x)), rel=1e-9)
