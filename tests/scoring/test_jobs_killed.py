"""`mtlrank score` stopped at any moment: run again, every candidate is there once, with the very same scores."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import duckdb
import polars as pl
import pytest

SCRIPT = Path(__file__).with_name("killed_jobs.py")
CHUNK_ROWS, CANDIDATES = 240, 1_200
STAMPS = ["job_id", "scored_at"]

# Where a job is when it is killed; the calls are counted, so that the middle of the work is meant.
STAGES: list[tuple[str, str, int]] = [
    ("start", "score", 1),
    ("snapshot", "snapshot_rows", 1),
    ("claim", "_claim", 1),
    ("retrieve", "batches", 1),
    ("forward", "predict_encoded", 3),
    ("transaction", "_insert", 3),
    ("finish", "finish", 1),
    ("end", "end", 1),
]


def score(to: Path, *options: str) -> list[str]:
    return ["score", "--candidates", "data/candidates.parquet", "--to", str(to), "--json", *options]


class Shell:
    """Runs commands in a process that has imported everything already."""

    def __init__(self, project: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, SCRIPT, str(CHUNK_ROWS)],
            cwd=project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def at_once(self, *attempts: dict[str, Any]) -> list[dict[str, Any]]:
        """The outcomes of attempts that start together; killed_jobs.py says what an attempt is."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(attempts) + "\n")
        self._process.stdin.flush()
        outcomes: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return outcomes

    def run(self, arguments: list[str], **moment: Any) -> dict[str, Any]:
        return self.at_once({"arguments": arguments, **moment})[0]

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def shell(trained: Path) -> Iterator[Shell]:
    started = Shell(trained)
    yield started
    started.close()


