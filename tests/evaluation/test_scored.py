"""A scores table joined to labels: what production measures a week later."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.config import load_config
from mtl_rank.errors import DataError, RunError
from mtl_rank.runs import find_run


@pytest.fixture(scope="module")
def project(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained shop with the test window scored at the rows' own times."""
    copied = shutil.copytree(trained, tmp_path_factory.mktemp("scored") / "shop")
    rows = pl.read_parquet(copied / "data/impressions.parquet")
    test = rows.filter(pl.col("event_timestamp") >= load_config(copied).split.test)
    test.write_parquet(copied / "data/week.parquet")
    mr.score(copied, candidates="data/week.parquet", to=copied / "scores.duckdb")
    return copied


def sql(project: Path, statement: str) -> list[tuple]:
    with duckdb.connect(str(project / "scores.duckdb")) as con:
        return con.execute(statement).fetchall()


def test_scores_give_the_numbers_of_the_run_itself(project: Path) -> None:
    direct = mr.evaluate(project)
    later = mr.evaluate(project, scores="scores.duckdb", split="test")
    assert later.coverage == 1
    assert [numbers.name for numbers in later.tasks] == [numbers.name for numbers in direct.tasks]
    for found, wanted in zip(later.tasks, direct.tasks, strict=True):
        for key in ("rows", "positives", "auc", "gauc", "ne", "calibration", "ece", "rmse", "spearman"):
            pair = (getattr(found, key), getattr(wanted, key))
            assert (pair[0] is None) == (pair[1] is None), (found.name, key)
            assert pair[0] is None or pair[0] == pytest.approx(pair[1], rel=1e-9), (found.name, key)
    slices = [
        [(one.by, one.value, one.rows, one.auc) for one in result.slices["ctr"]] for result in (later, direct)
    ]
    assert slices[0] == slices[1]


def test_the_command_names_the_coverage_and_keeps_the_numbers(project: Path) -> None:
    outcome = mtlrank(
        "evaluate", "--scores", "scores.duckdb:scores", "--by", "position", "--json", cwd=project
    )
    assert outcome.code == 0, outcome.err
    # Every labelled row is asked for, and most of them were never scored.
    rows = pl.read_parquet(project / "data/impressions.parquet").height
    assert outcome.document["coverage"] == outcome.document["rows"] / rows < 0.5
    assert find_run(project).metrics()["scores"] == outcome.document
    assert {one["by"] for one in outcome.document["slices"]["ctr"]} > {"position"}


def test_each_label_gets_the_newest_score_at_or_before_its_time(project: Path, tmp_path: Path) -> None:
    times = [datetime(2026, 3, 1), datetime(2026, 3, 2), datetime(2026, 3, 4)]
    outputs = ["ctr", "cvr", "dwell", "ctcvr", "ctr_dwell"]
    scores = pl.DataFrame(
        {
            "user_id": [1, 1, 1],
            "item_id": [7, 7, 7],
            "category_id": [0, 0, 0],
            "event_timestamp": times,
            **{name: [0.1, 0.2, 0.3] for name in outputs},
        }
    )
    scores.write_parquet(tmp_path / "scores.parquet")
    seen = [
        times[1],
        times[1] + timedelta(hours=30),
        times[2] + timedelta(days=9),
        times[0] - timedelta(seconds=1),
    ]
    pl.DataFrame(
        {
            "user_id": [1] * 4,
            "item_id": [7] * 4,
            "category_id": [0] * 4,
            "event_timestamp": seen,
            "clicked": [0, 1, 1, 0],
            "purchased": [None, 0, 1, None],
            "dwell_seconds": [None, 3.0, 4.0, None],
        }
    ).write_parquet(tmp_path / "labels.parquet")
    found = mr.evaluate(
        project,
        find_run(project).id,
        scores=str(tmp_path / "scores.parquet"),
        examples=str(tmp_path / "labels.parquet"),
    )
    assert (found.rows, found.coverage) == (3, 0.75)
    (ctr, *_) = found.tasks
    assert ctr.mean_prediction == pytest.approx((0.2 + 0.2 + 0.3) / 3)


