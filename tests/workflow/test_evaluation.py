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


def test_slices_by_a_column_of_the_examples_and_by_a_feature(project: Path) -> None:
    outcome = mtlrank(
        *("evaluate", "--by", "position", "--by", "user_profile__loyalty_tier", "--draws", "0", "--json"),
        cwd=project,
    )
    ctr = outcome.document["slices"]["ctr"]
    rows = pl.read_parquet(project / "data/impressions.parquet")
    rows = rows.filter(pl.col("event_timestamp") >= load_config(project).split.test)
    wanted = dict(
        rows.group_by("position")
        .agg(pl.len(), pl.col("clicked").sum())
        .select(pl.col("position").cast(pl.String), pl.struct("len", "clicked"))
        .iter_rows()
    )
    found = {one["value"]: (one["rows"], one["positives"]) for one in ctr if one["by"] == "position"}
    assert found == {value: (counts["len"], counts["clicked"]) for value, counts in wanted.items()}
    assert sum(one["rows"] for one in ctr if one["by"] == "user_profile__loyalty_tier") == rows.height
    assert all(not task["intervals"] for task in outcome.document["tasks"].values())

    wrong = mtlrank("evaluate", "--by", "user_profile__loyalty", cwd=project)
    assert (wrong.code, "did you mean 'user_profile__loyalty_tier'" in wrong.err) == (2, True)


def test_cold_users_are_those_without_an_embedding(project: Path) -> None:
    rows = pl.read_parquet(project / "data/impressions.parquet")
    split = load_config(project).split
    counts = rows.filter(pl.col("event_timestamp") < split.valid)["user_id"].value_counts()
    known = counts.filter(pl.col("count") >= 5)["user_id"]
    test = rows.filter(pl.col("event_timestamp") >= split.test)
    cold = test.filter(~pl.col("user_id").is_in(known.to_list())).height
    slices = find_run(project).metrics()["test"]["slices"]["ctr"]
    found = {one["value"]: one["rows"] for one in slices if one["by"] == "cold user_id"}
    assert found == {"yes": cold, "no": test.height - cold}


def test_simpler_models_stand_beside_the_run(project: Path) -> None:
    stored = find_run(project).metrics()["baselines"]["test"]
    assert list(stored) == ["constant", "rate per item_id", "logistic regression"]
    assert stored["constant"]["ctr"]["auc"] == 0.5
    assert stored["constant"]["ctr"]["ne"] == pytest.approx(1, abs=0.02)
    document = mtlrank("evaluate", "--baselines", "logistic,trees", "--json", cwd=project).document
    again = document["baselines"]
    assert again["logistic regression"] == stored["logistic regression"]
    assert again["gradient-boosted trees"]["ctr"]["auc"] > 0.5
    assert mtlrank("evaluate", "--baselines", "tree", cwd=project).code == 2


def test_a_wrong_evaluation_section_is_told_before_training(project: Path) -> None:
    outcome = mtlrank("train", "--set", "evaluation.by=[positions]", cwd=project)
    assert (outcome.code, "did you mean 'position'" in outcome.err) == (2, True)
    assert len(list((project / "runs").iterdir())) == 1


def test_a_configured_calibration_is_stored_applied_and_reported(project: Path) -> None:
    run = mr.train(
        project,
        settings={"fit.epochs": 1, "calibration.method": "platt", "calibration.tasks": {"cvr": "none"}},
    )
    assert run.info()["calibration"]["ctr"]["method"] == "platt"
    assert list(run.info()["calibration"]) == ["ctr"]
    tasks = run.metrics()["test"]["tasks"]
    assert tasks["ctr"]["uncalibrated"]["ne"] != tasks["ctr"]["ne"]
    assert tasks["cvr"]["uncalibrated"] is None
    assert tasks["ctcvr"]["uncalibrated"] is not None, "a product changes with its factors"

    from mtl_rank.predict import Predictor

    rows = f"SELECT * FROM '{project / 'data/impressions.parquet'}' LIMIT 50"
    mr.score(project, run.id, candidates=rows, to=project / "calibrated.duckdb")
    with duckdb.connect(str(project / "calibrated.duckdb"), read_only=True) as con:
        scored = con.sql("SELECT ctr FROM scores ORDER BY rowid").pl()["ctr"].to_numpy()
    plain = np.log(scored / (1 - scored))
    predictor = Predictor.load(run)
    assert list(predictor.calibration.maps) == ["ctr"]
    run.calibration.unlink()
    mr.score(project, run.id, candidates=rows, to=project / "uncalibrated.duckdb")
    with duckdb.connect(str(project / "uncalibrated.duckdb"), read_only=True) as con:
        before = con.sql("SELECT ctr FROM scores ORDER BY rowid").pl()["ctr"].to_numpy()
    expected = predictor.calibration.maps["ctr"](np.log(before / (1 - before)))
    assert plain == pytest.approx(expected, rel=1e-6)
    shutil.rmtree(run.folder)


