"""What the scores sink promises, seen from one process; test_sink_processes.py has the rest."""

import os
import sqlite3
import threading
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mtl_rank.errors import ScoresError
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.sink import DuckDBSink, jobs
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget, duckdb_types

SCHEMA = ScoresSchema({"user_id": "VARCHAR", "item_id": "bigint"}, ("ctr", "cvr", "ctcvr"))
ROWS = 100


@pytest.fixture
def target(tmp_path):
    return ScoresTarget(tmp_path / "scores.duckdb")


def scores_of(number, schema=SCHEMA, rows=ROWS):
    items = np.arange(number * ROWS, number * ROWS + rows)
    columns = {
        "VARCHAR": pa.array([f"user {item % 7}" for item in items], pa.string()),
        "BIGINT": pa.array(items),
        "TIMESTAMP WITH TIME ZONE": pa.array(items * 1000, pa.timestamp("us", "UTC")),
        "DOUBLE": pa.array(items / 1000),
    }
    return pa.table({name: columns[kind] for name, kind in schema.given.items()})


def chunk_of(number):
    return Chunk(number, number * ROWS, ROWS)


def sink_of(target, job_id="job", schema=SCHEMA, **options):
    options.setdefault("patience", Patience(file=0.2, job=0))
    return DuckDBSink(target, schema, run_id="run", job_id=job_id, **options)


def write(target, job_id="job", chunks=2, **options):
    with sink_of(target, job_id, **options) as sink:
        for number in range(chunks):
            if not sink.finished and number not in sink.committed:
                sink.commit(chunk_of(number), scores_of(number, options.get("schema", SCHEMA)))
        sink.finish(chunks)


def query(target, sql, *values):
    with duckdb.connect(str(target.path)) as con:
        return con.execute(sql, list(values)).fetchall()


def states(target):
    return {job.job_id: job.state for job in jobs(target)}


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
    assert query(target, "SELECT count(*) FROM scores WHERE now() - scored_at < INTERVAL 1 MINUTE") == [
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


def test_replace_keeps_the_old_scores_until_it_is_finished(target):
    write(target, "old", chunks=3)
    with sink_of(target, "new", replace=True) as sink:
        sink.commit(chunk_of(0), scores_of(0))
        assert query(target, "SELECT DISTINCT job_id FROM scores") == [("old",)]
    with sink_of(target, "new", replace=True) as sink:
        assert list(sink.committed) == [0]
        sink.finish(1)
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1") == [("new", 100)]
    assert query(target, "SELECT table_name FROM duckdb_tables() ORDER BY 1") == [
        ("scores",),
        ("scores_jobs",),
    ]
    assert states(target) == {"old": "replaced", "new": "finished"}
    with sink_of(target, "new", replace=True) as sink:
        assert sink.finished


def test_replace_may_change_the_columns_and_create_the_table(target):
    write(target, "first", replace=True)
    wider = ScoresSchema({"item_id": "BIGINT"}, ("ctr", "like"))
    write(target, "second", schema=wider, replace=True)
    assert [name for (name,) in query(target, "SELECT name FROM pragma_table_info('scores')")] == list(
        wider.columns
    )


def test_a_job_whose_scores_were_replaced_begins_anew(target):
    write(target, "old")
    write(target, "new", replace=True)
    write(target, "old")
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1 ORDER BY 1") == [
        ("new", 200),
        ("old", 200),
    ]
    assert states(target) == {"old": "finished", "new": "finished"}


def test_a_job_that_runs_while_its_table_is_replaced_is_told(target):
    with sink_of(target, "running") as sink:
        sink.commit(chunk_of(0), scores_of(0))
        write(target, "new", replace=True)
        with pytest.raises(ScoresError, match="job running lost its place"):
            sink.commit(chunk_of(1), scores_of(1))
    write(target, "running")
    counts = query(
        target, "SELECT job_id, count(*), count(DISTINCT item_id) FROM scores GROUP BY 1 ORDER BY 1"
    )
    assert counts == [("new", 200, 200), ("running", 200, 200)]


def test_a_replacement_clears_away_those_that_were_given_up(target):
    with sink_of(target, "given up", replace=True) as sink:
        sink.commit(chunk_of(0), scores_of(0))
    write(target, "new", replace=True)
    assert query(target, "SELECT table_name FROM duckdb_tables() ORDER BY 1") == [
        ("scores",),
        ("scores_jobs",),
    ]
    write(target, "given up", replace=True)
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1") == [("given up", 200)]


