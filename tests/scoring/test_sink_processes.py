"""The sink among real processes: killed, racing, read from outside, out of disk."""

import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from random import Random

import duckdb
import pyarrow as pa
import pytest
from processes import processes
from sink_jobs import (
    CHUNKS,
    ROWS,
    ROWS_OF_JOBS,
    SCHEMA,
    SECONDS,
    assert_whole_chunks,
    kill_before,
    killed_after,
    read,
    report,
    rows_of,
    scores_of,
    start,
    write_job,
)

from mtl_rank.errors import ScoresError
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.holder import started_at
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.sink import DuckDBSink, jobs
from mtl_rank.scoring.table import ScoresTarget


def test_a_job_killed_at_any_moment_ends_with_every_row_once(tmp_path):
    random = Random(7)
    started = time.monotonic()
    write_job(tmp_path / "undisturbed.duckdb", "a")
    one_chunk = (time.monotonic() - started) / CHUNKS
    interrupted = 0
    for moment, chunks in enumerate([-1, -1, 0, 1, 1, 2, 3, CHUNKS]):
        path = tmp_path / f"{moment}.duckdb"
        killed_after(chunks, random.uniform(0, one_chunk), path, "a")
        if path.exists():
            assert_whole_chunks(path)
        interrupted += 0 < write_job(path, "a") < CHUNKS
        assert read(path, ROWS_OF_JOBS) == rows_of("a")
        assert_whole_chunks(path)
    assert interrupted >= 3


# What creates the file, writes a chunk and ends a job; the kills at random moments hit the inside of DuckDB.
STEPS = {"create", "write", "end", "_swap"}


def write_until(step, *args, **kwargs):
    """write_job, killed before the given line of the functions in STEPS."""
    kill_before(step, STEPS)
    write_job(*args, **kwargs)


@pytest.mark.parametrize("replace", [False, True])
def test_a_job_killed_at_any_step_ends_with_every_row_once(tmp_path, replace):
    old = tmp_path / "old.duckdb"
    write_job(old, "old", chunks=1)
    for step in range(1, 99):
        path = tmp_path / f"{step}.duckdb"
        if replace:
            shutil.copy(old, path)
        process = start(write_until, step, path, "a", replace=replace, chunks=1)
        process.join(SECONDS)
        if replace:
            assert read(path, ROWS_OF_JOBS) in (rows_of("old")[:ROWS], rows_of("a")[:ROWS])
        elif path.exists():
            assert_whole_chunks(path)
        write_job(path, "a", replace=replace, chunks=1)
        assert read(path, ROWS_OF_JOBS) == rows_of("a")[:ROWS]
        if process.exitcode == 0:
            break
    assert 15 < step < 98


def test_a_replacement_killed_at_any_moment_leaves_the_old_scores_or_the_new(tmp_path):
    random = Random(11)
    old = tmp_path / "old.duckdb"
    write_job(old, "old")
    started = time.monotonic()
    write_job(tmp_path / "undisturbed.duckdb", "new", replace=True)
    one_chunk = (time.monotonic() - started) / CHUNKS
    for moment, chunks in enumerate([0, 2, CHUNKS - 1, *[CHUNKS] * 5]):
        path = tmp_path / f"{moment}.duckdb"
        shutil.copy(old, path)
        killed_after(chunks, random.uniform(0, one_chunk), path, "new", replace=True)
        assert read(path, ROWS_OF_JOBS) in (rows_of("old"), rows_of("new"))
        write_job(path, "new", replace=True)
        assert read(path, ROWS_OF_JOBS) == rows_of("new")
        tables = read(path, "SELECT table_name FROM duckdb_tables() ORDER BY 1")
        assert tables == [("scores",), ("scores_jobs",)]


def test_ctrl_c_stops_a_job_that_another_run_completes(tmp_path):
    path = tmp_path / "scores.duckdb"
    random = Random(3)
    for chunks in (1, 2, -1):
        code = killed_after(chunks, random.uniform(0, 0.1), path, "a", signal_number=signal.SIGINT)
        # The last one does not rest: it may have ended before.
        assert code == 1 or chunks == -1
    write_job(path, "a", patience=Patience(job=0))
    assert read(path, ROWS_OF_JOBS) == rows_of("a")


