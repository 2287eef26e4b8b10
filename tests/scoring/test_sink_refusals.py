"""Tables, paths, names and columns: what cannot take scores is refused by its name and left as it was."""

import os
import sqlite3
from pathlib import Path

import pytest
from small_jobs import SCHEMA, chunk_of, query, scores_of, sink_of, write

from mtl_rank.errors import ScoresError
from mtl_rank.scoring.sink import jobs
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget

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
