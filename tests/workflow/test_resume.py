"""A run that is killed, again and again, ends in the very weights of one that never was."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.errors import RunError
from mtl_rank.runs import Run, find_run, list_runs
from mtl_rank.workflow import training

EPOCHS = 3
# Checkpoints are asked for as often as in the killed run: they must not change a bit either.
SETTINGS = {"fit.epochs": EPOCHS, "fit.patience": EPOCHS, "fit.checkpoint_minutes": 0.001}


def killed(project: Path, kills: int, seed: int = 0, within: float = 0.0) -> tuple[int, float, Path]:
    """Kills, CPU seconds of the last attempt and folder of a run that is killed up to `kills` times."""
    script = Path(__file__).with_name("killed_attempts.py")
    done = subprocess.run(
        [sys.executable, script, project, str(kills), str(seed), str(EPOCHS), str(within)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, seconds, folder = done.stdout.split(maxsplit=2)
    return int(count), float(seconds), Path(folder.strip())


@pytest.fixture(scope="module")
def undisturbed(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run that nobody killed, and the CPU seconds it took."""
    project = shutil.copytree(applied, tmp_path_factory.mktemp("undisturbed") / "shop")
    _, seconds, folder = killed(project, 0)
    return folder, seconds


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (3, 4, 5))])
def test_a_run_killed_ten_times_equals_one_never_killed(
    project: Path, undisturbed: tuple[Path, float], seed: int
) -> None:
    expected, seconds = undisturbed
    kills, _, run = killed(project, 10, seed, seconds / 4)
    assert kills >= 2, "an attempt takes a quarter of the time at most: the test proves nothing with fewer"
    assert (run / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    assert (run / "metrics.json").read_bytes() == (expected / "metrics.json").read_bytes()
    assert not (run / "checkpoints").exists()
    assert len(list_runs(project)) <= 2, (
        "a kill before run.json was written may leave one run behind, no more"
    )


def test_resuming_says_what_cannot_be_resumed(trained: Path) -> None:
    finished = find_run(trained).id
    for arguments, words in (
        (["--resume", finished], "is finished"),
        (["--resume", "latest"], "no run to continue"),
        (["--resume", "nonesuch"], "there is no run"),
        (["--resume", finished, "--tasks", "ctr"], "leave out the other options"),
    ):
        outcome = mtlrank("train", *arguments, cwd=trained)
        assert (outcome.code, outcome.out) == (2, "")
        assert words in outcome.err


def test_a_run_that_another_process_finished_meanwhile_is_left_alone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = shutil.copytree(trained, tmp_path / "shop")
    run = find_run(project)
    run.update(status="interrupted")
    open_repository = training.project_repository

    def end(*args: Any) -> Any:
        run.update(status="finished")
        return open_repository(*args)

    monkeypatch.setattr(training, "project_repository", end)
    with pytest.raises(RunError, match="is finished"):
        mr.resume(project, run.id)
    assert run.status() == "finished"


def test_a_run_stopped_behind_its_last_step_is_finished(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Run.update

    def stop(self: Run, **facts: Any) -> None:
        update(self, **facts)
        if facts.get("status") == "finished":
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        mr.train(project, ["ctr"], {"fit.epochs": 1})
    assert find_run(project).info()["fit"]["epochs"] == 1


def test_changed_examples_are_not_mixed_into_a_run(project: Path) -> None:
    run = mr.train(project, ["ctr"], {"fit.epochs": 1})
    run.update(status="failed")

    path = project / "data" / "impressions.parquet"
    pl.read_parquet(path).slice(1).write_parquet(path)
    outcome = mtlrank("train", "--resume", run.id, cwd=project)
    assert outcome.code == 2
    assert "have changed since it began" in outcome.err
