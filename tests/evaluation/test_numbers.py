"""Outcomes -> numbers: where tasks are defined, what is undefined and why, intervals, slices."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank import metrics
from mtl_rank.errors import DataError
from mtl_rank.evaluation.evaluate import measured
from mtl_rank.evaluation.numbers import measure_all
from mtl_rank.evaluation.outcomes import Outcomes, chain_label, codes_of, days_of
from mtl_rank.evaluation.slices import MISSING, OTHERS, Slice, cut, slice_numbers

KINDS = {"ctr": "binary", "cvr": "binary", "dwell": "regression", "ctcvr": "binary"}


def outcomes_of(clicked, bought, seconds, rng, users=12, **more):
    n = len(clicked)
    ctr, cvr = rng.uniform(0.01, 0.99, n), rng.uniform(0.01, 0.99, n)
    return Outcomes(
        kinds=KINDS,
        chains={"ctcvr": ("ctr", "cvr")},
        user_key="user_id",
        labels={"ctr": clicked.astype(np.float32), "cvr": bought.astype(np.float32), "dwell": seconds},
        predictions={"ctr": ctr, "cvr": cvr, "dwell": rng.gamma(2, 5, n), "ctcvr": ctr * cvr},
        users=rng.integers(0, users, n).astype(np.int32),
        days=rng.integers(20_000, 20_003, n).astype(np.int32),
        **more,
    )


def shop(n, rng, unobserved=0.1):
    clicked = (rng.random(n) < 0.4).astype(float)
    clicked[rng.random(n) < unobserved] = np.nan
    bought = np.where(clicked == 1, rng.random(n) < 0.3, np.nan)
    seconds = np.where(clicked == 1, rng.gamma(2, 6, n), np.nan)
    return clicked, bought, seconds


@given(st.integers(0, 5_000), st.sampled_from([1, 7, 60, 400]))
def test_every_number_is_the_metric_of_the_rows_where_the_task_is_defined(seed, n):
    rng = np.random.default_rng(seed)
    outcomes = outcomes_of(*shop(n, rng), rng)
    for found in measure_all(outcomes):
        numbers = found.numbers
        label = outcomes.label_of(numbers.name)
        rows = ~np.isnan(label)
        y, p, users = label[rows], outcomes.predictions[numbers.name][rows], outcomes.users[rows]
        assert numbers.rows == rows.sum()
        if not rows.any():
            assert numbers.note == "no row has this label"
            continue
        assert numbers.mean_prediction == pytest.approx(p.mean())
        if numbers.kind == "regression":
            expected = (metrics.rmse(y, p), metrics.mae(y, p), metrics.spearman(y, p))
            assert (numbers.rmse, numbers.mae, numbers.spearman) == pytest.approx(expected, abs=1e-9)
            continue
        days = np.array([f"{u} {d}" for u, d in zip(users, outcomes.days[rows], strict=True)])
        wanted = {
            "auc": metrics.auc(y, p),
            "gauc": metrics.gauc(y, p, users).value,
            "gauc_day": metrics.gauc(y, p, days).value,
            "pr_auc": metrics.pr_auc(y, p),
            "ne": metrics.normalised_entropy(y, p),
            "log_loss": metrics.log_loss(y, p),
            "brier": metrics.brier(y, p),
            "ece": metrics.expected_calibration_error(y, p),
            "ndcg": metrics.ndcg_at_k(y, p, users, 10).value,
            "map": metrics.map_at_k(y, p, users, 10).value,
            "recall": metrics.recall_at_k(y, p, users, 10).value,
        }
        for name, value in wanted.items():
            assert getattr(numbers, name) == pytest.approx(value, abs=1e-9), name
        one_class = y.sum() in (0, len(y))
        assert (numbers.auc is None) == one_class == (numbers.note is not None)


def test_a_chain_is_measured_on_every_row_whose_chain_is_known():
    nan = np.nan
    ctr, cvr = np.array([0, 1, 1, 1, nan, 0]), np.array([nan, 1, 0, nan, 1, 1])
    assert chain_label([ctr, cvr]) == pytest.approx([0, 1, 0, nan, nan, 0], nan_ok=True)


def test_intervals_hold_the_number_and_shrink_with_the_users():
    rng = np.random.default_rng(0)
    widths = []
    for users in (20, 2_000):
        outcomes = outcomes_of(*shop(users * 10, rng), rng, users=users)
        (ctr, *_) = measure_all(outcomes, draws=100)
        low, high = ctr.numbers.intervals["auc"]
        assert low <= ctr.numbers.auc <= high
        assert set(ctr.numbers.intervals) == {"auc", "gauc", "ne", "calibration"}
        widths.append(high - low)
    assert widths[1] < widths[0] / 4


def test_true_probabilities_are_calibrated_within_the_noise_and_reach_what_is_attainable():
    rng = np.random.default_rng(1)
    n = 60_000
    truth = {"ctr": rng.beta(1, 6, n), "cvr": rng.beta(2, 6, n)}
    clicked = (rng.random(n) < truth["ctr"]).astype(float)
    bought = np.where(clicked == 1, rng.random(n) < truth["cvr"], np.nan)
    outcomes = outcomes_of(clicked, bought, np.zeros(n), rng, users=3_000, truth=truth)
    outcomes.predictions.update(ctr=truth["ctr"], cvr=truth["cvr"], ctcvr=truth["ctr"] * truth["cvr"])
    result = measured(outcomes, "test", draws=100, seed=1)
    for numbers in result.tasks:
        if numbers.kind == "binary":
            assert numbers.auc == numbers.attainable_auc
            low, high = numbers.intervals["calibration"]
            assert low < 1 < high
            # 20 bins: the mean gap of true probabilities is about sqrt(2/pi) sigma of a bin's rate.
            noise = np.sqrt(numbers.mean_label * (1 - numbers.mean_label) / (numbers.rows / 20))
            assert numbers.ece < 1.5 * noise


def test_calibration_is_reported_before_and_after():
    rng = np.random.default_rng(2)
    outcomes = outcomes_of(*shop(500, rng), rng)
    before = {name: np.clip(p * 2, 0, 1) for name, p in outcomes.predictions.items() if name == "ctr"}
    changed = Outcomes(**{**vars(outcomes), "uncalibrated": before})
    ctr, cvr, *_ = [found.numbers for found in measure_all(changed)]
    rows = ~np.isnan(outcomes.labels["ctr"])
    y = outcomes.labels["ctr"][rows]
    assert ctr.uncalibrated["ne"] == metrics.normalised_entropy(y, before["ctr"][rows])
    assert ctr.uncalibrated["calibration"] == pytest.approx(metrics.calibration(y, before["ctr"][rows]))
    assert cvr.uncalibrated is None


# ---- slices


@given(st.integers(0, 3_000))
def test_a_slice_is_measured_as_if_there_were_no_other_rows(seed):
    rng = np.random.default_rng(seed)
    n = 300
    labels, p = (rng.random(n) < 0.3).astype(float), np.round(rng.uniform(0.05, 0.95, n), 1)
    column = pl.Series("tab", rng.choice(["home", "search", None], n).tolist(), dtype=pl.String)
    found = slice_numbers(labels, p, np.argsort(p), {"tab": cut("tab", column)})
    assert {one.value for one in found} == {MISSING, "home", "search"}
    for one in found:
        rows = column.is_null() if one.value == MISSING else (column == one.value).fill_null(False)
        y, q = labels[rows.to_numpy()], p[rows.to_numpy()]
        assert (one.rows, one.positives) == (len(y), y.sum())
        assert one.auc == pytest.approx(metrics.auc(y, q), abs=1e-12)
        assert one.ne == pytest.approx(metrics.normalised_entropy(y, q), rel=1e-9)
        assert one.calibration == pytest.approx(metrics.calibration(y, q), rel=1e-9)
    told = [one.ne for one in found if one.note is None]
    assert told == sorted(told, reverse=True)


def test_simpler_models_of_values_are_calibrated_or_not_like_those_of_probabilities():
    rng = np.random.default_rng(4)
    clicked, bought, seconds = shop(500, rng)
    twice = {"ctr": np.full(500, 0.8), "dwell": 2 * np.nan_to_num(seconds)}
    result = measured(outcomes_of(clicked, bought, seconds, rng, baselines={"twice": twice}), "test", 0, 7)
    assert result.baselines["twice"]["dwell"]["calibration"] == pytest.approx(2)
    assert result.baselines["twice"]["ctr"]["calibration"] == pytest.approx(0.8 / np.nanmean(clicked))


def test_what_is_planted_as_the_worst_slice_comes_first():
    rng = np.random.default_rng(3)
    truth = rng.beta(1, 3, 20_000)
    labels = (rng.random(20_000) < truth).astype(float)
    country = rng.integers(0, 5, 20_000)
    predicted = np.where(country == 3, rng.permutation(truth), truth)
    result = slice_numbers(
        labels, predicted, np.argsort(predicted), {"country": cut("country", pl.Series(country))}
    )
    assert (result[0].by, result[0].value) == ("country", "3")
    assert result[0].auc < min(one.auc for one in result[1:])


def test_few_rows_come_last_whatever_they_say():
    labels = np.tile([0.0, 1.0], 150)
    p = np.tile([0.4, 0.6], 150)
    p[:4] = [0.9, 0.1, 0.9, 0.1]
    column = pl.Series(["few"] * 4 + ["many"] * 200 + ["one class"] * 96)
    labels[204:] = 0
    found = slice_numbers(labels, p, np.argsort(p), {"x": cut("x", column)})
    assert [(one.value, one.note) for one in found] == [
        ("many", None),
        ("few", "few rows"),
        ("one class", "one class only"),
    ]
    assert found[2].auc is found[2].ne is None


def test_numbers_become_ten_buckets_and_rare_values_one():
    values = pl.Series(np.arange(1000.0)).scatter(0, None)
    buckets = cut("price", values)
    assert len(buckets.values) == 11
    assert np.bincount(buckets.codes).tolist() == [1, 99, *[100] * 8, 100]
    for code, value in zip(buckets.codes[1:], values[1:], strict=True):
        assert code == 1 + int(value // 100)
    assert buckets.values[1] == "below 100"
    assert buckets.values[-1] == "900 and above"

    brands = pl.Series([f"brand {i:02d}" for i in range(40) for _ in range(40 - i)])
    names = cut("brand", brands)
    assert [names.values[c] for c in names.codes[[0, 40, -1]]] == ["brand 00", "brand 01", OTHERS]
    assert (names.codes == len(names.values) - 1).sum() == sum(range(1, 11))


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([True, False, None]),
        pl.Series([1, 2, None], dtype=pl.Int32),
        pl.Series(["a", "b", None]),
        pl.Series([1.5, float("nan"), 2.0]),
        pl.Series(["2026-01-01", "2026-01-02", None]).str.to_date(),
        pl.Series(["a", "b", None]).cast(pl.Categorical),
        pl.Series([None, None, None]),
        pl.Series(["1.5", "2.5", None]).cast(pl.Decimal(10, 2)),
    ],
)
def test_any_plain_column_can_be_cut(values):
    found = cut("x", values)
    assert isinstance(found, Slice)
    missing = values.is_null() | (values.is_nan() if values.dtype.is_float() else pl.Series([False] * 3))
    assert [found.values[code] == MISSING for code in found.codes] == missing.to_list()


def test_an_empty_text_is_a_value_with_a_name():
    found = cut("city", pl.Series(["", "a", "", None]))
    assert [found.values[code] for code in found.codes] == ['""', "a", '""', MISSING]


def test_times_have_buckets_in_their_own_words():
    hours = pl.datetime_range(pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 9), "1h", eager=True)
    found = cut("time", hours)
    assert found.values[1].startswith("below 2026-01-01")
    assert len(set(found.codes.tolist())) == 10


def test_lists_cannot_be_cut():
    with pytest.raises(DataError, match="--by tags: the column is List"):
        cut("tags", pl.Series([[1], [2]]))


def test_rows_without_a_user_are_no_user():
    """Within users as if they were not there, over all rows as if they were anybody's."""
    rng = np.random.default_rng(11)
    clicked, bought, seconds = shop(600, rng)
    outcomes = outcomes_of(clicked, bought, seconds, rng, users=40)
    names = pl.Series(outcomes.users).cast(pl.String)
    unknown = np.arange(600) % 3 == 0
    users, userless = codes_of(pl.select(pl.when(~pl.Series(unknown)).then(names)).to_series())
    assert (userless == unknown).all()

    def only(rows):
        part = {
            key: {n: v[rows] for n, v in getattr(outcomes, key).items()} for key in ("labels", "predictions")
        }
        return replace(outcomes, users=outcomes.users[rows], days=outcomes.days[rows], **part)

    found = measured(replace(outcomes, users=users, userless=userless), "test", 200, 7)
    known, every = (measured(one, "test", 0, 7) for one in (only(~unknown), outcomes))
    for own, of_known, of_all in zip(found.tasks, known.tasks, every.tasks, strict=True):
        within = ("gauc", "gauc_users", "gauc_left_out", "gauc_day", "ndcg", "map", "recall")
        assert [getattr(own, key) for key in within] == pytest.approx(
            [getattr(of_known, key) for key in within]
        )
        assert (own.rows, own.auc, own.rmse, own.ne) == (of_all.rows, of_all.auc, of_all.rmse, of_all.ne)
    assert (found.rows_without_user, known.rows_without_user) == (200, 0)
    assert found.notes[0].startswith("200 rows have no user_id")
    assert known.notes == ()

    # As one user they would decide alone, and the interval would be far wider.
    low, high = found.tasks[0].intervals["auc"]
    rows = ~np.isnan(clicked)
    alone = metrics.resampled(
        "binary", clicked[rows], [outcomes.predictions["ctr"][rows]], np.arange(rows.sum()), 200
    )
    assert high - low == pytest.approx(np.diff(metrics.interval(alone[:, 0, 0]))[0], rel=0.4)


def test_codes_and_days():
    codes, without = codes_of(pl.Series(["b", None, "a", "b", None]))
    assert (codes.tolist(), without.tolist()) == ([2, 3, 1, 2, 4], [False, True, False, False, True])
    assert codes_of(pl.Series([0.5, float("nan"), 0.25]))[1].tolist() == [False, True, False]
    assert codes_of(pl.Series(["b", "a"]))[1] is None
    times = pl.Series(["2026-01-01 23:30", "2026-01-02 00:30"]).str.to_datetime(time_zone="Asia/Shanghai")
    assert days_of(times).tolist() == [20454, 20454], "days begin at midnight in UTC"
