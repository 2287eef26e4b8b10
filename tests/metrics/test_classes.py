"""Metrics of several classes against scikit-learn and their definitions."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.metrics import (
    accuracy,
    class_numbers,
    cross_entropy,
    macro_auc,
    normalised_cross_entropy,
    normalised_entropy,
    quadratic_kappa,
    spearman,
)

SEEDS = st.integers(0, 10_000)


def random_classes(seed, classes=4, rows=60):
    """Labels of every class, and probabilities with ties."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows)])
    odds = np.round(rng.gamma(1.0, size=(len(labels), classes)), 1) + 0.05
    return labels, odds / odds.sum(axis=1, keepdims=True)


@given(SEEDS)
def test_numbers_equal_sklearn(seed):
    y, p = random_classes(seed)
    likely = p.argmax(axis=1)
    assert cross_entropy(y, p) == pytest.approx(sklearn.metrics.log_loss(y, p), rel=1e-9)
    assert accuracy(y, likely) == pytest.approx(sklearn.metrics.accuracy_score(y, likely))
    ovr = sklearn.metrics.roc_auc_score(y, p, multi_class="ovr", average="macro")
    assert macro_auc(y, p) == pytest.approx(ovr)
    kappa = sklearn.metrics.cohen_kappa_score(y, likely, weights="quadratic")
    assert quadratic_kappa(y, likely, 4) == pytest.approx(kappa)


@given(SEEDS)
def test_with_two_classes_it_is_the_normalised_entropy(seed):
    y, p = random_classes(seed, classes=2)
    assert normalised_cross_entropy(y, p) == pytest.approx(normalised_entropy(y, p[:, 1]), rel=1e-9)


@given(SEEDS)
def test_the_shares_of_the_classes_have_normalised_loss_1_and_no_agreement(seed):
    y, _ = random_classes(seed)
    shares = np.tile(np.bincount(y) / len(y), (len(y), 1))
    found = class_numbers(y, shares, [1, 2, 5, 9])
    assert found["ne"] == pytest.approx(1)
    assert found["auc"] == 0.5
    assert found["kappa"] == pytest.approx(0)
    assert found["spearman"] is None


@given(SEEDS)
def test_order_counts_for_kappa_and_for_the_expected_value(seed):
    y, p = random_classes(seed)
    values = [0, 1, 10, 11]
    assert class_numbers(y, p, values)["spearman"] == pytest.approx(spearman(y, p @ values))
    near, far = np.clip(y + 1, 0, 3), np.where(y == 0, 3, 0)
    assert quadratic_kappa(y, y, 4) == 1
    assert quadratic_kappa(y, near, 4) > quadratic_kappa(y, far, 4)


def test_what_is_undefined_is_none():
    one = np.full((3, 3), 1 / 3)
    assert normalised_cross_entropy([1, 1, 1], one) is None
    assert macro_auc([1, 1, 1], one) is None
    assert quadratic_kappa([1, 1], [1, 1], 3) is None
    assert class_numbers([], np.empty((0, 3)), [1, 2, 3]) == dict.fromkeys(
        ("log_loss", "ne", "accuracy", "auc", "kappa", "spearman")
    )
    # A class without rows has no AUC of its own and is left out.
    assert macro_auc([0, 1], [[0.9, 0.1, 0], [0.1, 0.9, 0]]) == 1
    assert np.isfinite(cross_entropy([0], [[0.0, 1.0, 0.0]]))


THIRDS = np.full((2, 3), 1 / 3)
BAD = [
    ([0, 3], THIRDS, "labels must be whole numbers from 0 to 2"),
    ([0.5, 1], THIRDS, "labels must be whole numbers"),
    ([0], THIRDS, "probabilities has 2 rows for 1 labels"),
    ([0, 1], np.array([[2.0, -1.0], [0, 1]]), "probabilities must be a table"),
    ([0, 1], np.array([[np.nan, 1.0], [0, 1]]), "probabilities must be a table"),
]


@pytest.mark.parametrize(("labels", "probabilities", "message"), BAD)
def test_what_cannot_be_measured_is_an_error(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(labels, probabilities)
