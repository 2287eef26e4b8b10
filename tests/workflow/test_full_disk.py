"""A disk that fills up, at any stage, ends a training in two lines; with room again it continues to the same end.

A limit on the size of a file stands for the full disk: the system refuses the write in the same way.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtl_rank as mr
from mtl_rank.runs import list_runs

SETTINGS = {"fit.epochs": 2, "fit.patience": 2}


def train_within(project: Path, size: int) -> subprocess.CompletedProcess[str]:
    """`mtlrank train` in a process whose files may have `size` bytes, but those that Feast makes when imported."""
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    script = f"import resource, mtl_rank.workflow; {limit}; from mtlrank_cli.main import main; main()"
    options = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    return subprocess.run(
        [sys.executable, "-c", script, "train", "--tasks=ctr", *options],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def undisturbed(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    project = shutil.copytree(applied, tmp_path_factory.mktemp("undisturbed") / "shop")
    return mr.train(project, ["ctr"], SETTINGS).weights.read_bytes()


@pytest.mark.parametrize("size", [20_000, 100_000, 300_000, 600_000])
def test_a_full_disk_is_told_and_loses_nothing(project: Path, undisturbed: bytes, size: int) -> None:
    done = train_within(project, size)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (run,) = list_runs(project)
    told = done.stderr.splitlines()[-2:]
    assert told[0].startswith(f"mtlrank: no room left to write run {run.id}")
    assert told[1].endswith(f"mtlrank train --resume {run.id}")
    finished = mr.resume(project)
    assert finished.id == run.id
    assert finished.weights.read_bytes() == undisturbed
