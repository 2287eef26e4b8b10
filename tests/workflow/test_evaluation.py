"""Evaluation: the numbers of a run again, on other rows, and as one JSON document."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.config import load_config
from mtl_rank.metrics import auc
from mtl_rank.runs import find_run


@pytest.fixture(scope="module")
def project(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluation writes into the run, so the tests of this file have their own."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("evaluation") / "shop")


def test_evaluating_the_test_split_gives_what_training_stored(trained: Path, project: Path) -> None:
    outcome = mtlrank("evaluate", "--json", cwd=project)
    assert outcome.code == 0
    assert outcome.document == find_run(trained).metrics()["test"]
    assert find_run(project).metrics() == find_run(trained).metrics()


def test_attainable_auc_is_that_of_the_true_probabilities(project: Path) -> None:
    rows = pl.read_parquet(project / "data/impressions.parquet").join(
        pl.read_parquet(project / "data/truth.parquet"), on="impression_id", how="left", maintain_order="left"
    )
    rows = rows.filter(pl.col("event_timestamp") >= load_config(project).split.test)
    clicked = rows.filter(pl.col("clicked") == 1)
    expected = {
        "ctr": auc(rows["clicked"].to_numpy(), rows["ctr"].to_numpy()),
        "cvr": auc(clicked["purchased"].to_numpy(), clicked["cvr"].to_numpy()),
        "ctcvr": auc(
            (rows["clicked"] * rows["purchased"]).to_numpy(), (rows["ctr"] * rows["cvr"]).to_numpy()
        ),
    }
    tasks = find_run(project).metrics()["test"]["tasks"]
    found = {name: tasks[name]["attainable_auc"] for name in expected}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_split_can_be_measured_and_is_kept_beside_the_others(project: Path, split: str) -> None:
    result = mr.evaluate(project, split=split)
    run = find_run(project)
    assert result.rows == run.info()["rows"][split]
    assert run.metrics()[result.window] == result.as_dict()
    assert "test" in run.metrics()


def test_other_labelled_rows_need_neither_truth_nor_split(project: Path) -> None:
    rows = pl.read_parquet(project / "data/impressions.parquet").drop("impression_id").head(500)
    rows.write_parquet(project / "data/others.parquet")
    document = mtlrank("evaluate", "--examples", "data/others.parquet", "--json", cwd=project).document
    assert (document["window"], document["rows"]) == ("examples", 500)
    assert document["tasks"]["ctr"]["positives"] == rows["clicked"].sum()
    assert document["tasks"]["ctr"]["attainable_auc"] is None

    sql = "SELECT * FROM 'data/others.parquet' WHERE clicked = 1"
    clicked = mtlrank("evaluate", "--examples", sql, "--json", cwd=project).document
    assert clicked["rows"] == rows["clicked"].sum()
    assert clicked["tasks"]["ctr"]["note"] == "every label is 1: ranking numbers are undefined"
    assert clicked["tasks"]["ctr"]["auc"] is None


def test_labels_unknown_for_some_rows_are_left_out(project: Path) -> None:
    rows = pl.read_parquet(project / "data/impressions.parquet").head(500)
    unknown = rows.with_columns(clicked=pl.when(pl.int_range(500) >= 100).then("clicked"))
    unknown.write_parquet(project / "data/unknown.parquet")
    tasks = {n.name: n for n in mr.evaluate(project, examples="data/unknown.parquet").tasks}
    assert tasks["ctr"].rows == 400
    assert tasks["cvr"].rows == unknown["clicked"].sum()


def test_gauc_ranks_within_each_user(project: Path) -> None:
    """Recomputed from the scores: the AUC of each user with both classes, weighted by the user's rows."""
    config = load_config(project)
    rows = f"SELECT * FROM '{project / config.examples}' WHERE event_timestamp >= '{config.split.test}'"
    mr.score(project, candidates=rows, to=project / "gauc.duckdb")
    with duckdb.connect(str(project / "gauc.duckdb"), read_only=True) as con:
        predicted = con.sql("SELECT ctr FROM scores ORDER BY rowid").pl()["ctr"]
    labels = pl.read_parquet(project / config.examples).filter(pl.col("event_timestamp") >= config.split.test)
    by_user = [
        (len(part), auc(part["clicked"].to_numpy(), part["p"].to_numpy()))
        for part in labels.with_columns(p=predicted).partition_by("user_id")
        if part["clicked"].n_unique() == 2
    ]
    weights, values = np.array(by_user).T
    expected = find_run(project).metrics()["test"]["tasks"]["ctr"]["gauc"]
    assert (weights @ values) / weights.sum() == pytest.approx(expected)
