"""The table: what was measured, and the ratios beside their targets."""

import os
from collections.abc import Iterator

import torch
from train.report import processor

from score.suite import END_TO_END, FORWARD, JOINED, RECHUB, Results, Sizes

TARGET_OVER_RECHUB, TARGET_OF_FORWARD, TARGET_GROWTH_MB = 5.0, 0.65, 200


def report(results: Results, sizes: Sizes, load: float) -> str:
    """Markdown."""
    parts = (_conditions(results, sizes, load), _rates(results), _jobs(results), _claims(results, sizes))
    return "\n\n".join("\n".join(part) for part in parts)


def _conditions(results: Results, sizes: Sizes, load: float) -> Iterator[str]:
    yield f"{processor()}, {os.cpu_count()} cores; torch {torch.__version__}, {results.precision}"
    yield (
        "MMoE, 4 experts [256, 128], towers [64], dim 16; 23 id columns, 8 numbers, 2 tasks. "
        f"Medians of {sizes.rounds} alternating rounds in fresh processes; load average before the run {load:.1f}."
    )


def _rates(results: Results) -> Iterator[str]:
    yield "| | rows per CPU-second |"
    yield "|---|---|"
    for loop in results.rounds:
        yield f"| {loop} | {results.per_cpu_second(loop):,.0f} |"


def _jobs(results: Results) -> Iterator[str]:
    stages = list(next(iter(results.by_rows.values()))["profile"])
    yield f"| job | rows | rows per second | CPU-seconds | peak RSS MB | {' | '.join(stages)} |"
    yield f"|---|---|---|---|---|{'---|' * len(stages)}"
    for (loop, rows), one in results.by_rows.items():
        busy = one["profile"]
        shares = " | ".join(f"{busy.get(stage, 0) / sum(busy.values()):.0%}" for stage in stages)
        yield (
            f"| {loop} | {rows:,} | {rows / one['wall']:,.0f} | {one['cpu']:.1f} | {one['peak_rss_mb']:,.0f} "
            f"| {shares} |"
        )


def _claims(results: Results, sizes: Sizes) -> Iterator[str]:
    yield "| | measured | target |"
    yield "|---|---|---|"
    ours = results.per_cpu_second(END_TO_END)
    if RECHUB in results.rounds:
        times = ours / results.per_cpu_second(RECHUB)
        yield f"| parquet to DuckDB over {RECHUB}, per CPU-second | {times:.1f}x | {TARGET_OVER_RECHUB:.0f}x |"
    share = ours / results.per_cpu_second(FORWARD)
    yield f"| parquet to DuckDB, of the forward pass alone | {share:.0%} | {TARGET_OF_FORWARD:.0%} |"
    large, larger = sizes.rows[-2:]
    for loop, target in ((END_TO_END, f"{TARGET_GROWTH_MB} MB"), (JOINED, "-")):
        grown = results.by_rows[loop, larger]["peak_rss_mb"] - results.by_rows[loop, large]["peak_rss_mb"]
        yield f"| RSS growth, {large:,} to {larger:,} rows: {loop} | {grown:,.0f} MB | {target} |"
