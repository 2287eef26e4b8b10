"""Scores in parquet: each chunk once, published whole, whatever happens in between."""

import errno
import json
import os
import resource
import threading
from datetime import UTC, datetime
from unittest.mock import Mock

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from parquet_writing import (
    CHUNKS,
    DAY,
    ROWS,
    assert_holds,
    left_behind,
    read,
    scores_of,
    sink_of,
    write_job,
)
from processes import processes

from mtl_rank.errors import ConfigError, ScoresError
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.parquet_sink import ParquetSink
from mtl_rank.scoring.parquet_target import JobFolder, ParquetTarget, parquet_jobs
from mtl_rank.scoring.sinks import open_target
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget


@pytest.fixture
def target(parquet):
    return parquet


def test_the_rows_are_there_with_stamps_and_nothing_else_is(target):
    assert write_job(target) == CHUNKS
    assert_holds(target, "a")
    table = read(target)
    assert set(table["run_id"]) == {"run"}
    assert set(table["job_id"]) == {"a"}
    assert (datetime.now(UTC) - table["scored_at"].min()).total_seconds() < 600
    assert left_behind(target) == []
    [job] = parquet_jobs(target)
    assert (job.job_id, job.state, job.chunks, job.rows) == ("a", "finished", CHUNKS, CHUNKS * ROWS)
    assert job.details == {"done": "a"}


