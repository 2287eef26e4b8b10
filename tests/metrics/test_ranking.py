"""Ranking metrics against scikit-learn and their definitions, as loops over pairs and permutations."""

from itertools import pairwise, permutations, product
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    ndcg_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from mtl_rank.metrics import Ordered, auc, gauc, map_at_k, ndcg_at_k, pr_auc, recall_at_k, score_histogram

# Few distinct scores: most rows are tied with another.
SCORES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6), st.sampled_from([-np.inf, np.inf]))
ROWS = st.lists(
    st.tuples(st.booleans(), SCORES, st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=60
)
SHORT = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6)
SHIFTED_SCALED = [lambda s: s * 0.25 - 3, np.arctan]


def columns(rows):
    labels, scores, groups, weights = (np.array(column) for column in zip(*rows, strict=True))
    return labels, scores, groups, weights.astype(float)


def auc_by_pairs(labels, scores, weights):
    positive = [(s, w) for y, s, w in zip(labels, scores, weights, strict=True) if y]
    negative = [(s, w) for y, s, w in zip(labels, scores, weights, strict=True) if not y]
    total = sum(w for _, w in positive) * sum(w for _, w in negative)
    if not total:
        return None
    pairs = product(positive, negative)
    return sum(wp * wn * ((sp > sn) + (sp == sn) / 2) for (sp, wp), (sn, wn) in pairs) / total


@given(ROWS)
def test_auc_counts_pairs(rows):
    labels, scores, _, weights = columns(rows)
    assert auc(labels, scores) == pytest.approx(auc_by_pairs(labels, scores, np.ones(len(rows))), abs=1e-12)
    assert auc(labels, scores, weights) == pytest.approx(auc_by_pairs(labels, scores, weights), abs=1e-9)


@given(ROWS)
def test_auc_and_average_precision_equal_sklearn(rows):
    labels, scores, _, weights = columns(rows)
    scores = np.clip(scores, -1e9, 1e9)
    if 0 < labels.sum() < len(labels):
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    if labels.any():
        assert pr_auc(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    heavy = weights + 0.5
    if labels.any():
        expected = average_precision_score(labels, scores, sample_weight=heavy)
        assert pr_auc(labels, scores, heavy) == pytest.approx(expected, abs=1e-9)


def test_random_floats_equal_sklearn_at_size():
    rng = np.random.default_rng(0)
    labels, weights = rng.random(20_000) < 0.03, rng.random(20_000)
    scores = np.round(rng.random(20_000) + labels * 0.2, 3).astype(np.float32)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert auc(labels, scores, weights) == pytest.approx(expected, abs=1e-9)
    expected = average_precision_score(labels, scores, sample_weight=weights)
    assert pr_auc(labels, scores, weights) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_label_type_does_not_matter(dtype):
    labels = np.array([1, 0, 1, 0, 0], dtype=dtype)
    scores = np.array([5, 4, 3, 2, 1], dtype=np.uint8)
    assert auc(labels, scores) == 5 / 6
    assert recall_at_k(labels, scores, np.zeros(5), 2).value == 0.5


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1, 1]])
def test_one_class_has_no_auc(labels):
    scores, groups = np.arange(len(labels)), np.zeros(len(labels), int)
    assert auc(labels, scores) is None
    assert auc(labels, scores, np.ones(len(labels))) is None
    grouped = gauc(labels, scores, groups)
    assert grouped.value is None
    assert (grouped.groups_used, grouped.rows_used) == (0, 0)
    assert grouped.groups_left_out == min(1, len(labels))
    assert (pr_auc(labels, scores) is None) == (sum(labels) == 0)
    for metric in (ndcg_at_k, map_at_k, recall_at_k):
        assert (metric(labels, scores, groups, 2).value is None) == (sum(labels) == 0)


def test_a_class_of_weight_zero_is_absent():
    assert auc([1, 0], [0.1, 0.2], [0.0, 1.0]) is None
    assert gauc([1, 0], [0.1, 0.2], [0, 0], [0.0, 1.0]).groups_left_out == 1
    assert pr_auc([1, 0], [0.1, 0.2], [0.0, 1.0]) is None