def test_rows_without_a_key_are_counted_and_neither_cold_nor_known(project: Path) -> None:
    rows = pl.read_parquet(project / "data/impressions.parquet").tail(600)
    nobody = rows.with_columns(user_id=pl.when(pl.int_range(600) >= 100).then("user_id"))
    nobody.write_parquet(project / "data/nobody.parquet")
    outcome = mtlrank("evaluate", "--examples", "data/nobody.parquet", cwd=project)
    assert "note: 100 rows have no user_id" in outcome.out
    result = find_run(project).metrics()["examples"]
    assert result["rows_without_user"] == 100
    slices = {(one["by"], one["value"]): one["rows"] for one in result["slices"]["ctr"]}
    assert slices["cold user_id", "(missing)"] == 100


def test_a_later_look_at_the_same_rows_loses_nothing_that_was_known(project: Path) -> None:
    run = mr.train(project, tasks=["ctr"], settings={"fit.epochs": 1})
    mr.evaluate(project, run.id, draws=60, by=["position"], baselines=["constant"])
    known = run.metrics()

    quick = mr.evaluate(project, run.id, draws=0, by=["hour"], baselines=["item_rate"])
    again = run.metrics()
    assert not quick.tasks[0].intervals
    # What training drew stays, since it drew more than sixty.
    assert again["test"]["draws"] == known["test"]["draws"] == 200
    assert again["test"]["tasks"] == known["test"]["tasks"]
    columns = {one["by"] for one in again["test"]["slices"]["ctr"]}
    assert {"position", "hour", "cold user_id"} <= columns
    told = [one["ne"] for one in again["test"]["slices"]["ctr"] if one["note"] is None]
    assert told == sorted(told, reverse=True)
    assert {"constant", "rate per item_id"} <= set(again["baselines"]["test"])

    more = mr.evaluate(project, run.id, draws=300)
    assert run.metrics()["test"]["tasks"]["ctr"]["intervals"] == more.tasks[0].intervals
    assert {one["by"] for one in run.metrics()["test"]["slices"]["ctr"]} == columns

    # Other rows under the same name are another matter.
    rows = pl.read_parquet(project / "data/impressions.parquet")
    for part in (rows.head(400), rows.tail(400)):
        part.write_parquet(project / "data/part.parquet")
        by, models = (["position"], ["constant"]) if part[0].equals(rows[0]) else ([], [])
        last = mr.evaluate(project, run.id, examples="data/part.parquet", draws=0, by=by, baselines=models)
    assert run.metrics()["examples"] == last.as_dict()
    assert "examples" not in run.metrics()["baselines"]
    shutil.rmtree(run.folder)


def test_so_few_draws_that_they_tell_nothing_are_refused(project: Path) -> None:
    outcome = mtlrank("evaluate", "--draws", "3", cwd=project)
    assert (outcome.code, "--draws 3" in outcome.err, "at least 10" in outcome.err) == (2, True, True)


def test_columns_that_tell_no_rows_apart_are_refused_before_anything_is_predicted(project: Path) -> None:
    path = project / "data/impressions.parquet"
    columns = "INTERVAL (position) DAY AS wait, [position] AS places, {'at': position} AS place"
    rows = f"SELECT *, {columns} FROM '{path}' LIMIT 300"
    for name, kind in {"wait": "INTERVAL", "places": "[]", "place": "STRUCT"}.items():
        outcome = mtlrank("evaluate", "--examples", rows, "--by", name, cwd=project)
        assert outcome.code == 2
        assert f"--by {name}: the column is " in outcome.err
        assert kind in outcome.err
        assert "evaluate" not in outcome.err.split("mtlrank:")[0], "predicted before it was refused"
    outcome = mtlrank("evaluate", "--by", "item_profile__tags", cwd=project)
    assert (outcome.code, "--by item_profile__tags: the column is " in outcome.err) == (2, True)


def test_what_is_wanted_is_told_where_rows_are_no_parquet_file(project: Path) -> None:
    (project / "x.csv").write_text("user_id,item_id\n1,2\n")
    for options in (("--examples", "x.csv"), ("--examples", "gone.csv")):
        outcome = mtlrank("evaluate", *options, cwd=project)
        assert outcome.code == 2
        assert "a parquet path is wanted, or one SELECT" in outcome.err
        assert "Parser" not in outcome.err
    outcome = mtlrank("evaluate", "--examples", "x.duckdb", cwd=project)
    assert "x.duckdb:TABLE" in outcome.err


def test_rows_that_are_there_twice_are_measured_and_told(project: Path) -> None:
    rows = pl.read_parquet(project / "data/impressions.parquet").unique(
        ["user_id", "item_id", "category_id", "event_timestamp"], maintain_order=True
    )
    rows.head(400).write_parquet(project / "data/once.parquet")
    pl.concat([rows.head(400), rows.head(30)]).write_parquet(project / "data/twice.parquet")
    once, twice = (
        mr.evaluate(project, examples=f"data/{name}.parquet", draws=0) for name in ("once", "twice")
    )
    assert (once.notes, twice.rows) == ((), 430)
    (note,) = twice.notes
    assert note.startswith("30 rows repeat the keys and time of another")
