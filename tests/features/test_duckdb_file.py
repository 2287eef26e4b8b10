"""A DuckDB file is read as it is once it is locked, and looking at it gives up nobody's lock."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from mtl_rank.features.duckdb_file import open_settled


def in_another_process(path: Path, sql: str) -> str:
    """What DuckDB says there; nothing when all went well."""
    script = "import duckdb, sys\nwith duckdb.connect(sys.argv[1]) as con: con.execute(sys.argv[2])"
    words = [sys.executable, "-c", script, str(path), sql]
    return subprocess.run(words, capture_output=True, text=True, check=False).stderr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "features.duckdb"
    assert in_another_process(path, "CREATE TABLE t AS SELECT range AS i FROM range(1000)") == ""
    return path


def attach(con: duckdb.DuckDBPyConnection, path: Path, mode: str = "READ_ONLY") -> None:
    con.execute(f"ATTACH '{path}' AS features ({mode}, TYPE duckdb)")


def detach(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("DETACH features")


def test_a_commit_after_the_look_at_the_header_is_seen(path: Path) -> None:
    commits = ["INSERT INTO t SELECT range FROM range(10)", "DELETE FROM t WHERE i < 5"]
    with duckdb.connect() as con:

        def connect() -> None:
            attach(con, path)
            if commits:
                # Closing it gives up the lock that DuckDB has taken: as if it had not come to that yet.
                path.read_bytes()
                assert in_another_process(path, commits.pop(0)) == ""

        open_settled(path, connect, lambda _: detach(con))
        assert con.sql("SELECT count(*) FROM features.t").fetchall() == [(1000,)]
    assert commits == []


def test_locks_that_this_process_holds_stay(path: Path) -> None:
    with duckdb.connect(str(path)) as held:
        for _ in range(2):
            open_settled(path, lambda: duckdb.connect(str(path)), duckdb.DuckDBPyConnection.close).close()
        assert "Could not set lock" in in_another_process(path, "DROP TABLE t")
        assert held.sql("SELECT count(*) FROM t").fetchall() == [(1000,)]


def test_a_file_in_the_place_of_another_is_the_one_that_is_looked_at(path: Path, tmp_path: Path) -> None:
    with duckdb.connect() as con:
        open_settled(path, lambda: attach(con, path), lambda _: detach(con))
        detach(con)
        assert in_another_process(tmp_path / "new.duckdb", "CREATE TABLE t AS SELECT 1 AS i") == ""
        (tmp_path / "new.duckdb").rename(path)
        commits = ["INSERT INTO t VALUES (2)"]

        def connect() -> None:
            attach(con, path)
            if commits:
                path.read_bytes()
                assert in_another_process(path, commits.pop()) == ""

        open_settled(path, connect, lambda _: detach(con))
        assert con.sql("SELECT i FROM features.t ORDER BY i").fetchall() == [(1,), (2,)]


def test_errors_that_no_commit_explains_are_raised(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.duckdb"
    other.write_text("no database")
    for wrong in (other, tmp_path / "missing.duckdb"):
        with duckdb.connect() as con, pytest.raises(duckdb.Error):
            open_settled(wrong, lambda con=con, wrong=wrong: attach(con, wrong), lambda _: None)