@given(ROWS, st.booleans())
def test_gauc_is_the_mean_of_the_groups_aucs(rows, weighted):
    labels, scores, groups, weights = columns(rows)
    mass = weights if weighted else np.ones(len(rows))
    total, wanted, used_rows, used = 0.0, 0.0, 0, 0
    for group in np.unique(groups):
        inside = groups == group
        value = auc_by_pairs(labels[inside], scores[inside], mass[inside])
        if value is not None:
            total += mass[inside].sum()
            wanted += value * mass[inside].sum()
            used, used_rows = used + 1, used_rows + int(inside.sum())
    got = gauc(labels, scores, groups, weights if weighted else None)
    assert (got.groups_used, got.rows_used) == (used, used_rows)
    assert got.groups_left_out == len(np.unique(groups)) - used
    assert got.value == (pytest.approx(wanted / total, abs=1e-9) if used else None)


def test_gauc_keeps_its_digits_over_many_groups_of_unlike_weight():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(20_000), 4)
    labels = np.tile([1, 0, 0, 1], 20_000)
    scores = rng.integers(0, 3, len(groups))
    weights = 10.0 ** rng.integers(-6, 7, len(groups))
    values, masses = [], []
    for rows in range(0, len(groups), 4):
        part = slice(rows, rows + 4)
        values.append(auc_by_pairs(labels[part], scores[part], weights[part]))
        masses.append(weights[part].sum())
    assert gauc(labels, scores, groups, weights).value == pytest.approx(
        np.average(values, weights=masses), abs=1e-9
    )


@pytest.mark.parametrize("kind", ["text", "object", "float", "date"])
def test_groups_may_be_any_sortable_key(kind):
    numbers = np.array([3, 1, 3, 1, 1, 3, 2])
    keys = {
        "text": np.array([f"user {n}" for n in numbers]),
        "object": np.array([f"user {n}" for n in numbers], dtype=object),
        "float": numbers / 7,
        "date": np.datetime64("2026-01-01") + numbers,
    }[kind]
    labels, scores = [1, 0, 0, 1, 0, 1, 1], [3, 1, 2, 2, 2, 1, 0]
    assert gauc(labels, scores, keys) == gauc(labels, scores, numbers)
    assert map_at_k(labels, scores, keys, 2) == map_at_k(labels, scores, numbers, 2)


@given(ROWS, st.randoms())
def test_order_of_rows_and_scale_of_scores_change_nothing(rows, random):
    labels, scores, groups, _ = columns([row for row in rows if abs(row[1]) < 1e4] or [(True, 0.0, 0, 0)])
    order = list(range(len(labels)))
    random.shuffle(order)
    scores = np.round(scores, 1)
    for k in (1, 3):
        for metric in (ndcg_at_k, map_at_k, recall_at_k):
            value = metric(labels, scores, groups, k).value
            shuffled = metric(labels[order], scores[order], groups[order], k).value
            assert shuffled == pytest.approx(value, abs=1e-12)
    for change in SHIFTED_SCALED:
        assert auc(labels[order], change(scores[order])) == auc(labels, scores)


