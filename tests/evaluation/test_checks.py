"""Data checks: what is planted in the shop's data is found, and what is measured is what it says."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from harness import mtlrank, set_keys
from hypothesis import given
from hypothesis import strategies as st

import mtl_rank as mr
from mtl_rank.config import load_config
from mtl_rank.evaluation.profile import Alone, Column, alone, population_stability
from mtl_rank.metrics import auc

# ---- what is measured


def column(codes, size, numbers=None):
    codes = np.asarray(codes, np.int64)
    return Column(codes, size, numbers, codes == 0, None, False)


@given(st.integers(0, 10_000), st.sampled_from([500, 5_000]))
def test_stability_is_near_zero_for_rows_of_one_population(seed, n):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(20))
    a, b = (column(rng.choice(20, size, p=shares) + 2, 22) for size in (4 * n, n))
    assert 0 <= population_stability(a, b) < 0.1


def test_stability_is_the_sum_over_classes_less_what_chance_gives():
    a, b = np.repeat([2, 3, 4], [5000, 3000, 2000]), np.repeat([2, 3, 4], [2000, 3000, 5000])
    p, q = (np.array(counts) + 0.5 for counts in ([5000, 3000, 2000], [2000, 3000, 5000]))
    p, q = p / p.sum(), q / q.sum()
    expected = ((p - q) * np.log(p / q)).sum() - 2 * (2 / 10_000)
    assert population_stability(column(a, 5), column(b, 5)) == pytest.approx(expected)


def test_what_goes_missing_is_drift_and_the_long_tail_is_one_class():
    rng = np.random.default_rng(0)
    tail = rng.integers(2, 5_002, 20_000)
    other_tail = rng.integers(2, 5_002, 20_000)
    assert population_stability(column(tail, 5_002), column(other_tail, 5_002)) < 0.02
    gone = np.where(rng.random(20_000) < 0.5, 0, other_tail)
    assert population_stability(column(tail, 5_002), column(gone, 5_002)) > 0.5
    assert population_stability(column(tail, 5_002), column([], 5_002)) is None


def test_a_number_tells_with_its_auc_in_either_direction():
    rng = np.random.default_rng(1)
    x = rng.normal(size=4_000)
    y = (rng.random(4_000) < 1 / (1 + np.exp(2 * x))).astype(float)
    y[:500] = np.nan
    plain = column(np.full(4_000, 2), 3, x)
    found = alone(plain, plain, (y, y), "binary", None)
    assert found == Alone(pytest.approx(auc(y[500:], -x[500:])), None)


def test_an_id_tells_by_its_rate_on_rows_that_the_rate_was_not_taken_from():
    rng = np.random.default_rng(2)
    noise = [column(rng.integers(2, 2_002, 4_000), 2_002) for _ in range(2)]
    labels = tuple((rng.random(4_000) < 0.3).astype(float) for _ in range(2))
    assert abs(alone(*noise, labels, "binary", None).strength - 0.5) < 0.05, "an id per row tells nothing"
    telling = [column(y.astype(int) * 3 + rng.integers(2, 5, 4_000), 9) for y in labels]
    assert alone(*telling, labels, "binary", None).strength == 1


def test_a_running_count_tells_over_all_rows_and_against_the_label_within_a_user():
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(300), 30)
    taste = np.repeat(rng.beta(1, 3, 300), 30)
    y = (rng.random(9_000) < taste).astype(float).reshape(300, 30)
    # Everything but the row itself: the purest form of a rate that is tied to the label.
    rate = ((y.sum(axis=1, keepdims=True) - y + 1) / 33).ravel()
    counted = column(np.full(9_000, 2), 3, rate)
    found = alone(counted, counted, (y.ravel(), y.ravel()), "binary", users)
    assert found.strength > 0.55
    assert found.within < 0.1


# ---- what is planted


@pytest.fixture(scope="module")
def planted(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop with a leak, a drift, a constant and a sparse column; one view matches nothing."""
    project = shutil.copytree(applied, tmp_path_factory.mktemp("planted") / "shop")
    rng = np.random.default_rng(4)
    path = project / "data/impressions.parquet"
    rows = pl.read_parquet(path)
    late = rows["event_timestamp"] >= load_config(project).split.valid
    n = rows.height
    rows = rows.with_columns(
        seconds_on_checkout=rows["purchased"].fill_null(0) * 30 + pl.Series(rng.normal(0, 3, n)),
        app_version=pl.Series(rng.integers(1, 4, n)) + pl.Series(late).cast(pl.Int64) * 2,
        country=pl.lit("here"),
        coupon=pl.when(pl.Series(rng.random(n) < 0.02)).then(pl.lit("SAVE")),
        trace=pl.int_range(n).cast(pl.String),
        nothing=pl.lit(None, pl.Float64),
    )
    rows.write_parquet(path)
    stats = pl.read_parquet(project / "data/user_stats.parquet")
    stats.with_columns(pl.col("user_id") + 10**6).write_parquet(project / "data/user_stats.parquet")
    context = {
        "context.seconds_on_checkout": {"role": "dense"},
        "context.nothing": {"role": "dense"},
        **{
            f"context.{name}": {"role": "categorical"}
            for name in ("app_version", "country", "coupon", "trace")
        },
    }
    return set_keys(project, context)


