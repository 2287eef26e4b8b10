"""The scores sink seen from one process: each chunk once, a row of the ledger for each, one holder to a job."""

import os
import threading

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from small_jobs import ROWS, chunk_of, query, scores_of, sink_of, states, write

from mtl_rank.errors import ScoresError
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.sink import jobs
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget, duckdb_types


def test_the_table_holds_keys_scores_and_stamps(target):
    write(target)
    columns = query(target, "SELECT name, type FROM pragma_table_info('scores')")
    assert columns == [
        ("user_id", "VARCHAR"),
        ("item_id", "BIGINT"),
        ("event_timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("ctr", "DOUBLE"),
        ("cvr", "DOUBLE"),
        ("ctcvr", "DOUBLE"),
        ("run_id", "VARCHAR"),
        ("job_id", "VARCHAR"),
        ("scored_at", "TIMESTAMP WITH TIME ZONE"),
    ]
    expected = pa.concat_tables([scores_of(0), scores_of(1)])
    with duckdb.connect(str(target.path)) as con:
        con.execute("SET TimeZone = 'UTC'")
        table = con.sql("SELECT * FROM scores ORDER BY item_id").to_arrow_table()
    assert table.select(expected.column_names).to_pylist() == expected.to_pylist()
    assert set(table["run_id"].to_pylist()) == {"run"}
    assert query(target, "SELECT count(*) FROM scores WHERE now() - scored_at < INTERVAL 10 MINUTE") == [
        (200,)
    ]


def test_the_ledger_has_one_row_per_chunk_and_one_per_job(target):
    write(target, chunks=3)
    rows = query(
        target, "SELECT job_id, run_id, chunk, first_row, rows, state, pid FROM scores_jobs ORDER BY chunk"
    )
    assert rows == [
        ("job", "run", -1, None, None, "finished", os.getpid()),
        *(("job", "run", number, number * ROWS, ROWS, "committed", os.getpid()) for number in range(3)),
    ]
    [job] = jobs(target)
    assert (job.state, job.replace, job.chunks, job.rows, job.holder) == ("finished", False, 3, 300, None)
    assert job == sink_of(target).state()
    assert sink_of(target, "another").state() is None


def test_columns_in_any_order_and_both_arrow_types_are_taken(target):
    scores = scores_of(0)
    with sink_of(target) as sink:
        assert sink.commit(chunk_of(0), scores.select(scores.column_names[::-1]).to_batches()[0])
        sink.finish(1)
    assert query(target, "SELECT ctr FROM scores WHERE item_id = 7") == [(0.007,)]


def test_carried_columns_keep_the_types_of_their_arrow_columns(target):
    frame = pl.DataFrame(
        {
            "user_id": pl.Series(["a", "b"], dtype=pl.Categorical),
            "item_id": pl.Series([1, 2], dtype=pl.UInt32),
            "position": pl.Series([[1, 2], None], dtype=pl.List(pl.Int16)),
            "day": pl.Series(["2026-01-01", None]).str.to_date(),
        }
    ).to_arrow()
    types = duckdb_types(frame.schema)
    assert types == {"user_id": "VARCHAR", "item_id": "UINTEGER", "position": "SMALLINT[]", "day": "DATE"}
    schema = ScoresSchema(types, ("ctr",))
    scores = frame.append_column("event_timestamp", pa.array([0, 1], pa.timestamp("us", "UTC")))
    scores = scores.append_column("ctr", pa.array([0.5, None]))
    with sink_of(target, schema=schema) as sink:
        sink.commit(Chunk(0, 0, 2), scores)
        sink.finish(1)
    with duckdb.connect(str(target.path)) as con:
        table = con.sql("SELECT user_id, item_id, position, day, ctr FROM scores ORDER BY item_id").pl()
    assert table.drop("ctr").to_dicts() == pl.from_arrow(frame).to_dicts()
    assert table["ctr"].to_list() == [0.5, None]


def test_a_chunk_is_written_once_however_often_it_is_committed(target):
    with sink_of(target) as sink:
        assert sink.commit(chunk_of(0), scores_of(0))
        assert not sink.commit(chunk_of(0), scores_of(0))
    with sink_of(target) as sink:
        assert dict(sink.committed) == {0: chunk_of(0)}
        assert not sink.commit(chunk_of(0), scores_of(0))
        assert sink.commit(chunk_of(1), scores_of(1))
        sink.finish(2)
    assert query(target, "SELECT count(*), count(DISTINCT item_id) FROM scores") == [(200, 200)]


def test_a_chunk_may_hold_fewer_scores_than_candidates(target):
    with sink_of(target) as sink:
        sink.commit(chunk_of(0), scores_of(0, rows=10))
        sink.commit(chunk_of(1), scores_of(1, rows=0))
        sink.finish(2)
    assert query(target, "SELECT count(*) FROM scores") == [(10,)]
    assert jobs(target)[0].rows == 200


def test_a_finished_job_run_again_changes_nothing(target):
    write(target)
    before = query(target, "SELECT * FROM scores"), query(target, "SELECT * FROM scores_jobs")
    with sink_of(target) as sink:
        assert sink.finished
        assert len(sink.committed) == 2
        sink.finish(2)
        with pytest.raises(ValueError, match="a finished job takes no chunks"):
            sink.commit(chunk_of(2), scores_of(2))
    assert (query(target, "SELECT * FROM scores"), query(target, "SELECT * FROM scores_jobs")) == before


def test_jobs_on_one_table_keep_apart(target):
    with sink_of(target, "a") as a, sink_of(target, "b") as b:
        for number in range(3):
            a.commit(chunk_of(number), scores_of(number))
            b.commit(chunk_of(number), scores_of(number))
        assert states(target) == {"a": "running", "b": "running"}
        a.finish(3)
    assert states(target) == {"a": "finished", "b": "stopped"}
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1 ORDER BY 1") == [
        ("a", 300),
        ("b", 300),
    ]


