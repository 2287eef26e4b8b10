"""Tunes one study, killed again and again: python killed_tunings.py PROJECT KILLS SEED TRIALS SECONDS

Imports once and forks an attempt at a time; each but the last is killed by SIGKILL at a random moment within its
first SECONDS. Prints the number of attempts that were killed and the seconds of the last one.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import mtl_rank.tuning.tune  # noqa: F401
import mtl_rank.workflow as workflow

SETTINGS = {"fit.epochs": 2, "fit.checkpoint_minutes": 0.001, "fit.batch_size": 256, "fit.precision": "fp32"}


def main() -> None:
    project, kills, seed, trials = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    seconds = float(sys.argv[5])
    moments = random.Random(seed)
    killed = 0
    while True:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            workflow.tune(project, ["ctr", "cvr"], trials=trials, settings=SETTINGS)
            os._exit(0)
        limit = moments.uniform(0, seconds) if killed < kills else float("inf")
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() - began > limit:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                killed += 1
                break
            time.sleep(0.005)
        else:
            assert ended[1] == 0
            break
    sys.stdout.write(f"{killed} {time.monotonic() - began}\n")


if __name__ == "__main__":
    main()
