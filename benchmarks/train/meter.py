"""Measures one training loop in one process: `python -m train.meter NAME FOLDER BATCH_SIZE STEPS PRECISION`.

Whoever trains, a hook of torch notes the clocks after every optimizer step; enough steps, and it stops the
training. The last line printed is the result as JSON.
"""

import importlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

WARM_UP = 5


class Enough(Exception):
    """Enough steps were measured."""


class Meter:
    """Clocks after each optimizer step: (wall seconds, CPU seconds of all threads)."""

    def __init__(self, steps: int) -> None:
        self._wanted = WARM_UP + steps
        self._marks: list[tuple[float, float]] = []

    def after_step(self, *_: Any) -> None:
        self._marks.append((time.perf_counter(), time.process_time()))
        if len(self._marks) == self._wanted:
            raise Enough

    def rates(self, batch_size: int) -> dict[str, float]:
        """Rows per second and per CPU-second after the warm-up; the last batch of an epoch may be short."""
        marks = self._marks[WARM_UP - 1 :]
        if len(self._marks) < self._wanted:
            marks = marks[:-1]
        wall, cpu = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
        rows = (len(marks) - 1) * batch_size
        return {"rows_per_second": rows / wall, "rows_per_cpu_second": rows / cpu, "steps": len(marks) - 1}


def peak_rss_mb() -> float:
    """High-water mark of resident memory, 10^6 bytes; getrusage would count the parent's before exec."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this system does not report VmHWM")


def main() -> None:
    name, folder, batch_size, steps, precision = sys.argv[1:]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(7)
    meter = Meter(int(steps))
    register_optimizer_step_post_hook(meter.after_step)
    loop = importlib.import_module(f"train.loops.{name}")
    with suppress(Enough):
        loop.train(Path(folder), int(batch_size), precision)
    print(json.dumps({**meter.rates(int(batch_size)), "peak_rss_mb": peak_rss_mb()}))


if __name__ == "__main__":
    main()
