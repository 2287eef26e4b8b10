"""DuckDB looks at a file before it locks it: commits in between are kept, and what others overwrite is noticed."""

import re

import duckdb
import pytest
from processes import processes
from sink_jobs import ROWS, ROWS_OF_JOBS, SCHEMA, SECONDS, read, report, rows_of, scores_of, start, write_job

from mtl_rank.errors import ScoresError
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.sink import DuckDBSink, jobs
from mtl_rank.scoring.table import ScoresTarget


def unlock(path):
    """Give up this process's lock on a file, so that its connection knows what a late lock would have let it know."""
    # Whoever closes any descriptor of a file loses all locks on it.
    path.read_bytes()


@pytest.fixture
def late_locks(monkeypatch):
    """Lets a process run between the moment when DuckDB looks at a file and the one when it has the lock."""
    connect = duckdb.connect

    def between(path, *work):
        waiting = [work]

        def late(database, *args, **kwargs):
            con = connect(database, *args, **kwargs)
            if database == str(path) and waiting:
                unlock(path)
                process = start(*waiting.pop())
                process.join(SECONDS)
                assert process.exitcode == 0
            return con

        monkeypatch.setattr(duckdb, "connect", late)

    return between


def test_what_another_job_commits_while_the_file_is_opened_is_kept(tmp_path, late_locks):
    path = tmp_path / "scores.duckdb"
    write_job(path, "a")
    late_locks(path, write_job, path, "b")
    write_job(path, "c")
    assert read(path, ROWS_OF_JOBS) == rows_of("a") + rows_of("b") + rows_of("c")


def test_jobs_are_listed_as_they_are_now(tmp_path, late_locks):
    path = tmp_path / "scores.duckdb"
    write_job(path, "a")
    late_locks(path, write_job, path, "b")
    assert {job.job_id for job in jobs(ScoresTarget(path))} == {"a", "b"}


def write_in_steps(path, begun, go_on, committed, finish):
    with DuckDBSink(ScoresTarget(path), SCHEMA, run_id="run", job_id="a") as sink:
        begun.set()
        go_on.wait(SECONDS)
        sink.commit(Chunk(0, 0, ROWS), scores_of("a", 0))
        committed.set()
        finish.wait(SECONDS)
        sink.commit(Chunk(1, ROWS, ROWS), scores_of("a", 1))
        sink.finish(2)


def test_a_chunk_that_another_program_overwrites_is_missed_and_scored_again(tmp_path):
    path = tmp_path / "scores.duckdb"
    outcome, events = processes.Queue(), [processes.Event() for _ in range(4)]
    begun, go_on, committed, finish = events
    start(report, write_in_steps, outcome, path, *events)
    assert begun.wait(SECONDS)
    other = duckdb.connect(str(path))
    unlock(path)
    go_on.set()
    assert committed.wait(SECONDS)
    other.execute("CREATE TABLE other AS SELECT 1 AS one")
    other.close()
    finish.set()
    error = outcome.get(timeout=SECONDS)
    assert isinstance(error, ScoresError)
    assert re.search(r"has lost chunk 0 of job a.*\nRun again", str(error))
    write_job(path, "a")
    assert read(path, ROWS_OF_JOBS) == rows_of("a")
