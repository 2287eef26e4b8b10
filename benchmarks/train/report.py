"""The table: what was measured, and the ratios beside their targets."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from train.suite import (
    BARE,
    BARE_BF16,
    BATCHES,
    DEEPCTR,
    LIMIT,
    LIMIT_BF16,
    OURS,
    OURS_BF16,
    RECHUB,
    Loop,
    Results,
    Sizes,
)

NO_BF16 = "skipped: this processor has no bf16 instructions"


def report(results: Results, sizes: Sizes, load: float) -> str:
    """Markdown."""
    return "\n".join([*_conditions(sizes, load), "", *_rates(results), "", *_claims(results, sizes)])


def _conditions(sizes: Sizes, load: float) -> Iterator[str]:
    instructions = torch.backends.cpu.get_cpu_capability()
    yield f"{processor()}, {os.cpu_count()} cores, {instructions}; torch {torch.__version__}"
    yield (
        f"MMoE, 4 experts [256, 128], towers [64], dim 16, no dropout, no penalties; {sizes.rows:,} rows, "
        f"23 id columns, 8 numbers, 2 labels. Medians of {sizes.rounds} alternating rounds in fresh processes; "
        f"load average before the run {load:.1f}."
    )


def _rates(results: Results) -> Iterator[str]:
    large, small = BATCHES
    yield (
        f"| training loop | rows per CPU-second, 1 thread, batch {large} | batch {small} "
        f"| rows per second, 2 threads, batch {large} | batch {small} | peak RSS MB |"
    )
    yield "|---|---|---|---|---|---|"
    for loop in results.loops:
        cells = [f"{results.rate(loop, batch, n):,.0f}" for n in (1, 2) for batch in BATCHES]
        rss = results.median(results.rates[loop, large, 1], "peak_rss_mb")
        memory = f"{rss:,.0f}" if loop.module else "-"
        yield f"| {loop.title}, {loop.precision} | {' | '.join(cells)} | {memory} |"
    if not results.has_bf16:
        yield f"| mtl_rank and bare loop, bf16 | {NO_BF16} | | | | |"


def _claims(results: Results, sizes: Sizes) -> Iterator[str]:
    yield "| | measured | target |"
    yield "|---|---|---|"
    for title, measured, target in _measured(results, sizes):
        yield f"| {title} | {measured} | {target} |"


def _measured(results: Results, sizes: Sizes) -> Iterator[tuple[str, str, str]]:
    large, small = BATCHES
    for peer in (RECHUB, DEEPCTR):
        if peer in results.loops:
            for batch in BATCHES:
                target = "4x" if (peer, batch) == (RECHUB, large) else "-"
                yield f"fp32 over {peer.title}, batch {batch}", _times(results, OURS, peer, batch), target
    if results.has_bf16 and RECHUB in results.loops:
        for batch, target in ((large, "7x"), (small, "11x")):
            title = f"bf16 over {RECHUB.title}, batch {batch}"
            yield title, _times(results, OURS_BF16, RECHUB, batch), target
    for ours, bare in ((OURS, BARE), (OURS_BF16, BARE_BF16)):
        if ours in results.loops:
            for batch in BATCHES:
                share = results.rate(ours, batch) / results.rate(bare, batch)
                yield f"of the bare loop, {ours.precision}, batch {batch}", f"{share:.0%}", "95 %"
    for ours, limit in ((OURS, LIMIT), (OURS_BF16, LIMIT_BF16)):
        if ours in results.loops:
            for batch in BATCHES:
                share = results.rate(ours, batch) / results.rate(limit, batch)
                yield f"of the matrix products alone, {ours.precision}, batch {batch}", f"{share:.0%}", "-"
    for limit in (LIMIT, LIMIT_BF16):
        if {limit, RECHUB} <= set(results.loops):
            title = f"matrix products alone, {limit.precision}, over {RECHUB.title}, batch {large}"
            yield title, _times(results, limit, RECHUB, large), "-"
    grown = results.median(results.grown, "rows_per_cpu_second") / results.rate(OURS, large)
    yield "rate at 10.3M embedding rows, of that at 1.2M", f"{grown:.0%}", "90 %"
    few, many = sorted(results.streamed_rss)
    growth = results.streamed_rss[many] - results.streamed_rss[few]
    yield f"RSS growth, {few:,} to {many:,} training rows", f"{growth:,.0f} MB", "200 MB"
    yield from _encoding(results, sizes)
    first, second = results.first_step
    yield f"first step of `mtlrank train`, shop of {sizes.shop_first_step:,} rows", f"{first:.1f} s", "-"
    yield "the same command again", f"{second:.1f} s", "10 s"
    yield from _auc(results)


def _encoding(results: Results, sizes: Sizes) -> Iterator[tuple[str, str, str]]:
    epoch = sizes.rows / results.rate(OURS, BATCHES[0])
    encode, fitted = (results.median(results.encoding, key) for key in ("encode", "fit"))
    yield (
        f"encoding {sizes.rows:,} rows, of one epoch's {epoch:.0f} CPU-seconds",
        f"{encode / epoch:.1%} ({encode:.2f} s)",
        "10 %",
    )
    both = encode + fitted
    yield "fitting the encoder and encoding", f"{both / epoch:.1%} ({both:.2f} s)", "10 %"


def _auc(results: Results) -> Iterator[tuple[str, str, str]]:
    for task in dict.fromkeys(one["task"] for one in results.auc):
        found = [one for one in results.auc if one["task"] == task]
        ours, dense = (np.array([one[key] for one in found]) for key in ("ours", "dense_adam"))
        yield (
            f"{task} AUC over dense Adam in fp32 ({found[0]['precision']}, {len(found)} seeds)",
            f"{ours.mean() - dense.mean():+.4f} ({ours.mean():.4f} ± {ours.std():.4f} against "
            f"{dense.mean():.4f} ± {dense.std():.4f})",
            "-0.002",
        )


def _times(results: Results, ours: Loop, peer: Loop, batch: int) -> str:
    return f"{results.rate(ours, batch) / results.rate(peer, batch):.1f}x"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
