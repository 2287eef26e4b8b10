"""Real impressions through the command line: from the published files to scores."""

import os
from pathlib import Path

import duckdb
import polars as pl
import pytest
from harness import mtlrank

CHECKOUT = Path(__file__).parents[2]
SOURCE = Path(os.environ.get("MTLRANK_KUAIRAND", CHECKOUT.parent / "shared" / "kuairand"))

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="the KuaiRand files are not here")


@pytest.fixture(scope="module")
def kuairand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project made and trained by the commands a user would type; one epoch."""
    project = tmp_path_factory.mktemp("kuairand") / "kuairand"
    made = mtlrank("init", project, "--template", "kuairand", "--source", SOURCE)
    assert made.code == 0, made.err
    trained = mtlrank("-p", project, "train", "--tasks", "ctr,cvr,like", "--set", "fit.epochs=1")
    assert trained.code == 0, trained.err
    return project


def test_one_epoch_ranks_clicks(kuairand: Path) -> None:
    tasks = mtlrank("evaluate", "--json", cwd=kuairand).document["tasks"]
    assert tasks["ctr"]["auc"] > 0.70
    assert tasks["like"]["auc"] > 0.70
    assert 0.8 < tasks["ctr"]["calibration"] < 1.25
    assert list(tasks) == ["ctr", "cvr", "like", "ctcvr"]


def test_its_candidates_are_scored(kuairand: Path) -> None:
    outcome = mtlrank(
        "score", "--candidates", "data/candidates.parquet", "--to", "scores.duckdb", cwd=kuairand
    )
    assert outcome.code == 0, outcome.err
    with duckdb.connect(str(kuairand / "scores.duckdb"), read_only=True) as con:
        table = con.sql("SELECT * FROM scores ORDER BY rowid").pl()
    wanted = pl.read_parquet(kuairand / "data/candidates.parquet")
    assert table.select("user_id", "video_id").equals(wanted.select("user_id", "video_id"))
    assert (
        table.select(pl.col("ctr", "cvr", "like").is_between(0, 1, closed="none").all()).row(0) == (True,) * 3
    )
    assert table["ctcvr"].equals(table["ctr"] * table["cvr"], check_names=False)
