"""Resampled metrics against the weighted ones, and intervals against what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.metrics import (
    RESAMPLED,
    auc,
    calibration,
    difference,
    gauc,
    interval,
    mae,
    normalised_entropy,
    resampled,
    rmse,
    user_draws,
)

ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.integers(0, 11)),
    min_size=30,
    max_size=80,
)


def weighted_by_hand(labels, probabilities, codes, drawn):
    """A user drawn n times counts n times; for GAUC each copy is a user of its own."""
    weights = drawn[codes]
    parts = [codes == user for user in range(len(drawn))]
    groups = [
        (auc(labels[part], probabilities[part]), part.sum() * n) for part, n in zip(parts, drawn, strict=True)
    ]
    used = [(value, mass) for value, mass in groups if value is not None and mass]
    return (
        auc(labels, probabilities, weights),
        sum(v * m for v, m in used) / sum(m for _, m in used) if used else np.nan,
        normalised_entropy(labels, probabilities, weights),
        calibration(labels, probabilities, weights),
    )


@given(ROWS, st.integers(0, 99))
def test_each_draw_is_the_weighted_metric_of_the_users_drawn(rows, seed):
    labels, probabilities, users = (np.array(column) for column in zip(*rows, strict=True))
    codes = np.unique(users, return_inverse=True)[1]
    found = resampled("binary", labels, [probabilities], users, draws=3, seed=seed)
    if codes.max() + 1 < 10:
        assert np.isnan(found).all()
        return
    for i, drawn in enumerate(user_draws(codes.max() + 1, 3, seed)):
        assert drawn.sum() == codes.max() + 1
        weights = drawn[codes]
        if 0 < weights[labels].sum() < weights.sum():
            expected = weighted_by_hand(labels, probabilities, codes, drawn)
            assert found[i, 0] == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
        else:
            assert np.isnan(found[i, 0]).all()


def test_regression_draws_are_the_weighted_errors():
    rng = np.random.default_rng(3)
    labels, users = rng.gamma(2, 10, 300), rng.integers(0, 40, 300)
    predictions = labels + rng.normal(0, 5, 300)
    codes = np.unique(users, return_inverse=True)[1]
    found = resampled("regression", labels, [predictions], users, draws=5, seed=1)
    for i, drawn in enumerate(user_draws(codes.max() + 1, 5, 1)):
        weights = drawn[codes]
        expected = (
            rmse(labels, predictions, weights),
            mae(labels, predictions, weights),
            (weights @ predictions) / (weights @ labels),
        )
        assert found[i, 0] == pytest.approx(expected, rel=1e-9)


def shoppers(rng, users=80, rows=12):
    """Users with click rates of their own: their rows are alike, as in every log."""
    taste = rng.normal(0, 1.2, users)
    user = np.repeat(np.arange(users), rows)
    logit = taste[user] + rng.normal(0, 0.7, users * rows) - 1
    truth = 1 / (1 + np.exp(-logit))
    return user, truth, rng.random(users * rows) < truth


def test_an_interval_of_95_percent_holds_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    user, truth, labels = shoppers(rng, users=40_000)
    wanted = auc(labels, truth)
    held = 0
    for _ in range(100):
        user, truth, labels = shoppers(rng)
        low, high = interval(resampled("binary", labels, [truth], user, draws=150)[:, 0, 0])
        held += low <= wanted <= high
    # 100 draws of a share of .95, and percentile intervals of 80 users run a little short.
    assert 85 <= held <= 99


def test_rows_drawn_one_by_one_would_promise_too_much():
    user, truth, labels = shoppers(np.random.default_rng(4))
    # Of a model that knows no user, all of a user's rows are wrong together.
    constant = np.full(len(labels), truth.mean())
    by_user, by_row = (
        interval(resampled("binary", labels, [constant], keys, draws=200)[:, 0, 3])
        for keys in (user, np.arange(len(user)))
    )
    assert by_user[1] - by_user[0] > 1.5 * (by_row[1] - by_row[0])


def test_a_real_difference_is_found_and_a_missing_one_is_not():
    rng = np.random.default_rng(5)
    user, truth, labels = shoppers(rng, users=300)
    worse = np.clip(truth * rng.lognormal(0, 1, len(truth)), 0, 1)
    other = np.clip(truth + rng.normal(0, 1e-4, len(truth)), 0, 1)
    draws = resampled("binary", labels, [truth, worse, other], user, draws=200)
    loss = difference(auc(labels, worse) - auc(labels, truth), draws[:, 0, 0], draws[:, 1, 0])
    assert loss.low < loss.value < loss.high < 0
    assert loss.p_value == pytest.approx(2 / 201)
    same = difference(0.0, draws[:, 0, 0], draws[:, 2, 0])
    assert same.low < 0 < same.high
    assert same.p_value > 0.05
    # The same draws for both: the difference is known far better than either.
    own = interval(draws[:, 0, 0])
    assert (same.high - same.low) < 0.05 * (own[1] - own[0])


def test_the_same_seed_gives_the_same_interval():
    user, truth, labels = shoppers(np.random.default_rng(6))
    first, second = (resampled("binary", labels, [truth], user, draws=4) for _ in range(2))
    assert (first == second).all()
    assert first.shape == (4, 1, len(RESAMPLED["binary"]))


def test_text_users_are_users():
    user, truth, labels = shoppers(np.random.default_rng(7), users=20)
    named = np.array([f"user {code:03d}" for code in user])
    assert (
        resampled("binary", labels, [truth], named, draws=3)
        == resampled("binary", labels, [truth], user, draws=3)
    ).all()
    assert gauc(labels, truth, named).value == gauc(labels, truth, user).value


def test_what_is_undefined_too_often_has_no_interval():
    assert interval(np.array([])) is None
    assert interval(np.array([0.5, np.nan])) is None
    assert difference(0.0, np.array([np.nan]), np.array([0.5])) is None