def test_what_does_not_fit_is_told(project: Path) -> None:
    run = find_run(project).id
    sql(project, "CREATE OR REPLACE TABLE renamed AS SELECT * RENAME (dwell AS dwell_seconds) FROM scores")
    sql(
        project,
        "CREATE OR REPLACE TABLE twice AS SELECT * FROM scores UNION ALL (SELECT * FROM scores LIMIT 1)",
    )
    sql(project, "CREATE OR REPLACE TABLE other AS SELECT * REPLACE ('20200101-x' AS run_id) FROM scores")
    sql(project, "CREATE OR REPLACE TABLE two AS SELECT * FROM scores UNION ALL SELECT * FROM other")
    year_later = "SELECT * REPLACE (event_timestamp + INTERVAL 1 YEAR AS event_timestamp) FROM scores"
    sql(project, f"CREATE OR REPLACE TABLE later AS {year_later}")
    changed = {
        "nan": "'nan'::DOUBLE AS cvr",
        "five": "CASE WHEN user_id % 2 = 0 THEN 5.0 ELSE ctr END AS ctr",
        "below": "-0.1 AS ctcvr",
        "words": "'high' AS cvr",
        "texts": "CAST(user_id AS VARCHAR) AS user_id",
        # Of the first output too: a row that was scored is not a row without a score.
        "unknown_ctr": "CASE WHEN user_id % 2 = 1 THEN ctr END AS ctr",
        "unknown_cvr": "CASE WHEN user_id % 2 = 1 THEN cvr END AS cvr",
    }
    for name, change in changed.items():
        sql(project, f"CREATE OR REPLACE TABLE {name} AS SELECT * REPLACE ({change}) FROM scores")
    ((even,),) = sql(project, "SELECT count(*) FROM scores WHERE user_id % 2 = 0")
    cases = {
        "renamed": "no column 'dwell'; did you mean 'ctr_dwell'",
        "twice": "is there 2 times; keep one score",
        "other": "has no score of run",
        "later": "none of the .* labelled rows has a score of its keys at or before its time",
        "nan": "column 'cvr' holds nan, which is no finite number",
        "five": "column 'ctr' holds 5; a probability lies between 0 and 1",
        "below": "column 'ctcvr' holds -0.1; a probability lies between 0 and 1",
        "words": "column 'cvr' is String, it must be numbers",
        "unknown_ctr": f"column 'ctr' is null on {even:,} of the rows with a score",
        "unknown_cvr": f"column 'cvr' is null on {even:,} of the rows with a score",
        "texts": "join key 'user_id' is BIGINT in the entity rows but 'user_id' is VARCHAR",
        "scorse": "no table 'scorse'; did you mean 'scores'",
    }
    for table, message in cases.items():
        with pytest.raises((DataError, RunError), match=message):
            mr.evaluate(project, run, scores=f"scores.duckdb:{table}", split="test")
    with pytest.raises(DataError, match="holds 2 runs"):
        mr.evaluate(project, scores="scores.duckdb:two")
    assert mr.evaluate(project, run, scores="scores.duckdb:two", split="test").coverage == 1
    with pytest.raises(DataError, match="no column 'positon'; did you mean 'position'"):
        mr.evaluate(project, scores="scores.duckdb", by=["positon"])
    far = "SELECT * REPLACE (user_id + 9007199254740992.0::DOUBLE AS user_id) FROM 'data/week.parquet'"
    with pytest.raises(DataError, match=r"join key 'user_id' is DOUBLE .* taken for their neighbours"):
        mr.evaluate(project, scores="scores.duckdb", examples=far)
    unlabelled = "SELECT * EXCLUDE (clicked) FROM 'data/week.parquet'"
    with pytest.raises(DataError, match="no column 'clicked'"):
        mr.evaluate(project, scores="scores.duckdb", examples=unlabelled)
    assert mtlrank("evaluate", "--scores", "scores.duckdb", "--baselines", "trees", cwd=project).code == 2