def expected_over_orders(labels, scores, one_list):
    """Mean of `one_list` over every order in which no row stands above a better scored one."""
    orders = [
        order
        for order in permutations(range(len(labels)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    return sum(one_list([labels[i] for i in order]) for order in orders) / len(orders)


@given(SHORT, st.integers(1, 4))
def test_measures_at_k_are_means_over_the_orders_of_tied_rows(rows, k):
    graded, scores, groups = (np.array(column) for column in zip(*rows, strict=True))
    labels = (graded > 1).astype(int)

    def dcg(ranked):
        return sum(gain / log2(place + 2) for place, gain in enumerate(ranked[:k]))

    def average_precision(ranked):
        hits = [place for place, hit in enumerate(ranked[:k]) if hit]
        return sum(sum(ranked[: place + 1]) / (place + 1) for place in hits) / min(sum(ranked), k)

    cases = {
        ndcg_at_k: (graded, lambda ranked: dcg(ranked) / dcg(sorted(ranked, reverse=True))),
        map_at_k: (labels, average_precision),
        recall_at_k: (labels, lambda ranked: sum(ranked[:k]) / sum(ranked)),
    }
    for metric, (target, one_list) in cases.items():
        values = [
            expected_over_orders(target[groups == group], scores[groups == group], one_list)
            for group in np.unique(groups)
            if target[groups == group].sum()
        ]
        got = metric(target, scores, groups, k)
        assert got.groups_used == len(values)
        assert got.groups_used + got.groups_left_out == len(np.unique(groups))
        assert got.value == (pytest.approx(np.mean(values), abs=1e-9) if values else None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=2, max_size=30), st.integers(1, 8))
def test_ndcg_of_one_list_equals_sklearn(rows, k):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    if labels.any():
        expected = ndcg_score([labels], [scores], k=k)
        assert ndcg_at_k(labels, scores, np.zeros(len(rows)), k).value == pytest.approx(expected, abs=1e-9)


BAD = {
    "NaN label": (lambda: auc([1, np.nan], [1, 2]), "labels holds NaN"),
    "NaN score": (lambda: auc([1, 0], [1, np.nan]), "scores holds NaN"),
    "label 2": (lambda: gauc([1, 2], [1, 2], [0, 0]), "labels must be 0 or 1"),
    "lengths": (lambda: pr_auc([1, 0], [1, 2, 3]), "scores has 3 values for 2 labels"),
    "negative weight": (lambda: auc([1, 0], [1, 2], [1, -1]), "weights must be finite and at least 0"),
    "infinite weight": (lambda: auc([1, 0], [1, 2], [1, np.inf]), "weights must be finite and at least 0"),
    "NaN group": (lambda: gauc([1, 0], [1, 2], [0, np.nan]), "groups holds NaN"),
    "None group": (lambda: gauc([1, 0], [1, 2], np.array(["a", None], object)), "groups mixes values"),
    "groups": (lambda: gauc([1, 0], [1, 2], ["a"]), "groups has the shape"),
    "k": (lambda: recall_at_k([1, 0], [1, 2], [0, 0], 0), "k must be at least 1, not 0"),
    "negative relevance": (lambda: ndcg_at_k([1, -1], [1, 2], [0, 0], 1), "labels must be finite"),
    "two dimensions": (lambda: auc([[1], [0]], [1, 2]), "labels must have one dimension"),
    "text": (lambda: auc(["1", "0"], [1, 2]), "labels must be numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


@given(ROWS, st.integers(4, 20))
def test_curves_are_points_of_those_of_sklearn(rows, points):
    labels, scores, _, _ = columns(rows)
    scores = np.clip(scores, -1e9, 1e9)
    found = Ordered.of(labels, scores).thresholds(points)
    if not 0 < labels.sum() < len(labels):
        assert len(found.recall) == 0
        return
    false_rate, recall, _ = roc_curve(labels, scores, drop_intermediate=False)
    roc = {(round(x, 9), round(y, 9)) for x, y in zip(false_rate, recall, strict=True)}
    precision, recall, _ = precision_recall_curve(labels, scores)
    curve = {(round(x, 9), round(y, 9)) for x, y in zip(recall, precision, strict=True)}
    for x, y, z in zip(found.false_positive_rate, found.recall, found.precision, strict=True):
        assert (round(x, 9), round(y, 9)) in roc
        assert (round(y, 9), round(z, 9)) in curve
    assert (found.recall[-1], found.false_positive_rate[-1]) == (1, 1)
    assert (np.diff(found.recall) >= 0).all()


def test_the_trapezes_under_many_points_come_to_the_auc():
    rng = np.random.default_rng(8)
    labels = rng.random(50_000) < 0.05
    scores = rng.normal(labels, 1)
    curve = Ordered.of(labels, scores).thresholds(400)
    assert len(curve.recall) <= 400
    x, y = np.append(0, curve.false_positive_rate), np.append(0, curve.recall)
    assert np.trapezoid(y, x) == pytest.approx(auc(labels, scores), abs=2e-3)


@given(ROWS)
def test_the_histogram_counts_every_row_once(rows):
    labels, scores, _, _ = columns(rows)
    probabilities = np.arctan(scores) / np.pi + 0.5
    edges, negative, positive = score_histogram(labels, probabilities, bins=7)
    assert (negative.sum(), positive.sum()) == ((~labels).sum(), labels.sum())
    assert (np.diff(edges) > 0).all()