def test_the_check_finds_each_of_them_and_nothing_else_loud(planted: Path) -> None:
    outcome = mtlrank("features", "--check", "--json", cwd=planted)
    assert outcome.code == 0, outcome.err
    found = {(flag["kind"], flag["where"]) for flag in outcome.document["flags"]}
    assert found >= {
        ("leak", "seconds_on_checkout"),
        ("dead view", "user_stats"),
        ("drift", "app_version"),
        ("constant", "country"),
        ("missing", "coupon"),
        ("missing", "nothing"),
        ("unseen", "trace"),
    }
    assert {where for kind, where in found if kind == "constant"} == {"country"}
    assert [flag["where"] for flag in outcome.document["flags"]].count("trace") == 1
    loud = {(kind, where) for kind, where in found if kind in ("leak", "dead view")}
    assert len(loud) == 2
    assert not {where for kind, where in found if kind != "dead view" and where.startswith("user_stats__")}
    views = {view["name"]: view for view in outcome.document["views"]}
    assert views["user_stats"]["coverage"] == {"train": 0, "valid": 0}
    assert views["user_stats"]["matches"] == {"matched": 0, "median_age": None, "tenth_age": None}
    assert views["user_profile"]["coverage"]["train"] == views["user_profile"]["matches"]["matched"] == 1


def test_the_table_shouts_what_matters(planted: Path) -> None:
    outcome = mtlrank("features", "--check", cwd=planted)
    assert "LEAK: context.seconds_on_checkout: alone it tells cvr with AUC of 1.000" in outcome.out
    assert (
        "DEAD VIEW: feature view user_stats: no row of the train and valid windows has a match" in outcome.out
    )
    assert "drift: context.app_version: drifts" in outcome.out
    assert "2 problems" in outcome.out


class Recorder:
    def __init__(self) -> None:
        self.events: list[str] = []

    def stage(self, name: str, total: int | None) -> None:
        self.events.append(name)

    def advance(self, done: int, note: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        self.events.append(text)


def test_a_training_tells_it_before_the_first_epoch_and_keeps_it(planted: Path) -> None:
    recorder = Recorder()
    run = mr.train(planted, ["ctr", "cvr"], {"fit.epochs": 1}, recorder)
    first_epoch = next(i for i, event in enumerate(recorder.events) if event.startswith("epoch"))
    told = recorder.events[:first_epoch]
    assert any(event.startswith("DEAD VIEW: feature view user_stats") for event in told)
    assert any(event.startswith("LEAK: context.seconds_on_checkout") for event in told)
    assert any(event.endswith("more notes on the data: mtlrank features --check") for event in told)
    assert {flag["kind"] for flag in run.checks()["flags"]} >= {"leak", "dead view", "drift", "constant"}
    drift = run.details()["test"]["drift"]
    assert max(drift, key=drift.get) == "app_version"


def test_ages_are_those_of_the_rows_that_were_joined(project: Path) -> None:
    found = {view.name: view for view in mr.check(project).views}
    config = load_config(project)
    rows = pl.read_parquet(project / "data/impressions.parquet").with_row_index()
    rows = rows.filter(pl.col("event_timestamp") < config.split.test)
    stats = pl.read_parquet(project / "data/item_stats.parquet").select(
        "item_id", pl.col("event_timestamp").alias("known")
    )
    joined = rows.sort("event_timestamp").join_asof(
        stats.sort("known"), left_on="event_timestamp", right_on="known", by="item_id", check_sortedness=False
    )
    age = (joined["event_timestamp"] - joined["known"]).dt.total_microseconds() / 1e6
    age = age.filter(age <= 14 * 86_400)
    matches = found["item_stats"].matches
    assert matches.matched == pytest.approx(len(age) / rows.height)
    assert matches.median_age == pytest.approx(age.median())
    assert found["price_match"].matches is None, "an on-demand view is computed, not joined"
