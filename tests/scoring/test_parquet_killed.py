"""Scores in parquet whose job is killed, or is not alone, while it publishes."""

import shutil
from itertools import count

import duckdb
import pytest
from parquet_writing import CHUNKS, ROWS, assert_holds, left_behind, read, scores_of, sink_of, write_job
from processes import processes
from sink_jobs import SECONDS, kill_before

from mtl_rank import durable
from mtl_rank.scoring import parquet_sink
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.parquet_target import parquet_jobs


@pytest.fixture
def target(parquet):
    return parquet


# What begins, commits and publishes.
STEPS = {
    *("begin", "commit", "appearing", "finish", "_publish_file", "_publish_folder", "_copy", "link_tree"),
    *("put_folder", "_exchange", "remove_tree", "_clear"),
}


def write_until(step, *args, steps=STEPS, exchange=True, **options):
    """write_job, killed before the given line of the functions in steps. exchange: whether folders can be exchanged."""
    if not exchange:
        durable._exchange = lambda *_: False
    kill_before(step, steps)
    write_job(*args, **options)


def test_a_job_killed_at_any_step_is_all_there_after_another_run(target, tmp_path):
    saved = tmp_path / "saved"
    write_job(target, "old")
    if target.is_folder:
        shutil.copytree(target.path, saved)
    else:
        shutil.copy(target.path, saved)
    kept = ["old", "a"] if target.is_folder else ["a"]
    options = {"replace": not target.is_folder}
    states, steps = set(), 0
    for step in range(4, 500, 9):
        shutil.rmtree(target.work, ignore_errors=True)
        if target.is_folder:
            shutil.rmtree(target.path)
            shutil.copytree(saved, target.path)
        else:
            shutil.copy(saved, target.path)
        process = processes.Process(target=write_until, args=(step, target, "a"), kwargs=options)
        process.start()
        process.join()
        steps += 1
        there = {job for (job,) in read(target).select("job_id").unique().rows()}
        assert there in ({"old"}, set(kept))
        assert_holds(target, *(["old"] if there == {"old"} else kept))
        states.add(frozenset(there))
        write_job(target, "a", **options)
        assert_holds(target, *kept)
        assert [path for path in left_behind(target) if path != "saved"] == []
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert len(states) == 2
    assert steps > 9


@pytest.mark.parametrize("following", ["a", "b"])
def test_a_folder_moved_away_by_a_killed_job_is_put_back(folder, following):
    """Where two folders cannot be exchanged: whoever writes next, the same job or another, finds all that was there."""
    away = 0
    for step in range(1, 30):
        shutil.rmtree(folder.work, ignore_errors=True)
        shutil.rmtree(folder.path, ignore_errors=True)
        write_job(folder, "old")
        options = {"steps": {"put_folder"}, "exchange": False}
        process = processes.Process(target=write_until, args=(step, folder, "a"), kwargs=options)
        process.start()
        process.join()
        away += not folder.path.exists()
        write_job(folder, following)
        write_job(folder, "a")
        assert_holds(folder, *dict.fromkeys(["old", "a", following]))
        assert left_behind(folder) == []
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert away == 1


def test_a_folder_that_is_put_in_its_place_meanwhile_needs_no_putting_back(folder, monkeypatch):
    write_job(folder, "old")
    folder.away.mkdir(parents=True)
    lock = parquet_sink.locked

    def after_the_last_job(path):
        monkeypatch.setattr(parquet_sink, "locked", lock)
        shutil.rmtree(folder.work)
        return lock(path)

    monkeypatch.setattr(parquet_sink, "locked", after_the_last_job)
    write_job(folder, "a")
    assert_holds(folder, "old", "a")
    assert left_behind(folder) == []


def test_a_reader_sees_old_scores_or_new_ones(folder):
    write_job(folder, "old")
    process = processes.Process(target=write_job, args=(folder, "new"), kwargs={"replace": True})
    process.start()
    seen = set()
    while process.is_alive():
        try:
            seen.add(frozenset(read(folder).group_by("job_id").len().rows()))
        except duckdb.IOException:
            # The folder was exchanged between looking for the files and opening them.
            continue
    process.join()
    seen.add(frozenset(read(folder).group_by("job_id").len().rows()))
    whole = CHUNKS * ROWS
    assert seen <= {frozenset({("old", whole)}), frozenset({("new", whole)})}
    assert frozenset({("new", whole)}) in seen


def write_at_once(start, target, job_id):
    with sink_of(target, job_id) as sink:
        for number in range(CHUNKS):
            sink.commit(Chunk(number, number * ROWS, ROWS), scores_of(job_id, number))
        start.wait(SECONDS)
        sink.finish(CHUNKS)


def test_jobs_that_finish_at_once_are_all_there(folder):
    for round_ in range(4):
        job_ids = [f"{round_}{letter}" for letter in "abcdef"]
        start = processes.Barrier(len(job_ids))
        racing = [processes.Process(target=write_at_once, args=(start, folder, job_id)) for job_id in job_ids]
        for process in racing:
            process.start()
        for process in racing:
            process.join()
        assert [process.exitcode for process in racing] == [0] * len(job_ids)
        assert_holds(folder, *job_ids)
        assert left_behind(folder) == []
        shutil.rmtree(folder.path)


def replace_until(enough, target):
    for number in count():
        write_job(target, f"j{number}", replace=True)
        if enough.is_set():
            break


def test_jobs_are_listed_while_others_publish(folder):
    write_job(folder, "old")
    enough = processes.Event()
    process = processes.Process(target=replace_until, args=(enough, folder), daemon=True)
    process.start()
    listed = set()
    while len(listed) < 5 and process.is_alive():
        finished = {job.job_id for job in parquet_jobs(folder) if job.state == "finished"}
        assert finished
        listed |= finished
    enough.set()
    process.join()
    assert process.exitcode == 0
    assert len(listed) >= 5
