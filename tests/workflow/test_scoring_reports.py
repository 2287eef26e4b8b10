"""What scoring refuses, leaves out, counts and tells: candidates, changed features, jobs."""

import json
import shutil
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from harness import Outcome, mtlrank

import mtl_rank as mr
from mtl_rank.datasets.projects import apply_features
from mtl_rank.errors import ConfigError, DataError
from mtl_rank.runs import find_run
from mtl_rank.scoring.measures import stability_index

CANDIDATES = "data/candidates.parquet"


def read(path: Path) -> pl.DataFrame:
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql("SELECT * FROM scores ORDER BY rowid").pl()


@pytest.fixture(scope="module")
def wanted(trained: Path) -> pl.DataFrame:
    return pl.read_parquet(trained / CANDIDATES)


def test_duplicates_are_kept_dropped_or_refused(trained: Path, wanted: pl.DataFrame, tmp_path: Path) -> None:
    rows = wanted.head(6)
    later = rows[3:4].with_columns(pl.col("event_timestamp").dt.offset_by("1h"))
    given = pl.concat([rows, rows[1:3], later, rows[2:3]])

    kept = mr.score(trained, candidates=given, to=tmp_path / "keep.duckdb")
    assert (kept.rows, kept.dropped) == (10, 0)

    dropped = mr.score(trained, candidates=given, to=tmp_path / "drop.duckdb", duplicates="drop")
    assert (dropped.rows, dropped.dropped) == (7, 3)
    table = read(tmp_path / "drop.duckdb")
    assert table["item_id"].to_list() == [*rows["item_id"], rows["item_id"][3]]
    expected = read(tmp_path / "keep.duckdb")[[0, 1, 2, 3, 4, 5, 8]]
    assert table["ctr"].equals(expected["ctr"])

    with pytest.raises(DataError, match="3 rows are duplicates") as error:
        mr.score(trained, candidates=given, to=tmp_path / "error.duckdb", duplicates="error")
    assert f"item_id {rows['item_id'][1]}" in str(error.value)
    assert not (tmp_path / "error.duckdb").exists()
    alone = mr.score(trained, candidates=rows, to=tmp_path / "error.duckdb", duplicates="error")
    assert alone.rows == 6


