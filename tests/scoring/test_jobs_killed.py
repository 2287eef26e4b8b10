"""`mtlrank score` stopped at any moment: run again, every candidate is there once, with the very same scores."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import polars as pl
import pytest
from job_shell import CANDIDATES, CHUNK_ROWS, STAMPS, Shell, assert_whole_chunks, score, scores_of

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
    # Many chunks: a busy machine may keep the reader from some of them.
    seen, over, chunk_rows = [], Event(), CANDIDATES // 40

    def read() -> None:
        while not over.is_set():
            seen.append(assert_whole_chunks(path, chunk_rows))
            time.sleep(0.005)

    reader = Thread(target=read)
    reader.start()
    try:
        outcome = shell.run(score(path), chunk_rows=chunk_rows)
    finally:
        over.set()
        reader.join()
    assert outcome["code"] == 0
    assert assert_whole_chunks(path) == CANDIDATES
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3, "commits were seen from outside"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a part of the scores."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    # This process, or one that looks at all file systems, may have a file open there.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


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
