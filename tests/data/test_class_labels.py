"""Labels that are one of several classes: read, masked, counted, and refused where they are none of them."""

import numpy as np
import polars as pl
import pytest

from mtl_rank.config import Task
from mtl_rank.data.classes import class_probabilities, expected_class
from mtl_rank.data.labels import LabelReader, TargetFitter, encode_labels
from mtl_rank.errors import DataError

STARS = Task(label="stars", kind="ordinal", classes=(1, 2, 4))
REASON = Task(label="reason", kind="multiclass", classes=("price", "look", "brand"))


def read(task, values, **others):
    return LabelReader({"y": task}).read(pl.DataFrame({task.label: values, **others}))[:, 0]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt32, pl.Float32, pl.Float64])
def test_numbers_become_the_positions_of_their_classes(dtype):
    values = pl.Series([4, 1, None, 2, 1]).cast(dtype)
    np.testing.assert_array_equal(read(STARS, values), [2, 0, np.nan, 1, 0])


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["look", "price", "brand"])])
def test_texts_become_the_positions_of_their_classes(dtype):
    values = pl.Series(["look", None, "price", "brand"]).cast(dtype)
    np.testing.assert_array_equal(read(REASON, values), [1, np.nan, 0, 2])


def test_nothing_but_nulls_and_nan_are_no_labels():
    assert np.isnan(read(STARS, [None, None])).all()
    assert np.isnan(read(STARS, [float("nan"), None])).all()


BAD = [
    (
        STARS,
        [1, 3],
        r"task y: label 'stars' holds 3, which is none of its classes; did you mean|known: 1, 2, 4",
    ),
    (STARS, [1.5, 1], r"label 'stars' holds 1\.5, which is none of its classes"),
    (STARS, ["1", "2"], r"label 'stars' is String, its classes are numbers"),
    (REASON, ["look", "brnd"], r"holds 'brnd', which is none of its classes; did you mean 'brand'"),
    (REASON, [1, 2], r"label 'reason' is Int64, its classes are text"),
]


@pytest.mark.parametrize(("task", "values", "message"), BAD)
def test_labels_that_are_none_of_the_classes(task, values, message):
    with pytest.raises(DataError, match=message):
        read(task, values)


def test_a_child_is_masked_counted_and_encoded_by_position():
    tasks = {"ctr": Task(label="clicked"), "stars": STARS.model_copy(update={"given": "ctr"})}
    table = pl.DataFrame({"clicked": [1, 0, 1, 1, 1, None], "stars": [1, 2, 4, 2, 4, 1]})
    labels = LabelReader(tasks).read(table)
    np.testing.assert_array_equal(labels[:, 1], [0, np.nan, 2, 1, 2, np.nan])
    fitter = TargetFitter(tasks)
    for part in (labels[:2], labels[2:]):
        fitter.add(part)
    targets = fitter.fit()
    assert (targets[1].classes, targets[1].rates) == ((1, 2, 4), (0.25, 0.25, 0.5))
    assert (targets[1].rows, targets[1].given) == (4, 0)
    np.testing.assert_array_equal(encode_labels(labels, targets), labels.astype(np.float32))


def test_a_class_that_never_occurs_is_told():
    fitter = TargetFitter({"stars": STARS})
    fitter.add(LabelReader({"stars": STARS}).read(pl.DataFrame({"stars": [1, 4, 1]})))
    with pytest.raises(
        DataError, match=r"task stars: .*label 'stars' \(3\) none is 2; leave it out of classes"
    ):
        fitter.fit()


def test_probabilities_follow_their_formulas_and_sum_to_one():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 4)) * 3
    odds = np.exp(logits)
    np.testing.assert_allclose(
        class_probabilities("multiclass", logits), odds / odds.sum(axis=1, keepdims=True), rtol=1e-12
    )
    falling = -np.sort(-logits, axis=1)
    above = np.column_stack([np.ones(50), 1 / (1 + np.exp(-falling)), np.zeros(50)])
    found = class_probabilities("ordinal", falling)
    np.testing.assert_allclose(found, above[:, :-1] - above[:, 1:], atol=1e-12)
    np.testing.assert_allclose(expected_class(found, (1, 2, 3, 4, 9)), found @ [1, 2, 3, 4, 9])
    for kind, extreme in (
        ("multiclass", [[1e4, -1e4, 0]]),
        ("ordinal", [[1e4, 0, -1e4], [-1e4, -1e4, -2e4]]),
    ):
        p = class_probabilities(kind, np.array(extreme))
        assert np.isfinite(p).all()
        np.testing.assert_allclose(p.sum(axis=1), 1)
