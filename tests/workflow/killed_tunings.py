"""Tunes one study, killed again and again: python killed_tunings.py PROJECT KILLS SEED TRIALS SECONDS

Imports once and forks an attempt at a time; each but the last is killed within its first SECONDS of CPU time. Prints
the number of attempts that were killed and the CPU seconds of the last one.
"""

import sys
from pathlib import Path

from killing import killed_until_done

import mtl_rank.tuning.tune  # noqa: F401
import mtl_rank.workflow as workflow

SETTINGS = {"fit.epochs": 2, "fit.checkpoint_minutes": 0.001, "fit.batch_size": 256, "fit.precision": "fp32"}


def main() -> None:
    project, kills, seed, trials = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    killed, seconds = killed_until_done(
        lambda: workflow.tune(project, ["ctr", "cvr"], trials=trials, settings=SETTINGS),
        kills,
        seed,
        float(sys.argv[5]),
    )
    sys.stdout.write(f"{killed} {seconds}\n")


if __name__ == "__main__":
    main()
