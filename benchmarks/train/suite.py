"""Everything that is measured, in alternation: one round measures every loop once."""

import json
import statistics
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from mtl_rank.datasets.projects import create_project
from mtl_rank.datasets.shop import simulate_shop
from mtl_rank.progress import Silent
from mtl_rank.training.precision import cpu_has_bf16
from train import processes, workload
from train.processes import say

GROWTH = 9
BATCHES = (4096, 1024)
THREADS = (1, 2)


@dataclass(frozen=True)
class Sizes:
    """How much work: rows of the main, the streamed and the shop data, rounds, steps of fast loops and of peers."""

    rows: int = 1_000_000
    streamed: int = 10_000_000
    shop_first_step: int = 1_000_000
    shop_auc: int = 300_000
    seeds: int = 5
    rounds: int = 3
    steps: int = 100
    peer_steps: int = 25

    @staticmethod
    def tiny() -> "Sizes":
        """Proves in minutes that everything runs; its numbers mean nothing."""
        return Sizes(60_000, 200_000, 20_000, 20_000, 1, 1, 5, 2)


@dataclass(frozen=True)
class Loop:
    """A training loop: `module` in train/loops, and what it is called in the table; none = the products alone."""

    title: str
    module: str
    precision: str
    is_peer: bool = False


OURS, BARE = Loop("mtl_rank", "mtl_rank", "fp32"), Loop("bare torch loop", "bare", "fp32")
RECHUB = Loop("torch-rechub 0.9", "rechub", "fp32", True)
DEEPCTR = Loop("DeepCTR-Torch 0.3", "deepctr", "fp32", True)
LIMIT = Loop("matrix products alone", "", "fp32")
LIMIT_BF16 = Loop("matrix products alone", "", "bf16")
OURS_BF16, BARE_BF16 = Loop("mtl_rank", "mtl_rank", "bf16"), Loop("bare torch loop", "bare", "bf16")


@dataclass
class Results:
    """rates: (loop, batch size, threads) -> one measurement per round; the rest as named."""

    loops: list[Loop]
    has_bf16: bool
    rates: dict[tuple[Loop, int, int], list[dict[str, float]]] = field(default_factory=dict)
    grown: list[dict[str, float]] = field(default_factory=list)
    streamed_rss: dict[int, float] = field(default_factory=dict)
    encoding: list[dict[str, float]] = field(default_factory=list)
    first_step: list[float] = field(default_factory=list)
    auc: list[dict[str, Any]] = field(default_factory=list)

    def rate(self, loop: Loop, batch_size: int, threads: int = 1) -> float:
        """Rows per CPU-second on one thread, rows per second on more: the median of the rounds."""
        key = "rows_per_cpu_second" if threads == 1 else "rows_per_second"
        return self.median(self.rates[loop, batch_size, threads], key)

    @staticmethod
    def median(measured: list[dict[str, float]], key: str) -> float:
        return statistics.median(one[key] for one in measured)


def run_suite(folder: Path, sizes: Sizes, with_peers: bool) -> Results:
    """Measure everything. folder: an empty place for the generated data, 3 GB at full size."""
    has_bf16 = cpu_has_bf16()
    loops = [OURS, BARE, LIMIT, *([OURS_BF16, BARE_BF16, LIMIT_BF16] if has_bf16 else [])]
    loops += [RECHUB, DEEPCTR] if with_peers else []
    results = Results(loops, has_bf16)
    python = processes.peers_python() if with_peers else None
    main, grown = folder / "main", folder / "grown"
    workload.prepare(main, sizes.rows)
    workload.prepare(grown, sizes.rows, GROWTH)
    for number in range(sizes.rounds):
        say(f"round {number + 1}/{sizes.rounds}")
        for batch_size, threads, loop in product(BATCHES, THREADS, loops):
            found = _train(loop, main, batch_size, _steps(loop, batch_size, sizes), threads, python)
            results.rates.setdefault((loop, batch_size, threads), []).append(found)
        results.grown.append(_train(OURS, grown, BATCHES[0], sizes.steps, 1, None))
        results.encoding.append(processes.measure("train.encoding", folder, sizes.rows))
    _stream(results, folder, sizes)
    _shop(results, folder, sizes)
    return results


def _steps(loop: Loop, batch_size: int, sizes: Sizes) -> int:
    """Half the rows will do at the small batch: dense updates of whole tables make its rows dear."""
    steps = sizes.peer_steps if loop.is_peer else sizes.steps
    return steps if batch_size == BATCHES[0] else steps * BATCHES[0] // batch_size // 2


def _train(
    loop: Loop, folder: Path, batch_size: int, steps: int, threads: int, peers: Path | None
) -> dict[str, float]:
    arguments: tuple[object, ...] = ("train.meter", loop.module, folder, batch_size, steps, loop.precision)
    if not loop.module:
        arguments = ("train.products", batch_size, loop.precision)
    found = processes.measure(*arguments, threads=threads, python=peers if loop.is_peer else None)
    say(
        f"  {loop.title} {loop.precision}, {folder.name}, batch {batch_size}, {threads} threads: "
        f"{found['rows_per_cpu_second']:,.0f} rows per CPU-second, {found['rows_per_second']:,.0f} per second"
    )
    return found


def _stream(results: Results, folder: Path, sizes: Sizes) -> None:
    for rows in (sizes.rows, sizes.streamed):
        say(f"a whole epoch over {rows:,} rows")
        data = folder / "main" if rows == sizes.rows else folder / "streamed"
        workload.prepare(data, rows)
        whole = ("train.meter", "streamed", data, BATCHES[0], rows, "fp32")
        results.streamed_rss[rows] = processes.measure(*whole, threads=2)["peak_rss_mb"]


def _shop(results: Results, folder: Path, sizes: Sizes) -> None:
    for rows, name in ((sizes.shop_first_step, "shop"), (sizes.shop_auc, "shop_auc")):
        create_project(folder / name, "shop", None, Silent())
        simulate_shop(folder / name / "data", rows, seed=7)
    say(f"first step of two trainings on a shop of {sizes.shop_first_step:,} rows")
    results.first_step += [processes.seconds_to_first_step(folder / "shop") for _ in range(2)]
    say(f"AUC over {sizes.seeds} seeds on a shop of {sizes.shop_auc:,} rows")
    lines = processes.run("train.auc", folder / "shop_auc", sizes.seeds, threads=torch.get_num_threads())
    results.auc += [json.loads(line) for line in lines]
