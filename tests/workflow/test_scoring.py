"""Scoring: each candidate once, in whatever form candidates come. Jobs that are killed: tests/scoring."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.runs import find_run
from mtl_rank.scoring.ray_engine import parts_folder

CANDIDATES = "data/candidates.parquet"
KEYS = ["user_id", "item_id", "category_id", "event_timestamp"]
OUTPUTS = ["ctr", "cvr", "dwell", "ctcvr", "ctr_dwell"]
STAMPS = ["run_id", "job_id", "scored_at"]


def read(path: Path, table: str = "scores") -> pl.DataFrame:
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql(f'SELECT * FROM "{table}" ORDER BY rowid').pl()


def scores_of(path: Path) -> pl.DataFrame:
    return read(path).drop(STAMPS)


@pytest.fixture(scope="module")
def wanted(trained: Path) -> pl.DataFrame:
    return pl.read_parquet(trained / CANDIDATES)


@pytest.fixture(scope="module")
def scored(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The candidates of the shop scored once, as the table `scores`."""
    path = tmp_path_factory.mktemp("scored") / "scores.duckdb"
    mr.score(trained, candidates=CANDIDATES, to=path)
    return path


def test_the_table_has_the_candidates_each_once_and_in_order(
    trained: Path, scored: Path, wanted: pl.DataFrame
) -> None:
    table = read(scored)
    assert table.columns == [*KEYS, *OUTPUTS, *STAMPS]
    assert table.height == wanted.height
    for key in ("user_id", "item_id", "category_id"):
        assert table[key].equals(wanted[key])
    assert (table["event_timestamp"].dt.epoch("us") == wanted["event_timestamp"].dt.epoch("us")).all()
    assert table["run_id"].unique().to_list() == [find_run(trained).id]
    assert table.null_count().sum_horizontal().item() == 0


def test_products_multiply_along_the_chain(scored: Path) -> None:
    table = read(scored)
    assert table["ctcvr"].equals(table["ctr"] * table["cvr"], check_names=False)
    assert table["ctr_dwell"].equals(table["ctr"] * table["dwell"], check_names=False)
    assert table.select(pl.col("ctr", "cvr").is_between(0, 1, closed="none").all()).row(0) == (True, True)
    assert table["ctr"].n_unique() > table.height / 2


