"""Scores in parquet: each chunk once, published whole, whatever happens in between."""

import json
import os
import resource
import shutil
import signal
import sys
import threading
from datetime import UTC, datetime

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from processes import processes

from mtl_rank.errors import ConfigError, ScoresError
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.parquet_sink import ParquetSink
from mtl_rank.scoring.parquet_target import ParquetTarget, parquet_jobs
from mtl_rank.scoring.sinks import open_target
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget

SCHEMA = ScoresSchema({"user id": "VARCHAR", "item_id": "BIGINT"}, ("ctr", "cvr"))
CHUNKS, ROWS = 3, 200
DAY = 86_400_000_000


@pytest.fixture(params=["file", "folder"])
def target(request, tmp_path):
    if request.param == "file":
        return ParquetTarget(tmp_path / "scores.parquet", is_folder=False)
    return ParquetTarget(tmp_path / "scores", is_folder=True)


@pytest.fixture
def folder(tmp_path):
    return ParquetTarget(tmp_path / "scores", is_folder=True)


def scores_of(job_id, number, days=2):
    """A chunk that depends on the job and its number alone; its rows lie on several days."""
    items = np.arange(number * ROWS, (number + 1) * ROWS)
    random = np.random.default_rng([number, *job_id.encode()])
    return pa.table(
        {
            "user id": [f"{job_id} {item}" for item in items],
            "item_id": items,
            "event_timestamp": pa.array((items % days) * DAY + items, pa.timestamp("us", "UTC")),
            "ctr": random.random(ROWS),
            "cvr": random.random(ROWS),
        }
    )


def sink_of(target, job_id="a", **options):
    options.setdefault("patience", Patience(job=0))
    return ParquetSink(target, SCHEMA, run_id="run", job_id=job_id, **options)


def write_job(target, job_id="a", chunks=CHUNKS, **options):
    """What a scoring process does. Returns the number of chunks it wrote itself."""
    written = 0
    with sink_of(target, job_id, **options) as sink:
        for number in range(chunks):
            if not sink.finished and number not in sink.committed:
                details = {"number": number}
                written += sink.commit(Chunk(number, number * ROWS, ROWS), scores_of(job_id, number), details)
        if not sink.finished:
            sink.finish(chunks, {"done": job_id})
    return written


def expected(*job_ids):
    return pl.concat([pl.from_arrow(scores_of(job_id, n)) for job_id in job_ids for n in range(CHUNKS)])


def read(target):
    """All scores, as a reader that knows nothing of jobs finds them."""
    path = str(target.path / "**" / "*.parquet") if target.is_folder else str(target.path)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.read_parquet(path).pl()


def assert_holds(target, *job_ids):
    found, wanted = read(target).select(scores_of("a", 0).column_names), expected(*job_ids)
    if target.is_folder or len(job_ids) > 1:
        found, wanted = (table.sort("user id", "item_id") for table in (found, wanted))
    assert found.equals(wanted)


def left_behind(target):
    return [path.name for path in target.path.parent.iterdir() if path != target.path]


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


# What begins, commits and publishes.
STEPS = {
    *("begin", "commit", "appearing", "finish", "_publish_file", "_publish_folder", "_copy", "link_tree"),
    *("put_folder", "_exchange", "remove_tree", "_clear"),
}


def write_until(step, *args, **options):
    """write_job, killed before the given line of the functions in STEPS."""
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_name not in STEPS or "mtl_rank" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        if lines == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    write_job(*args, **options)


def test_a_job_killed_at_any_step_is_all_there_after_another_run(target, tmp_path):
    saved = tmp_path / "saved"
    write_job(target, "old")
    if target.is_folder:
        shutil.copytree(target.path, saved)
    else:
        shutil.copy(target.path, saved)
    kept = ["old", "a"] if target.is_folder else ["a"]
    options = {"replace": not target.is_folder}
    states, steps = set(), 0
    for step in range(4, 500, 9):
        shutil.rmtree(target.work, ignore_errors=True)
        if target.is_folder:
            shutil.rmtree(target.path)
            shutil.copytree(saved, target.path)
        else:
            shutil.copy(saved, target.path)
        process = processes.Process(target=write_until, args=(step, target, "a"), kwargs=options)
        process.start()
        process.join()
        steps += 1
        there = {job for (job,) in read(target).select("job_id").unique().rows()}
        assert there in ({"old"}, set(kept))
        assert_holds(target, *(["old"] if there == {"old"} else kept))
        states.add(frozenset(there))
        write_job(target, "a", **options)
        assert_holds(target, *kept)
        assert [path for path in left_behind(target) if path != "saved"] == []
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert len(states) == 2
    assert steps > 9


def test_a_reader_sees_old_scores_or_new_ones(folder):
    write_job(folder, "old")
    process = processes.Process(target=write_job, args=(folder, "new"), kwargs={"replace": True})
    process.start()
    seen = set()
    while process.is_alive():
        try:
            seen.add(frozenset(read(folder).group_by("job_id").len().rows()))
        except duckdb.IOException:
            # The folder was exchanged between looking for the files and opening them.
            continue
    process.join()
    seen.add(frozenset(read(folder).group_by("job_id").len().rows()))
    whole = CHUNKS * ROWS
    assert seen <= {frozenset({("old", whole)}), frozenset({("new", whole)})}
    assert frozenset({("new", whole)}) in seen


def write_at_once(start, target, job_id):
    with sink_of(target, job_id) as sink:
        for number in range(CHUNKS):
            sink.commit(Chunk(number, number * ROWS, ROWS), scores_of(job_id, number))
        start.wait(60)
        sink.finish(CHUNKS)


def test_jobs_that_finish_at_once_are_all_there(folder):
    for round_ in range(4):
        job_ids = [f"{round_}{letter}" for letter in "abcdef"]
        start = processes.Barrier(len(job_ids))
        racing = [processes.Process(target=write_at_once, args=(start, folder, job_id)) for job_id in job_ids]
        for process in racing:
            process.start()
        for process in racing:
            process.join()
        assert [process.exitcode for process in racing] == [0] * len(job_ids)
        assert_holds(folder, *job_ids)
        assert left_behind(folder) == []
        shutil.rmtree(folder.path)


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
    message = outcome.get(timeout=60)
    process.join()
    assert "File too large" in message
    assert "run again once this is mended" in message
    assert not target.path.exists()
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