def test_a_folder_has_a_folder_per_day_that_everybody_reads(folder):
    write_job(folder)
    days = sorted(path.name for path in folder.path.iterdir())
    assert days == ["date=1970-01-01", "date=1970-01-02"]
    for day in days:
        [file] = (folder.path / day).iterdir()
        times = pq.read_table(file, partitioning=None)["event_timestamp"].cast(pa.int64()).to_numpy()
        assert (times // DAY == int(day[-1]) - 1).all()
        assert (np.diff(times) > 0).all()
    assert ds.dataset(folder.path, partitioning="hive").count_rows() == CHUNKS * ROWS
    assert pl.scan_parquet(folder.path).select(pl.len()).collect().item() == CHUNKS * ROWS


def test_a_finished_job_run_again_changes_nothing(target):
    write_job(target)
    before = {path: path.stat().st_mtime_ns for path in target.files()}
    assert write_job(target) == 0
    assert {path: path.stat().st_mtime_ns for path in target.files()} == before
    assert left_behind(target) == []


def test_jobs_add_to_a_folder_and_not_to_a_file(folder, tmp_path):
    for job_id in ("a", "b", "c"):
        write_job(folder, job_id)
    assert_holds(folder, "a", "b", "c")
    assert {job.job_id for job in parquet_jobs(folder)} == {"a", "b", "c"}
    file = ParquetTarget(tmp_path / "scores.parquet", is_folder=False)
    write_job(file)
    with pytest.raises(ScoresError, match="has scores already"):
        write_job(file, "b")
    assert_holds(file, "a")


def test_a_replacement_takes_the_place_of_all_that_was_there(target):
    write_job(target, "old")
    write_job(target, "new", replace=True)
    assert_holds(target, "new")
    assert [job.job_id for job in parquet_jobs(target)] == ["new"]
    write_job(target, "old", replace=True)
    assert_holds(target, "old")


def test_one_job_twice_is_refused_or_waits_and_finds_it_done(target):
    with sink_of(target) as sink:
        sink.commit(Chunk(0, 0, ROWS), scores_of("a", 0))
        [job] = parquet_jobs(target)
        assert (job.state, job.rows, job.holder.pid) == ("running", ROWS, os.getpid())
        with pytest.raises(ScoresError, match=f"job a .* is running: process {os.getpid()} on "):
            sink_of(target).begin()
        said = []
        waiting = threading.Thread(target=lambda: said.append(write_job(target, patience=Patience(job=60))))
        waiting.start()
        for number in (1, 2):
            sink.commit(Chunk(number, number * ROWS, ROWS), scores_of("a", number))
        sink.finish(3)
    waiting.join()
    assert said == [0]
    assert_holds(target, "a")


def test_a_job_that_was_given_up_is_listed_and_continues(target):
    with sink_of(target, details={"candidates": 600}) as sink:
        sink.commit(Chunk(0, 0, ROWS), scores_of("a", 0), {"number": 0})
    [job] = parquet_jobs(target)
    assert (job.state, job.chunks, job.rows, job.details) == ("stopped", 1, ROWS, {"candidates": 600})
    with sink_of(target) as sink:
        assert dict(sink.committed) == {0: Chunk(0, 0, ROWS)}
        assert sink.chunk_details() == [{"number": 0}]
        with pytest.raises(ScoresError, match="the candidates or the chunk size changed"):
            sink.commit(Chunk(0, 0, ROWS + 1), scores_of("a", 0))
        with pytest.raises(ValueError, match="has 1 chunks, not 0"):
            sink.finish(0)
    assert write_job(target) == CHUNKS - 1
    assert_holds(target, "a")


def test_a_replacement_clears_away_the_jobs_that_were_given_up(target):
    with sink_of(target, "given up") as sink:
        sink.commit(Chunk(0, 0, ROWS), scores_of("given up", 0))
    with sink_of(target, "running") as sink:
        sink.commit(Chunk(0, 0, ROWS), scores_of("running", 0))
        write_job(target, "new", replace=True)
        assert {job.job_id: job.state for job in parquet_jobs(target)} == {
            "new": "finished",
            "running": "running",
        }
    write_job(target, "newer", replace=True)
    assert left_behind(target) == []
    assert_holds(target, "newer")


def test_scores_with_other_columns_are_refused(folder):
    write_job(folder)
    other = ScoresSchema({"user id": "VARCHAR", "item_id": "VARCHAR"}, ("ctr",))
    sink = ParquetSink(folder, other, run_id="run", job_id="b")
    with pytest.raises(ScoresError, match="unexpected column cvr; item_id is BIGINT instead of VARCHAR"):
        sink.begin()
    for carried, words in (({"Date": "DATE"}, "named by 'date'"), ({"id": "HUGEINT"}, "id' is HUGEINT")):
        sink = ParquetSink(folder, ScoresSchema(carried, ("ctr",)), run_id="run", job_id="b")
        with pytest.raises(ScoresError, match=words):
            sink.begin()
    assert left_behind(folder) == []


@pytest.mark.parametrize("replace", [False, True])
def test_what_no_job_wrote_is_neither_filled_nor_replaced(tmp_path, replace):
    data = tmp_path / "data"
    data.mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(data / "table.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    for path, is_folder, words in (
        (data, True, "holds table.parquet, which are no scores"),
        (data / "table.parquet", False, "was not written by mtl_rank"),
        (tmp_path / "text.parquet", False, "is no parquet file"),
        (data, False, "is a folder"),
        (data / "table.parquet", True, "is no folder"),
        (tmp_path / "gone" / "scores.parquet", False, "does not exist: create it first"),
    ):
        with pytest.raises(ScoresError, match=words):
            sink_of(ParquetTarget(path, is_folder), replace=replace).begin()
    assert [path.name for path in data.iterdir()] == ["table.parquet"]


def write_within(size, outcome, target):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        outcome.put(write_job(target))
    except ScoresError as error:
        outcome.put(str(error))


def test_a_full_disk_keeps_what_was_committed(target):
    outcome = processes.Queue()
    process = processes.Process(target=write_within, args=(3_000, outcome, target))
    process.start()
    message = outcome.get(timeout=300)
    process.join()
    assert "File too large" in message
    assert "run again once this is mended" in message
    assert not target.path.exists()
    assert write_job(target) == CHUNKS
    assert_holds(target, "a")


def test_a_job_that_could_not_begin_is_not_held(target, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(JobFolder, "begin", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(ScoresError, match="run again once this is mended"):
            write_job(target)
    assert write_job(target) == CHUNKS
    assert_holds(target, "a")


def test_awkward_names_are_names(tmp_path):
    target = ParquetTarget(tmp_path / "it's [a] *folder*", is_folder=True)
    write_job(target)
    assert sum(pq.read_metadata(path).num_rows for path in target.files()) == CHUNKS * ROWS
    note = json.loads(pq.read_metadata(target.files()[0]).metadata[b"mtlrank"])
    assert note["job_id"] == "a"


def test_a_path_says_what_it_is(tmp_path):
    assert open_target(tmp_path / "s.duckdb") == ScoresTarget(tmp_path / "s.duckdb", "scores")
    assert open_target(f"{tmp_path}/s", "t") == ScoresTarget(tmp_path / "s", "t")
    assert open_target(tmp_path / "s.parquet") == ParquetTarget(tmp_path / "s.parquet", is_folder=False)
    assert open_target(f"{tmp_path}/s.parquet/") == ParquetTarget(tmp_path / "s.parquet", is_folder=True)
    assert open_target(tmp_path) == ParquetTarget(tmp_path, is_folder=True)
    with pytest.raises(ConfigError, match="--table t"):
        open_target(f"{tmp_path}/s/", "t")


def test_a_link_to_scores_stays_a_link(tmp_path):
    for name, slash in (("scores", "/"), ("scores.parquet", "")):
        place, link = tmp_path / f"real-{name}", tmp_path / name
        link.symlink_to(place)
        for job_id in ("a", "b"):
            write_job(open_target(f"{link}{slash}"), job_id, replace=not slash)
        assert link.is_symlink()
        assert_holds(open_target(f"{place}{slash}"), *(["a", "b"] if slash else ["b"]))