def test_a_job_ends_only_when_its_chunks_follow_each_other(target):
    with sink_of(target) as sink:
        sink.commit(chunk_of(0), scores_of(0))
        sink.commit(chunk_of(2), scores_of(2))
        for chunks in (2, 3, 1):
            with pytest.raises(ValueError, match="chunk"):
                sink.finish(chunks)
        assert states(target) == {"job": "running"}
        sink.commit(chunk_of(1), scores_of(1))
        sink.finish(3)
    assert states(target) == {"job": "finished"}


def test_other_candidates_under_the_same_job_are_refused(target):
    with sink_of(target) as sink:
        sink.commit(chunk_of(0), scores_of(0))
        with pytest.raises(ScoresError, match="the candidates or the chunk size changed"):
            sink.commit(Chunk(0, 0, 50), scores_of(0, rows=50))


def test_a_chunk_that_is_not_as_promised_is_refused_whole(target):
    scores = scores_of(0)
    with sink_of(target) as sink:
        for wrong in (scores.drop_columns("cvr"), scores.append_column("x", scores["ctr"])):
            with pytest.raises(ValueError, match="the chunk has columns"):
                sink.commit(chunk_of(0), wrong)
        with pytest.raises(ValueError, match="100 rows of scores do not fit"):
            sink.commit(Chunk(0, 0, 99), scores)
        text = scores.set_column(1, "item_id", pa.array(["x"] * ROWS))
        with pytest.raises(ScoresError, match=r"scores\.duckdb: Could not convert string 'x' to INT64"):
            sink.commit(chunk_of(0), text)
        assert query(target, "SELECT count(*) FROM scores") == [(0,)]
        sink.commit(chunk_of(0), scores)
        sink.finish(1)


def test_without_a_claim_nothing_is_written(target):
    sink = sink_of(target)
    with pytest.raises(ValueError, match="call begin"):
        sink.commit(chunk_of(0), scores_of(0))
    assert not target.path.exists()


def test_only_the_database_is_left_behind(target):
    write(target)
    assert [path.name for path in target.path.parent.iterdir()] == ["scores.duckdb"]


def test_a_link_and_its_file_are_one_database(target, tmp_path):
    link = tmp_path / "link.duckdb"
    link.symlink_to(target.path)
    write(ScoresTarget(link), "a")
    write(target, "b")
    assert link.is_symlink()
    assert states(target) == {"a": "finished", "b": "finished"}


def test_one_job_twice_in_one_process_is_refused_until_the_first_lets_go(target):
    with sink_of(target) as first:
        with pytest.raises(ScoresError, match=f"job job for table .* is running: process {os.getpid()} on"):
            sink_of(target).begin()
        first.commit(chunk_of(0), scores_of(0))
    with sink_of(target) as second:
        assert list(second.committed) == [0]


def test_threads_write_different_jobs_at_once(target):
    patient = Patience(file=30)
    names = ["a", "b", "c"]
    threads = [
        threading.Thread(target=write, args=(target, name, 5), kwargs={"patience": patient}) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1 ORDER BY 1") == [
        (name, 500) for name in names
    ]
    assert states(target) == dict.fromkeys(names, "finished")


def test_a_connection_of_this_process_does_not_stop_a_job(target):
    write(target, "before")
    with duckdb.connect(str(target.path)) as own:
        write(target, "job")
        assert own.execute("SELECT count(*) FROM scores").fetchone() == (400,)


def test_a_read_only_connection_of_this_process_is_named(target):
    write(target, "before")
    with (
        duckdb.connect(str(target.path), read_only=True),
        pytest.raises(ScoresError, match="of this process"),
    ):
        write(target, "job")


def ledger_says(target, **changes):
    sets = ", ".join(f"{column} = {value}" for column, value in changes.items())
    query(target, f"UPDATE scores_jobs SET {sets} WHERE chunk = -1")


def test_a_process_id_that_was_given_to_another_process_is_no_holder(target):
    with sink_of(target) as first:
        first.commit(chunk_of(0), scores_of(0))
        ledger_says(target, started="'some other time'")
        with sink_of(target) as second:
            second.commit(chunk_of(1), scores_of(1))
            with pytest.raises(ScoresError, match="lost its place"):
                first.commit(chunk_of(1), scores_of(1))
            second.finish(2)
    assert query(target, "SELECT count(*), count(DISTINCT item_id) FROM scores") == [(200, 200)]


def test_a_holder_on_another_host_is_believed_until_it_was_silent_for_long(target):
    with sink_of(target) as first:
        ledger_says(target, host="'elsewhere'")
        with pytest.raises(ScoresError, match=f"process {os.getpid()} on elsewhere"):
            sink_of(target).begin()
        ledger_says(target, committed_at="now() - INTERVAL 2 HOUR")
        assert states(target) == {"job": "stopped"}
        with sink_of(target) as second:
            second.commit(chunk_of(0), scores_of(0))
        with pytest.raises(ScoresError, match="lost its place"):
            first.commit(chunk_of(0), scores_of(0))
