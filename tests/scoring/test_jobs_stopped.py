"""`mtlrank score` that is asked to stop, by Ctrl-C or a scheduler: at once, tidily, and it says how to go on."""

import json
import signal
from pathlib import Path

import duckdb
import pytest
from job_shell import CANDIDATES, Shell, assert_whole_chunks, score


def test_ctrl_c_says_how_to_continue(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "scores.duckdb"
    arguments = score(path, "--as-of", "2026-03-31T09:00")
    stopped = shell.run(arguments, signal=signal.SIGINT, at="predict_encoded", call=5)
    assert (stopped["code"], stopped["out"]) == (130, "")
    assert "Traceback" not in stopped["err"]
    rows = assert_whole_chunks(path)
    assert 0 < rows < CANDIDATES
    assert f"stopped: {rows:,} of {CANDIDATES:,} candidates are in the table" in stopped["err"]
    assert "--as-of 2026-03-31T09:00:00+00:00" in stopped["err"]
    continued = shell.run(arguments)
    assert json.loads(continued["out"])["written"] == CANDIDATES - rows
    assert assert_whole_chunks(path) == CANDIDATES


def test_ctrl_c_ends_a_query_at_once(shell: Shell, tmp_path: Path) -> None:
    """Whichever of DuckDB's threads has the work."""
    path = tmp_path / "scores.duckdb"
    endless = "(SELECT count(*) FROM range(100_000_000_000) AS t(i) WHERE i % 7 = 3) > 0"
    arguments = score(path)
    arguments[2] = f"SELECT * FROM 'data/candidates.parquet' WHERE {endless}"
    for _ in range(5):
        stopped = shell.run(arguments, signal=signal.SIGINT, at="open_source", delay=0.3)
        assert (stopped["code"], stopped["out"]) == (130, "")
        assert "Traceback" not in stopped["err"]
        assert "stopped" in stopped["err"]
    assert not path.exists()


def test_a_job_that_waits_for_the_file_stops_at_once(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "scores.duckdb"
    with duckdb.connect(str(path)):
        stopped = shell.run(score(path), signal=signal.SIGINT, at="retry", delay=1.0)
    assert (stopped["code"], stopped["out"]) == (130, "")
    assert "stopped; the same command continues" in stopped["err"]
    assert "Traceback" not in stopped["err"]
    assert stopped["seconds"] < 60
    assert shell.run(score(path))["code"] == 0


@pytest.mark.parametrize(("at", "call"), [("snapshot_list", 1), ("predict_encoded", 5)])
def test_sigterm_leaves_no_temporary_files_and_gives_the_job_up(
    shell: Shell, tmp_path: Path, at: str, call: int
) -> None:
    path = tmp_path / "scores.duckdb"
    stopped = shell.run(score(path), signal=signal.SIGTERM, at=at, call=call)
    assert (stopped["code"], stopped["out"]) == (143, "")
    assert "stopped" in stopped["err"]
    assert "Traceback" not in stopped["err"]
    assert shell.temporary_files() == []
    assert_whole_chunks(path)
    again = shell.run(score(path, "--no-wait"))
    assert again["code"] == 0, again["err"]
    assert assert_whole_chunks(path) == CANDIDATES