def test_replacements_that_run_at_once_do_not_disturb_each_other(target):
    with sink_of(target, "a", replace=True) as a, sink_of(target, "b", replace=True) as b:
        a.commit(chunk_of(0), scores_of(0))
        b.commit(chunk_of(0), scores_of(0))
        a.finish(1)
        assert query(target, "SELECT DISTINCT job_id FROM scores") == [("a",)]
        b.commit(chunk_of(1), scores_of(1))
        b.finish(2)
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1") == [("b", 200)]
    assert states(target) == {"a": "replaced", "b": "finished"}


def test_an_unfinished_job_keeps_its_manner(target):
    with sink_of(target, replace=True) as sink:
        sink.commit(chunk_of(0), scores_of(0))
    with pytest.raises(ScoresError, match="run it with --replace"):
        sink_of(target).begin()


def test_a_table_dropped_by_hand_is_written_again(target):
    write(target, "a")
    write(target, "b")
    query(target, "DROP TABLE scores")
    write(target, "a")
    assert states(target) == {"a": "finished", "b": "replaced"}
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1") == [("a", 200)]


def test_a_table_that_disappears_or_changes_during_a_job_is_noticed(target):
    with sink_of(target) as sink:
        sink.commit(chunk_of(0), scores_of(0))
        query(target, "ALTER TABLE scores ADD COLUMN note VARCHAR")
        with pytest.raises(
            ScoresError, match="was changed while job job was running: with unexpected column note"
        ):
            sink.commit(chunk_of(1), scores_of(1))
        query(target, "DROP TABLE scores")
        with pytest.raises(ScoresError, match="was removed while job job was running"):
            sink.commit(chunk_of(1), scores_of(1))
        target.path.unlink()
        with pytest.raises(ScoresError, match="was removed while job job was running"):
            sink.commit(chunk_of(1), scores_of(1))


OTHER_TABLES = {
    "missing": ("ALTER TABLE scores DROP COLUMN cvr", "without column cvr"),
    "extra": ("ALTER TABLE scores ADD COLUMN note VARCHAR", "with unexpected column note"),
    "type": ("ALTER TABLE scores ALTER item_id TYPE VARCHAR", "item_id is VARCHAR instead of BIGINT"),
    "renamed": (
        "ALTER TABLE scores RENAME cvr TO like_rate",
        "without column cvr; with unexpected column like_rate",
    ),
}


@pytest.mark.parametrize("case", OTHER_TABLES)
def test_a_table_that_does_not_fit_is_refused_before_work(target, case):
    change, message = OTHER_TABLES[case]
    write(target, "before")
    query(target, change)
    before = query(target, "SELECT * FROM scores_jobs")
    with pytest.raises(ScoresError, match=message) as refused:
        sink_of(target, "new").begin()
    assert str(target.path) in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2
    assert query(target, "SELECT * FROM scores_jobs") == before


def test_a_table_of_another_kind_is_neither_filled_nor_replaced(target):
    query(target, "CREATE TABLE scores (id INT); INSERT INTO scores VALUES (1)")
    with pytest.raises(ScoresError, match="does not fit: without column user_id, "):
        sink_of(target).begin()
    with pytest.raises(ScoresError, match="was not written by mtl_rank"):
        sink_of(target, replace=True).begin()
    query(target, "ALTER TABLE scores RENAME TO other; CREATE VIEW scores AS SELECT * FROM other")
    for replace in (False, True):
        with pytest.raises(ScoresError, match="is a view"):
            sink_of(target, replace=replace).begin()
    query(target, "DROP VIEW scores; ALTER TABLE other RENAME TO scores_jobs")
    with pytest.raises(ScoresError, match="'scores_jobs' that is no ledger"):
        sink_of(target).begin()
    assert query(target, "SELECT * FROM scores_jobs") == [(1,)]


def test_a_table_put_in_the_way_of_a_replacement_is_not_dropped(target):
    with sink_of(target, "new", replace=True) as sink:
        sink.commit(chunk_of(0), scores_of(0))
        query(target, "CREATE TABLE scores (id INT)")
        with pytest.raises(ScoresError, match="was not written by mtl_rank"):
            sink.finish(1)
    assert query(target, "SELECT count(*) FROM scores") == [(0,)]


