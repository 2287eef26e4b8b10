"""Trains one run, killed again and again: python killed_attempts.py PROJECT KILLS SEED EPOCHS SECONDS

Imports once and forks an attempt at a time; each but the last is killed by SIGKILL at a random moment within its
first SECONDS. Prints the number of attempts that were killed, the seconds of the last one, and the run.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

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
    seconds = float(sys.argv[5])
    moments = random.Random(seed)
    killed = 0
    while True:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            attempt(project, epochs)
            os._exit(0)
        limit = moments.uniform(0, seconds) if killed < kills else float("inf")
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() - began > limit:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                killed += 1
                break
            time.sleep(0.005)
        else:
            break
    sys.stdout.write(f"{killed} {time.monotonic() - began} {list_runs(project)[-1].folder}\n")


if __name__ == "__main__":
    main()
