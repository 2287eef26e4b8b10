"""The same input gives the same numbers: between trainings, between chunk sizes, between training and scoring."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

import mtl_rank as mr
from mtl_rank.data.cache import prepared
from mtl_rank.data.prepare import as_polars, serving_columns
from mtl_rank.features.repository import open_repository
from mtl_rank.features.retrieval import retrieve
from mtl_rank.features.snapshot import snapshot_rows
from mtl_rank.metrics import auc
from mtl_rank.predict import Predictor
from mtl_rank.progress import Silent
from mtl_rank.runs import Run, find_run
from mtl_rank.scoring import score as scoring

CANDIDATES = "data/candidates.parquet"
STAMPS = ("run_id", "job_id", "scored_at")


@pytest.fixture(scope="module")
def again(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The training of `trained` once more, in another folder and from nothing."""
    project = shutil.copytree(applied, tmp_path_factory.mktemp("again") / "elsewhere")
    return mr.train(project, settings={"fit.epochs": 2})


def scores(path: Path) -> pl.DataFrame:
    """All scores in the order they were written, without what names the job."""
    with duckdb.connect(str(path), read_only=True) as con:
        return con.sql("SELECT * FROM scores ORDER BY rowid").pl().drop(STAMPS)


def test_one_seed_trains_equal_weights_and_metrics(trained: Path, again: Run) -> None:
    first = find_run(trained)
    assert first.weights.read_bytes() == again.weights.read_bytes()
    assert first.metrics() == again.metrics()


def test_another_seed_trains_other_weights(trained: Path, again: Run) -> None:
    other = mr.train(again.project, settings={"fit.epochs": 2, "fit.seed": 8})
    assert other.weights.read_bytes() != again.weights.read_bytes()
    assert other.metrics() != again.metrics()


@pytest.mark.parametrize("chunk", [333, 1_999])
def test_chunks_do_not_change_a_bit_of_the_scores(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    mr.score(trained, candidates=CANDIDATES, to=tmp_path / "whole.duckdb")
    monkeypatch.setattr(scoring, "CHUNK_ROWS", chunk)
    mr.score(trained, candidates=CANDIDATES, to=tmp_path / "parts.duckdb")

    assert scores(tmp_path / "parts.duckdb").equals(scores(tmp_path / "whole.duckdb"))


def test_training_and_scoring_encode_equal_rows_equally(trained: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(find_run(trained))
    config = predictor.config
    repository = open_repository(trained / "feature_repo", config.feature_service, config.context)
    trained_on = prepared(config, trained, repository, Silent()).train.arrays

    rows = f"SELECT * FROM '{trained / config.examples}' WHERE event_timestamp < '{config.split.valid}'"
    columns = serving_columns(repository)
    snapshot = snapshot_rows(rows, trained, columns, tmp_path / "candidates.parquet")
    table = as_polars(retrieve(repository, snapshot).read_all())
    to_score = predictor.encoder.encode(table, with_labels=False)

    assert len(to_score.ids) > 4_000
    np.testing.assert_array_equal(to_score.ids, trained_on.ids)
    np.testing.assert_array_equal(to_score.dense, trained_on.dense)
    for scored, learned in zip(to_score.sequences, trained_on.sequences, strict=True):
        np.testing.assert_array_equal(scored, learned)


def test_the_scores_of_labelled_rows_have_the_auc_that_evaluate_reports(
    trained: Path, tmp_path: Path
) -> None:
    config = find_run(trained).config()
    test_rows = f"SELECT * FROM '{trained / config.examples}' WHERE event_timestamp >= '{config.split.test}'"
    mr.score(trained, candidates=test_rows, to=tmp_path / "test.duckdb")

    labels = pl.read_parquet(trained / config.examples).filter(pl.col("event_timestamp") >= config.split.test)
    found = scores(tmp_path / "test.duckdb")
    assert found["user_id"].equals(labels["user_id"])
    expected = find_run(trained).metrics()["test"]["tasks"]["ctr"]["auc"]
    assert auc(labels["clicked"].to_numpy(), found["ctr"].to_numpy()) == pytest.approx(expected, abs=1e-12)
