"""Counts of a scored chunk: they add up, and drift is the textbook's formula over tenths of the earlier scores."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.scoring.measures import Measures, count_cells, count_missing, stability_index

VIEWS = {"user_stats": ["user_stats__clicks", "user_stats__rate"], "item": ["item__brand"]}
TASKS = {"ctr": True, "dwell": False}


def measured(rows, seed=0):
    random = np.random.default_rng(seed)
    table = pl.DataFrame(
        {
            "user_stats__clicks": [None if x < 0.5 else 1 for x in random.random(rows)],
            "user_stats__rate": [
                None if x < 0.3 else (np.nan if x < 0.5 else x) for x in random.random(rows)
            ],
            "item__brand": [None if x < 0.2 else "b" for x in random.random(rows)],
        }
    )
    scores = {"ctr": random.random(rows), "dwell": 100 * random.standard_normal(rows)}
    return table, scores


def of(table, scores):
    cells = {task: count_cells(scores[task], is_probability) for task, is_probability in TASKS.items()}
    return Measures(table.height, count_missing(table, VIEWS), cells)


def test_a_view_is_missing_where_it_has_no_value_at_all():
    table, scores = measured(500)
    found = of(table, scores)
    clicks, rate, brand = (np.array(table[name].to_list(), dtype=object) for name in table.columns)
    no_rate = np.array([x is None or np.isnan(x) for x in rate])
    assert found.missing["user_stats"] == int(((clicks == None) & no_rate).sum())  # noqa: E711
    assert found.missing_rates["item"] == pytest.approx(np.mean([x is None for x in brand]))
    assert 0 < found.missing["user_stats"] < found.missing["item"] < 500


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 99))
def test_the_counts_of_parts_are_those_of_the_whole(sizes, seed):
    table, scores = measured(sum(sizes), seed)
    ends = np.cumsum(sizes)
    parts = [
        of(table[start:end], {name: values[start:end] for name, values in scores.items()})
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    whole = of(table, scores).as_dict()
    assert Measures.total(parts).as_dict() == whole
    assert Measures.from_dict(json.loads(json.dumps(whole))).as_dict() == whole


@pytest.mark.parametrize("values", [[0.0, 1.0, 0.5, np.nan], [5e-324, 1 - 1e-16]])
def test_extreme_scores_are_counted(values):
    cells = of(*measured(0)).cells
    table = pl.DataFrame({name: [None] * len(values) for columns in VIEWS.values() for name in columns})
    cells = of(table, {"ctr": np.array(values), "dwell": np.array([1e300, -np.inf, np.nan, 0.0])}).cells
    assert sum(cells["ctr"].values()) == np.isfinite(values).sum()
    assert sum(cells["dwell"].values()) == 2


def by_hand(before, now):
    """PSI over tenths of `before`, from the values themselves."""
    ordered = np.sort(before)
    ends = {ordered[int(np.ceil(len(before) * k / 10)) - 1] for k in range(1, 10)}
    bounds = sorted({min([x for x in ordered if x > end], default=ordered[-1]) for end in ends})

    def shares(values):
        group = np.array([sum(x >= bound for bound in bounds) for x in values])
        counts = np.array([(group == g).sum() for g in range(len(bounds) + 1)]) + 0.5
        return counts / counts.sum()

    p, q = shares(before), shares(now)
    return ((q - p) * np.log(q / p)).sum()


cells = st.lists(st.integers(-20, 20), min_size=1, max_size=80)


@given(cells, cells)
def test_the_index_is_the_formula(before, now):
    counted = [
        dict(zip(*map(np.ndarray.tolist, np.unique(v, return_counts=True)), strict=True))
        for v in (before, now)
    ]
    assert stability_index(*counted) == pytest.approx(by_hand(before, now), abs=1e-12)
    assert stability_index(counted[0], counted[0]) == 0


def test_the_index_of_shifted_scores_is_near_its_theory():
    # Of two normal distributions a half apart it is 0.5 ** 2, a little less for tenths.
    random = np.random.default_rng(1)
    table = pl.DataFrame({name: [1] * 40_000 for columns in VIEWS.values() for name in columns})
    logits = random.standard_normal(40_000)
    before, now = (
        of(table, {"ctr": 1 / (1 + np.exp(-z)), "dwell": np.sinh(z)}).cells for z in (logits, logits + 0.5)
    )
    for task in TASKS:
        assert 0.2 < stability_index(before[task], now[task]) < 0.25


def test_there_is_no_index_without_scores():
    assert stability_index({}, {1: 2}) is None
    assert stability_index({1: 2}, {}) is None
