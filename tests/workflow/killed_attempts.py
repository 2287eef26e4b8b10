"""Trains one run, killed again and again: python killed_attempts.py PROJECT KILLS SEED EPOCHS SECONDS

Imports once and forks an attempt at a time; each but the last is killed within its first SECONDS of CPU time. Prints
the number of attempts that were killed, the CPU seconds of the last one, and the run.
"""

import sys
from pathlib import Path

from killing import killed_until_done

import mtl_rank.workflow as workflow
from mtl_rank.runs import FINISHED, list_runs


def attempt(project: Path, epochs: int) -> None:
    runs = list_runs(project)
    if not runs:
        settings = {"fit.epochs": epochs, "fit.patience": epochs, "fit.checkpoint_minutes": 0.001}
        workflow.train(project, ["ctr", "cvr"], settings)
    elif runs[-1].info()["status"] != FINISHED:
        workflow.resume(project)


def main() -> None:
    project, kills, seed, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    killed, seconds = killed_until_done(lambda: attempt(project, epochs), kills, seed, float(sys.argv[5]))
    sys.stdout.write(f"{killed} {seconds} {list_runs(project)[-1].folder}\n")


if __name__ == "__main__":
    main()