def test_processes_that_start_one_job_at_once_write_it_once(tmp_path):
    path = tmp_path / "scores.duckdb"
    outcome = processes.Queue()
    racing = [start(report, write_job, outcome, path, "a") for _ in range(3)]
    written = [outcome.get(timeout=SECONDS) for _ in racing]
    assert sorted(written) == [0, 0, CHUNKS]
    assert read(path, ROWS_OF_JOBS) == rows_of("a")


def test_different_jobs_take_turns_on_one_new_file(tmp_path):
    path = tmp_path / "scores.duckdb"
    outcome = processes.Queue()
    racing = [start(report, write_job, outcome, path, job_id) for job_id in ("a", "b", "c")]
    assert [outcome.get(timeout=SECONDS) for _ in racing] == [CHUNKS] * 3
    assert read(path, ROWS_OF_JOBS) == rows_of("a") + rows_of("b") + rows_of("c")
    assert {(job.job_id, job.state, job.rows) for job in jobs(ScoresTarget(path))} == {
        (job_id, "finished", CHUNKS * ROWS) for job_id in ("a", "b", "c")
    }


def test_a_job_that_runs_is_refused_by_name_and_taken_over_once_its_holder_is_dead(tmp_path):
    path = tmp_path / "scores.duckdb"
    hold = processes.Event(), processes.Event()
    holder = start(write_job, path, "a", hold=hold)
    assert hold[0].wait(SECONDS)
    with pytest.raises(ScoresError, match=f"job a .* is running: process {holder.pid} on "):
        write_job(path, "a", patience=Patience(job=0))
    [state] = jobs(ScoresTarget(path))
    assert (state.state, state.holder.pid) == ("running", holder.pid)
    os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + SECONDS
    while jobs(ScoresTarget(path))[0].state == "running" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert write_job(path, "a", patience=Patience(job=0)) == CHUNKS
    holder.join()


def test_a_dead_process_that_nobody_waited_for_is_no_holder():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = started_at(process.pid)
    assert started is not None
    assert started_at(process.pid) == started != started_at(os.getpid())
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert started_at(process.pid) is None
    process.communicate()
    assert started_at(process.pid) is None


def test_a_waiting_job_says_so_and_finds_the_work_done(tmp_path):
    path = tmp_path / "scores.duckdb"
    hold = processes.Event(), processes.Event()
    holder = start(write_job, path, "a", hold=hold)
    assert hold[0].wait(SECONDS)
    said = []

    def notify(line):
        said.append(line)
        hold[1].set()

    assert write_job(path, "a", patience=Patience(notify=notify)) == 0
    assert f"process {holder.pid}" in said[0]
    assert "waiting" in said[0]
    holder.join()


def hold_open(path, opened, release):
    with duckdb.connect(str(path)):
        opened.set()
        release.wait(SECONDS)


def test_a_file_held_open_elsewhere_is_waited_for(tmp_path):
    path = tmp_path / "scores.duckdb"
    opened, release = processes.Event(), processes.Event()
    other = start(hold_open, path, opened, release)
    assert opened.wait(SECONDS)
    with pytest.raises(ScoresError, match=f"held open by process {other.pid}; gave up after"):
        write_job(path, "a", patience=Patience(file=0.1))
    said = []

    def notify(line):
        said.append(line)
        release.set()

    assert write_job(path, "a", patience=Patience(notify=notify)) == CHUNKS
    assert f"held open by process {other.pid}" in said[0]
    other.join()


def write_until_read(path, enough):
    """A job without a pause between its chunks, of which there are as many as its readers want."""
    with DuckDBSink(ScoresTarget(path), SCHEMA, run_id="run", job_id="b") as sink:
        for number in count():
            sink.commit(Chunk(number, number * ROWS, ROWS), scores_of("b", number))
            if enough.is_set():
                break
        sink.finish(number + 1)


