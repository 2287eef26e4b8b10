"""Starts work in forked processes and kills them by SIGKILL at random moments, until one is let to end."""

import os
import random
import signal
import time
from collections.abc import Callable

import psutil


def killed_until_done(work: Callable[[], object], kills: int, seed: int, seconds: float) -> tuple[int, float]:
    """How many attempts were killed, and the CPU seconds of the last one.

    kills: how many at most. seconds: an attempt is killed within its first so many seconds of CPU time, so that what
    is killed does not depend on what else the machine does.
    """
    moments = random.Random(seed)
    killed = 0
    while True:
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        limit = moments.uniform(0, seconds) if killed < kills else float("inf")
        process, used = psutil.Process(child), 0.0
        while process.status() != psutil.STATUS_ZOMBIE:
            used = sum(process.cpu_times()[:2])
            if used > limit:
                break
            time.sleep(0.005)
        process.kill()
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return killed, used
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
