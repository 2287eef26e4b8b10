"""Regression metrics against scikit-learn and scipy."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mtl_rank.metrics import mae, rmse, spearman

NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e4, 1e4))
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(0.1, 9)), min_size=1, max_size=60)


@given(ROWS)
def test_errors_equal_sklearn(rows):
    labels, predictions, weights = (np.array(column) for column in zip(*rows, strict=True))
    for w in (None, weights):
        expected = sklearn.metrics.root_mean_squared_error(labels, predictions, sample_weight=w)
        assert rmse(labels, predictions, w) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        expected = sklearn.metrics.mean_absolute_error(labels, predictions, sample_weight=w)
        assert mae(labels, predictions, w) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(ROWS)
def test_spearman_equals_scipy_with_ties(rows):
    labels, predictions, _ = (np.array(column) for column in zip(*rows, strict=True))
    if len(np.unique(labels)) > 1 and len(np.unique(predictions)) > 1:
        expected = spearmanr(labels, predictions).statistic
        assert spearman(labels, predictions) == pytest.approx(expected, abs=1e-9)
    else:
        assert spearman(labels, predictions) is None


def test_rank_correlation_sees_order_alone():
    values = np.random.default_rng(0).normal(size=500)
    assert spearman(values, np.exp(values)) == pytest.approx(1.0)
    assert spearman(values, -(values**3)) == pytest.approx(-1.0)


def test_undefined_is_none():
    assert rmse([], []) is None
    assert mae([1.0], [2.0], [0.0]) is None
    assert spearman([], []) is None
    assert spearman([1.0], [2.0]) is None


@pytest.mark.parametrize("metric", [rmse, mae, spearman])
@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([1, np.nan], [1, 2], "labels holds NaN"),
        ([1, 2], [np.nan, 2], "predictions holds NaN"),
        ([1, 2], [np.inf, 2], "predictions holds infinite values"),
        ([1, 2], [1, 2, 3], "predictions has 3 values for 2 labels"),
    ],
)
def test_bad_input_is_named(metric, labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        metric(labels, predictions)