def test_a_table_made_by_hand_that_fits_is_filled(target):
    columns = ", ".join(f'"{name}" {kind}' for name, kind in reversed(SCHEMA.columns.items()))
    query(target, f"CREATE TABLE SCORES ({columns})")
    write(target)
    assert query(target, "SELECT item_id, ctr FROM scores WHERE item_id = 7") == [(7, 0.007)]


def folder(path):
    path.mkdir()


def fifo(path):
    os.mkfifo(path)


def text(path):
    path.write_text("user_id,item_id\n" * 1000)


def sqlite(path):
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE scores (id)")
    con.close()


BAD_PATHS = {
    "folder": (folder, "is a folder: name a database file in it, such as .*scores.duckdb"),
    "fifo": (fifo, "is not a file"),
    "text": (text, "is not a DuckDB database"),
    "sqlite": (sqlite, "is not a DuckDB database"),
    "empty": (Path.touch, "is not a DuckDB database"),
}


@pytest.mark.parametrize("case", BAD_PATHS)
def test_a_path_that_cannot_take_scores_is_refused(tmp_path, case):
    make, message = BAD_PATHS[case]
    path = tmp_path / "given"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ScoresError, match=message) as refused:
        sink_of(ScoresTarget(path)).begin()
    assert "\n" not in str(refused.value)
    assert before is None or path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["given"]


def test_a_missing_folder_or_file_is_named(tmp_path):
    with pytest.raises(ScoresError, match="nowhere does not exist: create it first"):
        sink_of(ScoresTarget(tmp_path / "nowhere" / "scores.duckdb")).begin()
    with pytest.raises(ScoresError, match=r"scores\.duckdb does not exist"):
        jobs(ScoresTarget(tmp_path / "scores.duckdb"))
    assert list(tmp_path.iterdir()) == []


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


NAMES = [
    'scores"; DROP TABLE "users',
    "scores'); DROP TABLE users; --",
    "a.b.c",
    "select",
    "scores chunk",
    "Größe ✓ 指标",
    " $1 ? %s {0}",
    "users_jobs",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_a_name_and_nothing_more(tmp_path, name):
    target = ScoresTarget(tmp_path / "scores.duckdb", name)
    query(target, "CREATE TABLE users (id INT); INSERT INTO users VALUES (1)")
    schema = ScoresSchema({name: "BIGINT", "chunk": "VARCHAR"}, (f"{name} score", "rows"))
    for number, replace in enumerate((False, True)):
        job_id = f"{name} {number}"
        write(target, job_id, schema=schema, replace=replace)
        quoted = '"' + name.replace('"', '""') + '"'
        assert query(target, f"SELECT count(*), max({quoted}) FROM {quoted} WHERE job_id = ?", job_id) == [
            (200, 199)
        ]
    assert query(target, "SELECT * FROM users") == [(1,)]
    assert query(target, "SELECT table_name FROM duckdb_tables() ORDER BY 1") == sorted(
        [(name,), (f"{name}_jobs",), ("users",)]
    )


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_a_table_needs_a_name(name):
    with pytest.raises(ScoresError, match="is no name for a scores table"):
        ScoresTarget(Path("scores.duckdb"), name)


@pytest.mark.parametrize(
    ("carried", "outputs", "message"),
    [
        ({"run_id": "VARCHAR"}, ("ctr",), "two columns 'run_id'"),
        ({"ctr": "VARCHAR"}, ("ctr",), "two columns 'ctr'"),
        ({"CTR": "VARCHAR"}, ("ctr",), "two columns 'ctr'"),
        ({"event_timestamp": "TIMESTAMP"}, ("ctr",), "two columns 'event_timestamp'"),
        ({"user_id": "NUMBER OF SORTS"}, ("ctr",), "column 'user_id' .* has no type"),
        ({"user_id": "INT); DROP TABLE users; --"}, ("ctr",), "column 'user_id' .* has no type"),
    ],
)
def test_columns_that_cannot_be_are_refused(carried, outputs, message):
    with pytest.raises(ScoresError, match=message):
        ScoresSchema(carried, outputs)


def test_a_type_is_never_more_than_a_type():
    schema = ScoresSchema({"user_id": "INT, secret INT DEFAULT 3"}, ())
    assert schema.columns["user_id"] == "INTEGER"


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