def test_readers_get_in_during_a_job_and_see_whole_chunks(tmp_path):
    path = tmp_path / "scores.duckdb"
    write_job(path, "a")
    enough = processes.Event()
    process = start(write_until_read, path, enough)
    counts = []
    while len(set(counts)) < 6 and process.is_alive():
        [(rows,)] = read(path, "SELECT count(*) FROM scores WHERE job_id = 'b'")
        counts.append(rows)
    enough.set()
    process.join()
    assert process.exitcode == 0
    assert counts == sorted(counts)
    assert all(rows % ROWS == 0 for rows in counts)


def test_readers_never_see_a_mixture_of_old_and_new_scores(tmp_path):
    path = tmp_path / "scores.duckdb"
    write_job(path, "old")
    hold = processes.Event(), processes.Event()
    process = start(write_job, path, "new", replace=True, hold=hold)
    assert hold[0].wait(SECONDS)
    states = "SELECT job_id, count(*) FROM scores GROUP BY ALL"
    seen = [read(path, states)]
    hold[1].set()
    while process.is_alive():
        seen.append(read(path, states))
    process.join()
    assert seen[0] == [("old", CHUNKS * ROWS)]
    assert read(path, states) == [("new", CHUNKS * ROWS)]
    assert all(state in ([("old", CHUNKS * ROWS)], [("new", CHUNKS * ROWS)]) for state in seen)


def write_within(path, size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return write_job(path, "a", chunks=30)


@pytest.mark.parametrize("size", [20_000, 400_000, 700_000])
def test_a_full_disk_keeps_what_was_committed(tmp_path, size):
    path = tmp_path / "scores.duckdb"
    outcome = processes.Queue()
    start(report, write_within, outcome, path, size)
    error = outcome.get(timeout=SECONDS)
    assert isinstance(error, ScoresError)
    assert re.search(
        r"scores\.duckdb.*File too large.*\nWhat was committed before is safe: run again", str(error)
    )
    assert_whole_chunks(path)
    assert write_job(path, "a", chunks=30) > 0
    assert read(path, "SELECT count(*), count(DISTINCT item_id) FROM scores") == [(30 * ROWS, 30 * ROWS)]


def write_as_nobody(path):
    os.seteuid(65534)
    return write_job(path, "a")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user than the owner of the folder")
@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, exists):
    path = tmp_path / "closed" / "scores.duckdb"
    path.parent.mkdir()
    if exists:
        write_job(path, "before")
    for folder in (path.parent, *path.parent.parents):
        if Path(tempfile.gettempdir()) in folder.parents:
            folder.chmod(folder.stat().st_mode | 0o055)
    outcome = processes.Queue()
    start(report, write_as_nobody, outcome, path)
    error = outcome.get(timeout=SECONDS)
    assert isinstance(error, ScoresError)
    assert re.search(r"scores\.duckdb.*Permission denied", str(error))
    assert len(str(error).splitlines()) <= 2


def write_naive_timestamps(path):
    zone = duckdb.execute("SELECT current_setting('TimeZone')").fetchone()[0]
    with DuckDBSink(ScoresTarget(path), SCHEMA, run_id="run", job_id="a") as sink:
        scores = scores_of("a", 0)
        naive = scores["event_timestamp"].cast(pa.timestamp("us"))
        sink.commit(Chunk(0, 0, ROWS), scores.set_column(2, "event_timestamp", naive))
        sink.finish(1)
    return zone


def test_timestamps_without_a_zone_are_utc(tmp_path, monkeypatch):
    path = tmp_path / "scores.duckdb"
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    elsewhere = multiprocessing.get_context("spawn")
    outcome = elsewhere.Queue()
    elsewhere.Process(target=report, args=(write_naive_timestamps, outcome, path), daemon=True).start()
    assert outcome.get(timeout=SECONDS) == "Asia/Shanghai"
    assert read(path, ROWS_OF_JOBS) == rows_of("a")[:ROWS]