def test_null_keys_are_refused_dropped_or_scored_without_features(
    trained: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    given = wanted.head(8).with_columns(
        category_id=pl.when(pl.int_range(pl.len()).is_in([2, 5])).then(None).otherwise("category_id")
    )
    with pytest.raises(DataError, match="2 of 8 rows have no 'category_id'"):
        mr.score(trained, candidates=given, to=tmp_path / "error.duckdb")

    dropped = mr.score(trained, candidates=given, to=tmp_path / "drop.duckdb", null_keys="drop")
    assert (dropped.rows, dropped.dropped) == (6, 2)
    assert (
        read(tmp_path / "drop.duckdb")["item_id"].to_list()
        == given["item_id"].gather([0, 1, 3, 4, 6, 7]).to_list()
    )

    kept = mr.score(trained, candidates=given, to=tmp_path / "keep.duckdb", null_keys="keep")
    assert (kept.rows, kept.dropped) == (8, 0)
    assert kept.missing["user_category"] >= 2 / 8
    assert kept.missing["item_profile"] == 0


def test_a_rule_that_is_none_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--duplicates dorp: did you mean 'drop'"):
        mr.score(trained, candidates=CANDIDATES, to=tmp_path / "s.duckdb", duplicates="dorp")


def test_views_without_rows_are_counted(trained: Path, wanted: pl.DataFrame, tmp_path: Path) -> None:
    strangers = wanted.head(40).with_columns(
        user_id=pl.when(pl.int_range(pl.len()) < 10).then(10**9).otherwise("user_id")
    )
    missing = mr.score(trained, candidates=strangers, to=tmp_path / "s.duckdb").missing
    assert missing["user_profile"] == missing["price_match"] == 0.25
    assert missing["item_profile"] == 0
    assert missing["user_history"] >= 0.25
    everyone = wanted.head(40).with_columns(user_id=10**9)
    missing = mr.score(trained, candidates=everyone, to=tmp_path / "t.duckdb").missing
    assert {view for view, rate in missing.items() if rate == 1} == {
        *("user_profile", "user_stats", "user_category", "user_history", "price_match")
    }


def cells(probabilities: pl.Series) -> Counter[int]:
    p = probabilities.to_numpy()
    return Counter(np.floor(10 * (np.log(p) - np.log1p(-p))).astype(int).tolist())


def test_drift_is_measured_against_the_last_finished_job(
    trained: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "s.duckdb"
    first = mr.score(trained, candidates=wanted.head(400), to=path)
    assert (first.compared_with, set(first.psi.values())) == (None, {None})
    same = mr.score(trained, candidates=wanted.head(400).reverse(), to=path)
    assert same.compared_with == first.job_id
    assert same.psi == {"ctr": 0, "cvr": 0, "dwell": 0}
    before = cells(read(path).tail(400)["ctr"])
    other = mr.score(trained, candidates=wanted.tail(300), to=path, replace=True)
    assert other.compared_with == same.job_id
    assert other.psi["ctr"] == stability_index(before, cells(read(path)["ctr"])) > 0
    # Of a job that was finished before, the document is the one that it ended with.
    again = mtlrank("score", "--candidates", CANDIDATES, "--to", tmp_path / "t.duckdb", "--json", cwd=trained)
    twice = mtlrank("score", "--candidates", CANDIDATES, "--to", tmp_path / "t.duckdb", "--json", cwd=trained)
    ignored = {"seconds", "written", "already_finished", "profile"}
    assert {k: v for k, v in again.document.items() if k not in ignored} == {
        k: v for k, v in twice.document.items() if k not in ignored
    }
    assert set(again.document["missing"]) == set(first.missing)


def jobs(path: Path, *options: str) -> Outcome:
    return mtlrank("jobs", "--to", path, *options)


def test_jobs_are_listed_with_their_states(trained: Path, wanted: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    first = mr.score(trained, candidates=wanted.head(30), to=path)
    second = mr.score(trained, candidates=wanted.head(20), to=path, replace=True)
    listed = jobs(path, "--json").document
    assert [(job["job_id"], job["state"], job["rows"], job["candidates"]) for job in listed] == [
        (second.job_id, "finished", 20, 20),
        (first.job_id, "replaced", 30, 30),
    ]
    assert listed[0]["missing"] == second.missing
    shown = jobs(path).out
    assert second.job_id in shown
    assert "replaced" in shown
    assert jobs(path, "--table", "other", "--json").document == []
    assert "no jobs yet" in jobs(path, "--table", "other").out


def test_a_run_is_not_scored_with_features_that_mean_something_else(project: Path, tmp_path: Path) -> None:
    run = mr.train(project, ["ctr"], {"fit.epochs": 1})
    assert len(run.info()["features"]) == 16
    views = project / "feature_repo" / "views.py"
    text = views.read_text()
    tagged = text.replace('"mtlrank.max_len": "50"', '"mtlrank.max_len": "40"').replace(
        "Three tags.", "3 tags."
    )
    assert tagged != text
    views.write_text(tagged)
    apply_features(project / "feature_repo")
    score = ("score", "--candidates", CANDIDATES, "--json", "--to")
    assert mtlrank(*score, tmp_path / "tagged.duckdb", cwd=project).code == 0

    views.write_text(
        text.replace("ttl=timedelta(days=14)", "ttl=timedelta(days=7)").replace("np.log(", "2 * np.log(")
    )
    apply_features(project / "feature_repo")
    refused = mtlrank(*score, tmp_path / "changed.duckdb", cwd=project)
    assert (refused.code, refused.out) == (2, "")
    assert (
        f"changed since run {run.id} was trained: item_stats.ttl_days: 14.0, now 7.0; price_match.code"
        in refused.err
    )
    assert "--allow-changed-features" in refused.err
    assert not (tmp_path / "changed.duckdb").exists()
    # What was scored before the change is not taken for what is scored after it.
    for to in ("changed.duckdb", "tagged.duckdb"):
        allowed = mtlrank(*score, tmp_path / to, "--allow-changed-features", cwd=project)
        assert allowed.code == 0, allowed.err
        assert allowed.document["written"] == allowed.document["rows"]


def test_a_feature_more_or_less_is_a_change(project: Path) -> None:
    run = mr.train(project, ["ctr"], {"fit.epochs": 1})
    document = json.loads((run.folder / "features.json").read_text())
    brand = document["views"]["item_profile"]["features"].pop("brand")
    document["views"]["item_profile"]["features"]["colour"] = brand
    (run.folder / "features.json").write_text(json.dumps(document))
    refused = mtlrank("score", "--candidates", CANDIDATES, "--to", project / "s.duckdb", cwd=project)
    assert "item_profile.features.colour is gone; item_profile.features.brand is new" in refused.err
    (run.folder / "features.json").write_text("{")
    damaged = mtlrank("score", "--candidates", CANDIDATES, "--to", project / "s.duckdb", cwd=project)
    assert damaged.code == 2
    assert "features.json cannot be read" in damaged.err


def test_a_run_that_is_not_finished_is_not_scored(trained: Path, tmp_path: Path) -> None:
    project = shutil.copytree(trained, tmp_path / "shop")
    find_run(project).update(status="failed")
    outcome = mtlrank("score", "--candidates", CANDIDATES, "--to", tmp_path / "s.duckdb", cwd=project)
    assert outcome.code == 2
    assert "no finished run" in outcome.err
