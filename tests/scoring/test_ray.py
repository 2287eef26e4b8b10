"""Scoring by tasks of Ray: the local engine's table, row for row, whatever is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import duckdb
import polars as pl
import pytest
from harness import mtlrank
from sink_jobs import opened

import mtl_rank as mr
from mtl_rank.scoring import score as scoring
from mtl_rank.scoring.sink import DuckDBSink

pytest.importorskip("ray")

pytestmark = pytest.mark.slow

CANDIDATES = "data/candidates.parquet"
STAMPS = ["job_id", "scored_at"]
CHUNK_ROWS = 60
MARK = "MTLRANK_RAY_TEST"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scoring, "CHUNK_ROWS", CHUNK_ROWS)
    monkeypatch.setenv(MARK, uuid4().hex)
    yield
    assert workers_left() == [], "workers are left running"


@pytest.fixture
def expected(small_chunks: None, trained: Path, tmp_path: Path) -> pl.DataFrame:
    mr.score(trained, candidates=CANDIDATES, to=tmp_path / "local.duckdb")
    return scores_of(tmp_path / "local.duckdb")


def scores_of(path: Path) -> pl.DataFrame:
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql("SELECT * FROM scores ORDER BY rowid").pl().drop(STAMPS)


def workers(*titles: str) -> list[int]:
    """Processes of Ray that this test started and that are called one of these."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = []
    for process in Path("/proc").iterdir():
        try:
            named = (process / "cmdline").read_bytes().decode().startswith(titles)
            if named and mark in (process / "environ").read_bytes():
                found.append(int(process.name))
        except (OSError, ValueError):
            continue
    return found


def workers_left(seconds: float = 20.0) -> list[int]:
    """Workers that are still there after some time."""
    deadline = time.monotonic() + seconds
    while (left := workers("ray::_score_into", "ray::IDLE")) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_ray_writes_what_the_local_engine_writes_though_workers_are_killed(
    trained: Path, expected: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, commit, killed = tmp_path / "ray.duckdb", DuckDBSink.commit, []

    def deadly(sink, chunk, *arguments):
        if chunk.number in (1, 5):
            for worker in workers("ray::_score_into"):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
        return commit(sink, chunk, *arguments)

    monkeypatch.setattr(DuckDBSink, "commit", deadly)
    summary = mr.score(trained, candidates=CANDIDATES, to=to, engine="ray", workers=2)
    assert killed
    assert summary.written == expected.height
    assert scores_of(to).equals(expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local.duckdb", "ray.duckdb"]
    # The engine is no part of what a job is.
    assert mr.score(trained, candidates=CANDIDATES, to=to).already_finished


def test_a_driver_killed_on_its_way_is_continued_on_either_engine(
    trained: Path, expected: pl.DataFrame, tmp_path: Path
) -> None:
    to = tmp_path / "ray.duckdb"
    command = ["score", "--candidates", CANDIDATES, "--to", str(to), "--json", "--engine", "ray"]
    begun = []
    for _ in range(2):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *command, "--workers", "2"], cwd=trained, stdout=subprocess.DEVNULL
        )
        before = len(begun) and begun[-1]
        while driver.poll() is None and committed(to) <= before:
            time.sleep(0.02)
        assert driver.poll() is None, "the driver ended before it could be killed"
        driver.kill()
        driver.wait()
        begun.append(committed(to))
        assert workers_left() == [], "workers outlive their driver"
    assert 0 < begun[0] < begun[1] < expected.height
    assert scores_of(to).equals(expected.head(begun[1]))
    outcome = mtlrank(*command[:-2], cwd=trained)
    assert json.loads(outcome.out)["written"] == expected.height - begun[1]
    assert scores_of(to).equals(expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local.duckdb", "ray.duckdb"]


def test_a_mistake_that_a_worker_finds_is_told_as_elsewhere(
    small_chunks: None, trained: Path, tmp_path: Path
) -> None:
    arguments = (
        "--candidates",
        CANDIDATES,
        "--to",
        tmp_path / "s.duckdb",
        "--engine",
        "ray",
        "--workers",
        "1",
    )
    options = ("--carry", "hour", "--rank-by", "ctr / (hour - hour)")
    outcome = mtlrank("score", *arguments, *options, cwd=trained)
    assert (outcome.code, outcome.out) == (2, "")
    assert "division by zero" in outcome.err
    assert "Traceback" not in outcome.err


DRIVER = f"""
import sys
from mtl_rank.scoring import score
from mtlrank_cli.main import main

score.CHUNK_ROWS = {CHUNK_ROWS}
main()
"""


def committed(path: Path) -> int:
    """Rows in the table, as any reader sees them."""
    if not path.exists():
        return 0
    with opened(path) as con:
        if ("scores",) not in con.sql("SELECT table_name FROM duckdb_tables()").fetchall():
            return 0
        [(rows,)] = con.sql("SELECT count(*) FROM scores").fetchall()
        return int(rows)
