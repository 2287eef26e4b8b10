"""Two processes that share each batch train what one process trains."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mtl_rank.runs import list_runs

# Rows without a click are without a conversion: the two processes see unequally many rows of each task.
OPTIONS = ["--tasks=ctr,cvr", "--weighting=uncertainty", "--set=model.dropout=0", "--set=fit.epochs=1"]


def train(project: Path, devices: int) -> dict[str, torch.Tensor]:
    options = [
        *OPTIONS,
        f"--set=fit.devices={devices}",
        "--set=fit.accelerator=cpu",
        "--set=fit.precision=fp32",
    ]
    # The installed command: the first process starts the others by it.
    script = Path(sys.executable).with_name("mtlrank")
    done = subprocess.run(
        [script, "train", *options],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return load_file(list_runs(project)[-1].weights)


def test_two_processes_train_what_one_trains(project: Path) -> None:
    one, two = train(project, 1), train(project, 2)
    assert len(list_runs(project)) == 2
    for name, weights in one.items():
        assert torch.allclose(two[name], weights, atol=2e-4), name


@pytest.mark.parametrize("devices", [0, -1])
def test_no_processes_are_refused(project: Path, devices: int) -> None:
    with pytest.raises(AssertionError, match="fit.devices"):
        train(project, devices)
