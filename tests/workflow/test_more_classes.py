"""Tasks with more than two classes from the examples to the scores table, on the command line."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from harness import Outcome, mtlrank, set_keys

from mtl_rank.runs import find_run

LEARNING = {"epochs": 4, "batch_size": 32, "embedding_l2": 0.01}
STARS = (1, 2, 3, 5)
OUTPUTS = ["ctr", "stars", *(f"stars_{k}" for k in STARS), "place_top", "place_middle", "place_below"]


@pytest.fixture(scope="module")
def shop(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop with stars for what was clicked, and the place on the page as a class to be predicted."""
    project = shutil.copytree(applied, tmp_path_factory.mktemp("classes") / "shop")
    path = project / "data/impressions.parquet"
    dwell, position = pl.col("dwell_seconds"), pl.col("position")
    pl.read_parquet(path).with_columns(
        stars=pl.when(dwell < 10).then(1).when(dwell < 25).then(2).when(dwell < 60).then(3).otherwise(5),
        place=pl.when(position <= 3)
        .then(pl.lit("top"))
        .when(position <= 8)
        .then(pl.lit("middle"))
        .otherwise(pl.lit("below")),
    ).write_parquet(path)
    tasks = {
        "ctr": {"label": "clicked"},
        "stars": {"label": "stars", "kind": "ordinal", "classes": list(STARS), "given": "ctr"},
        "place": {"label": "place", "kind": "multiclass", "classes": ["top", "middle", "below"]},
    }
    return set_keys(project, {"tasks": tasks, "truth": None, "evaluation.draws": 20, "fit": LEARNING})


@pytest.fixture(scope="module")
def trained(shop: Path) -> Outcome:
    outcome = mtlrank("train", "--json", cwd=shop)
    assert outcome.code == 0, outcome.err
    return outcome


def test_each_class_is_measured_as_an_output_and_all_together(trained: Outcome) -> None:
    test = trained.document["metrics"]["test"]
    assert list(test["tasks"]) == OUTPUTS
    assert [test["tasks"][name]["kind"] for name in OUTPUTS[:3]] == ["binary", "regression", "binary"]
    stars, place = test["classes"]["stars"], test["classes"]["place"]
    assert (stars["kind"], stars["classes"], place["kind"], place["classes"]) == (
        "ordinal",
        4,
        "multiclass",
        3,
    )
    # The position on the page is among the inputs.
    assert place["accuracy"] > 0.9
    assert place["ne"] < 0.5
    aucs = [test["tasks"][f"stars_{k}"]["auc"] for k in STARS]
    assert stars["auc"] == pytest.approx(np.mean(aucs))
    assert stars["spearman"] == pytest.approx(test["tasks"]["stars"]["spearman"])
    assert stars["rows"] == test["tasks"]["stars"]["rows"] == test["tasks"]["ctr"]["positives"]
    assert place["kappa"] is None


def test_the_tables_show_the_classes(shop: Path, trained: Outcome) -> None:
    shown = mtlrank("evaluate", "--draws", "0", cwd=shop)
    assert shown.code == 0, shown.err
    assert "tasks with more than two classes" in shown.out
    assert all(word in shown.out for word in ("kappa", "accuracy", "place_top", "stars_5"))


def test_scores_have_a_column_per_class_and_measure_the_same(shop: Path, trained: Outcome) -> None:
    candidates = "SELECT * FROM 'data/impressions.parquet'"
    command = ("score", "--candidates", candidates, "--to", "scores.duckdb", "--rank-by", "ctr * stars")
    outcome = mtlrank(*command, "--json", cwd=shop)
    assert outcome.code == 0, outcome.err
    assert set(outcome.document["psi"]) == set(OUTPUTS)
    with duckdb.connect(str(shop / "scores.duckdb"), read_only=True) as con:
        scores = con.sql("SELECT * FROM scores").pl()
    assert set(OUTPUTS) <= set(scores.columns)
    total = scores.select(pl.sum_horizontal([f"stars_{k}" for k in STARS])).to_series()
    np.testing.assert_allclose(total, 1, rtol=1e-9)
    np.testing.assert_allclose(scores["stars"], sum(k * scores[f"stars_{k}"] for k in STARS), rtol=1e-9)

    measured = mtlrank(
        "evaluate", "--scores", "scores.duckdb", "--split", "test", "--draws", "0", "--json", cwd=shop
    )
    assert measured.code == 0, measured.err
    test = trained.document["metrics"]["test"]
    for task in ("stars", "place"):
        assert measured.document["classes"][task]["rows"] == test["classes"][task]["rows"]
        assert measured.document["classes"][task]["log_loss"] == pytest.approx(
            test["classes"][task]["log_loss"]
        )


def test_inspect_and_tune_know_classes(shop: Path, trained: Outcome) -> None:
    found = mtlrank("inspect", "--rows", "2000", "--json", cwd=shop)
    assert found.code == 0, found.err
    of_place = {one["input"]: one for one in found.document["importance"] if one["task"] == "place"}
    assert of_place["position"]["loss_rise"] == max(one["loss_rise"] for one in of_place.values())
    assert of_place["position"]["auc_drop"] > 0.1
    tuned = mtlrank(
        "tune", "--tasks", "ctr,place", "--trials", "1", "--json", "--set", "fit.epochs=1", cwd=shop
    )
    assert tuned.code == 0, tuned.err
    assert set(tuned.document["alone"]) == {"ctr", "place"}


def test_the_report_and_the_comparison_know_classes(shop: Path, trained: Outcome) -> None:
    report = mtlrank("report", cwd=shop)
    assert report.code == 0, report.err
    assert "Class 5 of column stars, on rows where clicked is 1." in find_run(shop).report.read_text()
    first = trained.document["run"]
    other = mtlrank("train", "--json", "--set", "fit.epochs=1", cwd=shop).document["run"]
    compared = mtlrank("compare", first, other, "--json", cwd=shop)
    assert compared.code == 0, compared.err
    assert {one["output"] for one in compared.document["metrics"]} == set(OUTPUTS)


def test_a_label_that_is_no_class_is_refused(shop: Path, tmp_path: Path) -> None:
    project = shutil.copytree(shop, tmp_path / "shop", ignore=shutil.ignore_patterns("runs", "cache", "tune"))
    outcome = mtlrank("train", "--set", "tasks.stars.classes=[1, 2, 3, 4]", cwd=project)
    assert outcome.code == 2
    assert "task stars: label 'stars' holds 5, which is none of its classes" in outcome.err
    assert len(outcome.err.splitlines()) <= 6