@contextmanager
def opened(path: Path, seconds: float = 1.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """The file as any reader opens it, trying again for a second."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            con = duckdb.connect(str(path), read_only=True)
            break
        except duckdb.IOException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
    with con:
        yield con


def scores_of(path: Path) -> pl.DataFrame:
    with opened(path) as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql("SELECT * FROM scores ORDER BY rowid").pl().drop(STAMPS)


def assert_whole_chunks(path: Path) -> int:
    """The table holds what the ledger says. Returns the number of its rows."""
    if not path.exists():
        return 0
    with opened(path) as con:
        tables = {name for (name,) in con.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
        if "scores" not in tables:
            return 0
        ((rows,),) = con.sql("SELECT count(*) FROM scores").fetchall()
        ((committed,),) = con.sql(
            "SELECT coalesce(sum(rows), 0) FROM scores_jobs WHERE chunk >= 0"
        ).fetchall()
    assert rows == committed
    assert rows % CHUNK_ROWS == 0
    return int(rows)


@pytest.fixture(scope="module")
def undisturbed(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, float]:
    """The scores of a job that nothing disturbed, and the seconds it took."""
    path = tmp_path_factory.mktemp("undisturbed") / "scores.duckdb"
    outcome = shell.run(score(path))
    assert outcome["code"] == 0, outcome
    table = scores_of(path)
    assert table.height == CANDIDATES
    return table, outcome["seconds"]


@pytest.fixture(scope="module")
def expected(undisturbed: tuple[pl.DataFrame, float]) -> pl.DataFrame:
    return undisturbed[0]


def check_kill(shell: Shell, path: Path, expected: pl.DataFrame, **moment: Any) -> int:
    """Kill a job, look at what it left, run it again. Returns the rows that it had committed."""
    killed = shell.run(score(path), signal=signal.SIGKILL, **moment)
    assert killed["code"] in (-signal.SIGKILL, 0), killed
    begun = assert_whole_chunks(path)
    again = shell.run(score(path))
    assert again["code"] == 0, again
    assert json.loads(again["out"])["written"] == CANDIDATES - begun
    assert scores_of(path).equals(expected)
    return begun


def test_killed_in_any_stage_a_job_ends_with_each_candidate_once(
    shell: Shell, expected: pl.DataFrame, tmp_path: Path
) -> None:
    begun = {
        stage: check_kill(shell, tmp_path / f"{stage}.duckdb", expected, at=at, call=call)
        for stage, at, call in STAGES
        if stage in ("claim", "forward", "transaction", "finish")
    }
    # The stages are what they are called: nothing is there before the work, all of it at the end.
    assert begun["claim"] == 0
    assert 0 < begun["transaction"] < begun["finish"] == CANDIDATES


@pytest.mark.slow
def test_killed_at_fifty_random_moments_a_job_ends_with_each_candidate_once(
    shell: Shell, undisturbed: tuple[pl.DataFrame, float], tmp_path: Path
) -> None:
    random = Random(17)
    expected, seconds = undisturbed
    moments: list[dict[str, Any]] = [{"delay": random.uniform(0, seconds)} for _ in range(26)]
    for _, at, call in STAGES:
        moments += [{"at": at, "call": call, "delay": random.uniform(0, 0.05)} for _ in range(3)]
    begun = [
        check_kill(shell, tmp_path / f"{number}.duckdb", expected, **moment)
        for number, moment in enumerate(moments)
    ]
    assert len(begun) == 50
    assert len(set(begun)) > 3


@pytest.mark.slow
def test_a_job_killed_ten_times_over_ends_with_each_candidate_once(
    shell: Shell, undisturbed: tuple[pl.DataFrame, float], tmp_path: Path
) -> None:
    random = Random(23)
    expected, seconds = undisturbed
    path = tmp_path / "scores.duckdb"
    begun = []
    for _ in range(10):
        shell.run(score(path), signal=signal.SIGKILL, delay=random.uniform(0.3, 0.9) * seconds)
        begun.append(assert_whole_chunks(path))
    assert begun == sorted(begun)
    assert shell.run(score(path))["code"] == 0
    assert scores_of(path).equals(expected)


@pytest.mark.parametrize(("at", "call"), [("_insert", 3), ("_swap", 1)])
def test_a_replacement_killed_on_its_way_leaves_the_old_scores_or_the_new(
    shell: Shell, expected: pl.DataFrame, tmp_path: Path, at: str, call: int
) -> None:
    path = tmp_path / "scores.duckdb"
    some = f"SELECT * FROM 'data/candidates.parquet' LIMIT {CHUNK_ROWS}"
    shell.run(["score", "--candidates", some, "--to", str(path)])
    old = scores_of(path)
    killed = shell.run(score(path, "--replace"), signal=signal.SIGKILL, at=at, call=call)
    assert killed["code"] == -signal.SIGKILL
    assert any(scores_of(path).equals(whole) for whole in (old, expected))
    assert shell.run(score(path, "--replace"))["code"] == 0
    assert scores_of(path).equals(expected)


@pytest.mark.parametrize(("at", "call"), [("commit", 3), ("_publish_folder", 1), ("put_folder", 1)])
def test_parquet_killed_on_its_way_is_published_whole(
    shell: Shell, expected: pl.DataFrame, tmp_path: Path, at: str, call: int
) -> None:
    folder = tmp_path / "scores"
    killed = shell.run(score(folder, "--to", f"{folder}/"), signal=signal.SIGKILL, at=at, call=call)
    assert killed["code"] == -signal.SIGKILL
    assert not folder.exists() or at == "put_folder"
    assert shell.run(score(folder, "--to", f"{folder}/"))["code"] == 0
    table = pl.read_parquet(folder / "*" / "*.parquet", hive_partitioning=False)
    assert table.drop(STAMPS).equals(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]


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


def test_one_job_started_twice_is_written_once(shell: Shell, expected: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "scores.duckdb"
    outcomes = shell.at_once(*[{"arguments": score(path)}] * 2)
    assert [outcome["code"] for outcome in outcomes] == [0, 0]
    assert sorted(json.loads(outcome["out"])["written"] for outcome in outcomes) == [0, CANDIDATES]
    assert scores_of(path).equals(expected)


@pytest.mark.slow
def test_racing_jobs_of_which_one_is_killed_end_with_each_candidate_once(
    shell: Shell, undisturbed: tuple[pl.DataFrame, float], tmp_path: Path
) -> None:
    random = Random(29)
    expected, seconds = undisturbed
    for number in range(8):
        path = tmp_path / f"{number}.duckdb"
        # The same job twice: whoever is left takes it over from the other and ends it.
        killed = {
            "arguments": score(path),
            "signal": signal.SIGKILL,
            "delay": random.uniform(0, 1.5) * seconds,
        }
        _, left = shell.at_once(killed, {"arguments": score(path)})
        assert left["code"] == 0, left
        assert scores_of(path).equals(expected)


@pytest.mark.slow
def test_different_jobs_killed_on_one_file_end_with_each_candidate_once(
    shell: Shell, undisturbed: tuple[pl.DataFrame, float], tmp_path: Path
) -> None:
    random = Random(31)
    expected, seconds = undisturbed
    for number in range(4):
        path = tmp_path / f"{number}.duckdb"
        # Not the time that the candidates have themselves: that would be the same job.
        jobs = [score(path), score(path, "--as-of", "2026-03-31T10:00")]
        shell.at_once(
            *(
                {"arguments": job, "signal": signal.SIGKILL, "delay": random.uniform(0.3, 1.5) * seconds}
                for job in jobs
            )
        )
        assert_whole_chunks(path)
        for outcome in shell.at_once(*({"arguments": job} for job in jobs)):
            assert outcome["code"] == 0, outcome
        table = scores_of(path)
        assert table.height == 2 * CANDIDATES
        parts = table.partition_by("event_timestamp")
        own = next(part for part in parts if part["event_timestamp"][0] == expected["event_timestamp"][0])
        assert own.equals(expected)


def test_a_reader_gets_in_within_a_second_and_sees_whole_chunks(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "scores.duckdb"
    seen, over = [], Event()

    def read() -> None:
        while not over.is_set():
            seen.append(assert_whole_chunks(path))
            time.sleep(0.005)

    reader = Thread(target=read)
    reader.start()
    try:
        outcome = shell.run(score(path))
    finally:
        over.set()
        reader.join()
    assert outcome["code"] == 0
    assert assert_whole_chunks(path) == CANDIDATES
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3, "most commits were seen from outside"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a part of the scores."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_a_message_and_the_job_continues_with_more_room(
    shell: Shell, expected: pl.DataFrame, small_disk: Path
) -> None:
    path = small_disk / "scores.duckdb"
    full = shell.run(score(path))
    assert (full["code"], full["out"]) == (2, "")
    assert "Traceback" not in full["err"]
    assert "scores.duckdb: " in full["err"]
    assert "run again once this is mended" in full["err"]
    begun = assert_whole_chunks(path)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert json.loads(shell.run(score(path))["out"])["written"] == CANDIDATES - begun
    assert scores_of(path).equals(expected)
