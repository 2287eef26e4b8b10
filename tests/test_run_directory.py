"""The run directory on its own: made whole, and held by one process however many look at it."""

import fcntl
import itertools
import resource

import pytest
from processes import processes

from mtl_rank import durable, runs
from mtl_rank.config import load_config
from mtl_rank.errors import RunError
from mtl_rank.runs import RUNS, Run, create_run, list_runs, write_json


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / RUNS / "a"
    folder.mkdir(parents=True)
    write_json(folder / "run.json", {"status": "running"})
    return Run(folder)


def create_within(size, project, outcome):
    config = load_config(project)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        with create_run(project, config) as run:
            outcome.put(str(run))
    except RunError as error:
        outcome.put(str(error))


@pytest.mark.parametrize("size", [0, 100])
def test_a_run_that_finds_no_room_is_told_and_leaves_no_folder(project, size):
    outcome = processes.Queue()
    process = processes.Process(target=create_within, args=(size, project, outcome))
    process.start()
    assert "cannot be made: File too large" in outcome.get(timeout=300)
    process.join()
    assert list((project / RUNS).iterdir()) == []


def test_a_run_is_held_while_others_look_whether_it_is(run, monkeypatch):
    with (run.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        monkeypatch.setattr(runs.time, "sleep", lambda _: fcntl.flock(file, fcntl.LOCK_UN))
        with run.held(), pytest.raises(RunError, match="trained by another process"), run.held():
            pass


def test_a_run_that_is_trained_elsewhere_is_refused_within_seconds(run, monkeypatch):
    pauses = []
    monkeypatch.setattr(runs.time, "sleep", pauses.append)
    with run.held(), pytest.raises(RunError, match="trained by another process"), run.held():
        pass
    assert 0.5 < sum(pauses) < 5


def test_a_process_that_was_put_to_sleep_looks_again_whether_a_run_is_held(run, monkeypatch):
    """As on a machine that has other work: what it saw before says nothing of now."""
    hours = itertools.count(step=3600)
    monkeypatch.setattr(runs.time, "monotonic", lambda: next(hours))
    with (run.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        monkeypatch.setattr(runs.time, "sleep", lambda _: fcntl.flock(file, fcntl.LOCK_UN))
        with run.held():
            pass


def test_a_run_that_ends_between_two_looks_at_it_was_not_killed(run, monkeypatch):
    def end(self):
        self.update(status="finished")
        return False

    monkeypatch.setattr(Run, "_is_held", end)
    assert run.status() == "finished"


def test_a_new_run_is_never_seen_as_killed(project, monkeypatch):
    seen = []
    monkeypatch.setattr(
        durable, "sync_folder", lambda _: seen.extend(run.status() for run in list_runs(project))
    )
    with create_run(project, load_config(project)) as run:
        assert run.status() == "running"
    assert set(seen) == {"running"}
    assert run.status() == "killed"


def test_what_is_written_takes_the_place_of_what_was_there(run):
    run.update(status="finished", seed=7)
    assert run.info() == {"status": "finished", "seed": 7}
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]