def test_running_a_finished_job_again_changes_nothing(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.duckdb"
    arguments = ("score", "--candidates", CANDIDATES, "--to", path, "--json")
    first = mtlrank(*arguments, cwd=trained).document
    before = read(path)
    second = mtlrank(*arguments, cwd=trained).document
    assert (first["written"], first["already_finished"]) == (before.height, False)
    assert (second["written"], second["already_finished"]) == (0, True)
    assert second["job_id"] == first["job_id"]
    assert read(path).equals(before)


def test_a_word_makes_another_job_of_the_same_candidates(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.duckdb"
    rows = [
        mr.score(trained, candidates=CANDIDATES, to=path, again=again).written for again in (None, "b", "b")
    ]
    assert rows[0] == rows[1] > rows[2] == 0
    assert read(path).height == 2 * rows[0]


def test_a_replacement_that_others_have_added_to_is_refused_and_made_anew_by_a_word(
    trained: Path, tmp_path: Path, wanted: pl.DataFrame
) -> None:
    for to in (tmp_path / "scores.duckdb", f"{tmp_path}/scores/"):
        arguments = ("score", "--candidates", CANDIDATES, "--to", to, "--replace")
        assert mtlrank(*arguments, cwd=trained).code == 0
        assert "finished before" in mtlrank(*arguments, cwd=trained).out
        added = mr.score(trained, candidates=wanted.head(30), to=to)
        refused = mtlrank(*arguments, cwd=trained)
        assert (refused.code, refused.out) == (2, "")
        assert f"job {added.job_id} has added to them since: nothing was changed" in refused.err
        assert mtlrank(*arguments, "--again", "monday", cwd=trained).code == 0
        assert [job["rows"] for job in documents(to, "finished")] == [wanted.height]


def test_what_a_killed_driver_left_of_a_finished_job_goes_with_the_next_run(
    trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scores.duckdb"
    parts = parts_folder(path, mr.score(trained, candidates=CANDIDATES, to=path).job_id)
    parts.mkdir()
    (parts / "chunk-00000000.parquet").touch()
    assert mr.score(trained, candidates=CANDIDATES, to=path).already_finished
    assert not parts.exists()


def documents(to: Path | str, state: str) -> list[dict[str, Any]]:
    return [job for job in mtlrank("jobs", "--to", to, "--json").document if job["state"] == state]


def test_candidates_come_as_sql_as_a_duckdb_table_or_as_a_table_in_memory(
    trained: Path, scored: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    warehouse = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(warehouse)) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("frame", wanted.to_arrow())
        con.execute("CREATE TABLE pairs AS SELECT * FROM frame")
    forms = {
        "sql": f"SELECT * FROM '{trained / CANDIDATES}'",
        "duckdb": f"{warehouse}:pairs",
        "arrow": wanted.to_arrow(),
        "polars": wanted,
        "pandas": wanted.to_pandas(),
    }
    expected = scores_of(scored)
    for name, candidates in forms.items():
        mr.score(trained, candidates=candidates, to=tmp_path / f"{name}.duckdb")
        assert scores_of(tmp_path / f"{name}.duckdb").equals(expected), name


def test_a_column_that_candidates_lack_takes_its_at_scoring_value(
    trained: Path, scored: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    assert "position" not in wanted.columns
    for position in (1, 9):
        given = wanted.with_columns(position=pl.lit(position, pl.Int64))
        mr.score(trained, candidates=given, to=tmp_path / f"{position}.duckdb")
    assert scores_of(tmp_path / "1.duckdb").equals(scores_of(scored))
    assert not scores_of(tmp_path / "9.duckdb")["ctr"].equals(scores_of(scored)["ctr"])


def test_as_of_reads_features_and_stamps_rows_at_that_time(
    trained: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    moment = wanted["event_timestamp"][0].replace(tzinfo=UTC) - timedelta(days=12)
    outcome = mtlrank(
        *("score", "--candidates", CANDIDATES, "--to", tmp_path / "then.duckdb", "--json"),
        *("--as-of", moment.isoformat()),
        cwd=trained,
    )
    assert outcome.code == 0
    table = scores_of(tmp_path / "then.duckdb")
    assert table["event_timestamp"].unique().to_list() == [moment]

    stamped = wanted.with_columns(event_timestamp=pl.lit(moment))
    mr.score(trained, candidates=stamped, to=tmp_path / "stamped.duckdb")
    assert table.equals(scores_of(tmp_path / "stamped.duckdb"))


def test_now_means_now(trained: Path, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    outcome = mtlrank(
        *("score", "--candidates", CANDIDATES, "--to", tmp_path / "now.duckdb", "--as-of", "now"), cwd=trained
    )
    assert outcome.code == 0
    (stamp,) = scores_of(tmp_path / "now.duckdb")["event_timestamp"].unique()
    assert before <= stamp <= datetime.now(UTC)


def test_two_tables_of_one_file_and_a_replaced_one(
    trained: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "scores.duckdb"
    mr.score(trained, candidates=wanted.head(50), to=path)
    mr.score(trained, candidates=wanted.head(20), to=path, table="a table's name")
    mr.score(trained, candidates=wanted.tail(30), to=path)
    assert (read(path).height, read(path, "a table's name").height) == (80, 20)
    mr.score(trained, candidates=wanted.tail(30), to=path, replace=True)
    assert scores_of(path)["item_id"].equals(wanted.tail(30)["item_id"])
    assert read(path, "a table's name").height == 20


def test_a_candidate_given_twice_is_scored_twice_and_alike(
    trained: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    mr.score(trained, candidates=pl.concat([wanted.head(5)] * 2), to=tmp_path / "s.duckdb")
    table = scores_of(tmp_path / "s.duckdb")
    assert table.head(5).equals(table.tail(5))


def test_users_and_items_never_seen_are_scored(trained: Path, wanted: pl.DataFrame, tmp_path: Path) -> None:
    strangers = wanted.head(40).with_columns(pl.col("user_id") + 10**9, pl.col("item_id") + 10**9)
    mr.score(trained, candidates=strangers, to=tmp_path / "s.duckdb")
    table = scores_of(tmp_path / "s.duckdb")
    assert table.height == 40
    assert table["ctr"].is_finite().all()


def test_an_older_run_can_be_named_by_the_beginning_of_its_name(
    trained: Path, scored: Path, tmp_path: Path
) -> None:
    project = shutil.copytree(trained, tmp_path / "shop")
    old = find_run(project)
    new = mr.train(project, ["ctr"], {"fit.epochs": 1})
    assert mr.score(project, candidates=CANDIDATES, to=tmp_path / "new.duckdb").run_id == new.id
    mr.score(project, old.id[:-1], candidates=CANDIDATES, to=tmp_path / "old.duckdb")
    assert scores_of(tmp_path / "old.duckdb").equals(scores_of(scored))


def test_scores_go_to_parquet_as_they_go_to_a_table(
    trained: Path, scored: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    expected = scores_of(scored)
    file = ("--candidates", CANDIDATES, "--to", tmp_path / "scores.parquet", "--json")
    first = mtlrank("score", *file, cwd=trained).document
    assert (first["written"], first["table"]) == (wanted.height, None)
    assert pl.read_parquet(tmp_path / "scores.parquet").drop(STAMPS).equals(expected)
    again = mtlrank("score", *file, cwd=trained).document
    assert (again["written"], again["already_finished"], again["missing"]) == (0, True, first["missing"])
    [job] = mtlrank("jobs", "--to", tmp_path / "scores.parquet", "--json").document
    assert (job["job_id"], job["state"], job["rows"]) == (first["job_id"], "finished", wanted.height)

    for days in (0, 1):
        at = (wanted["event_timestamp"][0] - timedelta(days=days)).isoformat()
        daily = ("--candidates", CANDIDATES, "--to", f"{tmp_path}/daily/", "--as-of", at, "--json")
        outcome = mtlrank("score", *daily, cwd=trained)
        assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "daily").iterdir()) == [
        "date=2026-03-30",
        "date=2026-03-31",
    ]
    today = pl.read_parquet(tmp_path / "daily" / "date=2026-03-31" / "*.parquet", hive_partitioning=False)
    assert today.drop(STAMPS).equals(expected)
    assert outcome.document["compared_with"] is not None
    assert "table 'scores'" not in mtlrank("score", *daily[:-1], cwd=trained).out


def test_the_profile_names_every_stage(trained: Path, tmp_path: Path) -> None:
    arguments = ("score", "--candidates", CANDIDATES, "--to", tmp_path / "s.duckdb")
    outcome = mtlrank(*arguments, "--profile", cwd=trained)
    for stage in ("candidates", "retrieve", "encode", "predict", "rank", "write"):
        assert stage in outcome.out
    summary = mtlrank(*arguments, "--json", "--replace", cwd=trained).document
    assert max(summary["profile"].values()) <= summary["seconds"]
