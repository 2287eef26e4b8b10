"""Probability metrics against scikit-learn, torchrec's formulas and definitions written as loops."""

from math import floor, log2

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.metrics import (
    brier,
    calibration,
    expected_calibration_error,
    log_loss,
    normalised_entropy,
    reliability,
)

PROBABILITIES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))
ROWS = st.lists(st.tuples(st.booleans(), PROBABILITIES, st.integers(0, 5)), min_size=1, max_size=60)
METRICS = [log_loss, normalised_entropy, calibration, brier, expected_calibration_error]


def columns(rows):
    labels, probabilities, weights = (np.array(column) for column in zip(*rows, strict=True))
    return labels, probabilities, weights.astype(float)


@given(ROWS)
def test_log_loss_and_brier_equal_sklearn(rows):
    labels, probabilities, weights = columns(rows)
    for w in (None, weights + 0.5):
        expected = sklearn.metrics.log_loss(labels, probabilities, labels=[False, True], sample_weight=w)
        assert log_loss(labels, probabilities, w) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        expected = np.average((probabilities - labels) ** 2, weights=w)
        assert brier(labels, probabilities, w) == pytest.approx(expected, abs=1e-9)


def torchrec_ne(labels, probabilities, weights, eta=1e-12):
    """Cross entropy over the cross entropy of the mean label, both in bits, p within [eta, 1 - eta]."""
    clipped = [min(max(p, eta), 1 - eta) for p in probabilities]
    rows = list(zip(labels, clipped, weights, strict=True))
    cross_entropy = -sum(w * (log2(p) if y else log2(1 - p)) for y, p, w in rows)
    positive, total = sum(w for y, _, w in rows if y), sum(w for _, _, w in rows)
    mean = positive / total
    return cross_entropy / -(positive * log2(mean) + (total - positive) * log2(1 - mean))


@given(ROWS)
def test_normalised_entropy_and_calibration_follow_torchrec(rows):
    labels, probabilities, weights = columns(rows)
    for w in (None, weights):
        mass = np.ones(len(rows)) if w is None else w
        positive = mass[labels].sum()
        if 0 < positive < mass.sum():
            expected = torchrec_ne(labels, probabilities, mass)
            assert normalised_entropy(labels, probabilities, w) == pytest.approx(expected, rel=1e-9)
        else:
            assert normalised_entropy(labels, probabilities, w) is None
        if positive > 0:
            expected = (mass * probabilities).sum() / positive
            assert calibration(labels, probabilities, w) == pytest.approx(expected, rel=1e-9)
        else:
            assert calibration(labels, probabilities, w) is None


def test_the_base_rate_has_an_entropy_of_one_and_the_truth_less():
    rng = np.random.default_rng(0)
    truth = rng.beta(1, 9, 50_000)
    labels = rng.random(50_000) < truth
    rate = np.full(50_000, labels.mean())
    assert normalised_entropy(labels, rate) == pytest.approx(1.0, abs=1e-12)
    assert calibration(labels, rate) == pytest.approx(1.0, abs=1e-12)
    assert normalised_entropy(labels, truth) < 0.95
    assert expected_calibration_error(labels, truth) < 0.01 < expected_calibration_error(labels, truth * 0.5)


def bins_by_hand(labels, probabilities, weights, bins):
    """{bin: rows}, a row's bin being floor(bins * mass below it / mass)."""
    grouped = {}
    for row, p in enumerate(probabilities):
        below = sum(w for q, w in zip(probabilities, weights, strict=True) if q < p)
        grouped.setdefault(floor(bins * below / sum(weights)), []).append(row)
    return [grouped[index] for index in sorted(grouped)]


@given(ROWS, st.integers(1, 12), st.booleans())
def test_calibration_error_is_the_mean_gap_of_equal_mass_bins(rows, bins, weighted):
    labels, probabilities, weights = columns(rows)
    mass = weights + 1 if weighted else np.ones(len(rows))
    curve = reliability(labels, probabilities, mass if weighted else None, bins=bins)
    expected = bins_by_hand(labels, probabilities, mass, bins)
    assert curve.mass == pytest.approx([mass[inside].sum() for inside in expected])
    assert curve.predicted == pytest.approx(
        [np.average(probabilities[inside], weights=mass[inside]) for inside in expected], abs=1e-9
    )
    assert curve.observed == pytest.approx(
        [np.average(labels[inside], weights=mass[inside]) for inside in expected], abs=1e-9
    )
    gap = np.average(np.abs(curve.predicted - curve.observed), weights=curve.mass)
    error = expected_calibration_error(labels, probabilities, mass if weighted else None, bins=bins)
    assert error == pytest.approx(gap, abs=1e-9)


def test_bins_hold_equal_mass_when_nothing_is_tied():
    rng = np.random.default_rng(2)
    curve = reliability(rng.random(1000) < 0.5, rng.permutation(1000) / 1000, bins=20)
    assert curve.mass.tolist() == [50.0] * 20
    assert curve.predicted == pytest.approx((np.arange(20) * 50 + 24.5) / 1000)


@given(ROWS, st.integers(1, 4))
def test_a_weight_of_n_is_n_copies_of_the_row(rows, times):
    labels, probabilities, weights = columns(rows)
    counts = (weights * times).astype(int)
    if not counts.sum():
        return
    copies = np.repeat(np.arange(len(rows)), counts)
    for metric in METRICS:
        weighted, copied = (
            metric(labels, probabilities, counts),
            metric(labels[copies], probabilities[copies]),
        )
        assert (weighted is None) == (copied is None)
        assert weighted is None or weighted == pytest.approx(copied, rel=1e-9, abs=1e-9)


def test_float32_is_summed_in_float64():
    labels = np.zeros(3_000_000, dtype=np.float32)
    labels[:30] = 1
    probabilities = np.full(3_000_000, 1e-5, dtype=np.float32)
    assert calibration(labels, probabilities) == pytest.approx(
        3_000_000 * float(np.float32(1e-5)) / 30, rel=1e-9
    )
    assert brier(labels, probabilities) == pytest.approx(
        (30 * (1 - 1e-5) ** 2 + 2_999_970e-10) / 3e6, rel=1e-6
    )


def test_saturated_probabilities_stay_finite():
    assert log_loss([1, 0], [0.0, 0.0]) == pytest.approx(-np.log(np.finfo(np.float64).eps) / 2)
    assert log_loss([1, 0], [1.0, 0.0]) == pytest.approx(0, abs=1e-15)
    assert normalised_entropy([1, 0], [0.0, 1.0]) == pytest.approx(-log2(1e-12), rel=1e-4)


def test_without_rows_or_weight_everything_is_none():
    for metric in METRICS:
        assert metric([], []) is None
        assert metric([1, 0], [0.5, 0.5], [0, 0]) is None
    assert len(reliability([], []).mass) == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([1, np.nan], [0.1, 0.2], "labels holds NaN"),
        ([1, 0], [0.1, np.nan], "probabilities holds NaN"),
        ([1, 0.5], [0.1, 0.2], "labels must be 0 or 1"),
        ([1, 0], [0.1, 1.2], r"must lie in \[0, 1\]"),
        ([1, 0], [0.1], "probabilities has 1 values for 2 labels"),
    ],
)
def test_bad_input_is_named(metric, labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        metric(labels, probabilities)


def test_bins_must_be_positive():
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        expected_calibration_error([1, 0], [0.1, 0.2], bins=0)
