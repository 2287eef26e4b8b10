"""The speed limit of this machine: `python -m train.products BATCH_SIZE PRECISION`.

Only the matrix products of the work load's MMoE, forward and backward, on operands that lie as the library likes
them: no gather, no activation, no loss, no update. No training loop in that precision can be faster.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import torch

from train.loops.bare import DIM, EXPERTS, HIDDEN, OUT, TASKS
from train.workload import DENSE, sizes

REPEATS = 30


def main() -> None:
    batch_size, precision = int(sys.argv[1]), sys.argv[2]
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    settings = ("highest",) if precision == "bf16" else ("highest", "medium")
    best = max((_rate(batch_size, precision, setting) for setting in settings), key=lambda rate: rate[0])
    print(json.dumps({"rows_per_second": best[0], "rows_per_cpu_second": best[1], "peak_rss_mb": 0.0}))


def _rate(batch_size: int, precision: str, setting: str) -> tuple[float, float]:
    """Rows per second and per CPU-second."""
    torch.set_float32_matmul_precision(setting)
    products = _products(batch_size, torch.bfloat16 if precision == "bf16" else torch.float32)
    for _ in range(3):
        _run(products)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(REPEATS):
        _run(products)
    rows = REPEATS * batch_size
    return rows / (time.perf_counter() - wall), rows / (time.process_time() - cpu)


def _products(rows: int, dtype: torch.dtype) -> list[Callable[[], torch.Tensor]]:
    n_in, first = len(sizes(1)) * DIM + len(DENSE), EXPERTS * HIDDEN + TASKS * EXPERTS
    x, dy, w = (torch.randn(shape).to(dtype) for shape in ((rows, n_in), (rows, first), (n_in, first)))
    shapes = ((EXPERTS, rows, HIDDEN), (EXPERTS, rows, OUT), (EXPERTS, HIDDEN, OUT))
    h, dh, v = (torch.randn(shape).to(dtype) for shape in shapes)
    return [
        lambda: x @ w,
        lambda: dy @ w.T,
        lambda: x.T @ dy,
        lambda: h @ v,
        lambda: dh @ v.transpose(1, 2),
        lambda: h.transpose(1, 2) @ dh,
    ]


def _run(products: list[Callable[[], torch.Tensor]]) -> None:
    for product in products:
        product()


if __name__ == "__main__":
    main()
